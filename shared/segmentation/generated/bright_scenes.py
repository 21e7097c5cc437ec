"""The look that the nuclei and the single shapes share: bright objects on grey, blurred, with noise; one channel."""

import numpy as np

from shared.segmentation.generated.raster import Array, to_uint8, uniform

BACKGROUND, BLUR, NOISE = 0.25, 1.0, 0.06  # intensity, sigma in pixels, sigma of the intensity
INTENSITIES = (0.6, 0.9)


def painted(labels: Array, random: np.random.RandomState) -> Array:
    """(H, W) uint8 picture of a label map with ids 1..n; every object has an intensity U(0.6, 0.9)."""
    from scipy.ndimage import gaussian_filter

    shades = [BACKGROUND, *(uniform(random, *INTENSITIES) for _ in range(int(labels.max())))]
    image = gaussian_filter(np.array(shades)[labels], BLUR)
    return to_uint8(image + NOISE * random.standard_normal(image.shape))
