"""Steps that change colours and leave every pixel in its place: (image (H, W, 3) uint8, step, rng) -> image."""

from collections.abc import Callable
from typing import Any

import numpy as np

from shared.segmentation.augment import options
from shared.segmentation.augment.warp import about_centre, to_uint8, warp_image
from shared.segmentation.samples import Array


def color_jitter(image: Array, step: options.ColorJitter, rng: np.random.Generator) -> Array:
    """Brightness and saturation blend with black and with grey, contrast with the mean grey; the order is random.

    NumPy and not torch: torch would start its own threads in each thread that makes batches.
    """
    limits = (step.brightness, step.contrast, step.saturation, step.hue)
    amounts = [float(rng.uniform(-most, most)) for most in limits]
    pixels = image.astype(np.float32) / 255
    for index in rng.permutation(len(limits)):
        pixels = np.clip(_JITTER[index](pixels, amounts[index]), 0, 1)
    return to_uint8(255 * pixels)


def _grey(pixels: Array) -> Array:
    return np.asarray(pixels @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]


def _turn_hue(pixels: Array, turn: float) -> Array:
    from skimage.color import hsv2rgb, rgb2hsv

    if turn == 0:
        return pixels
    hsv = rgb2hsv(pixels)
    hsv[..., 0] = (hsv[..., 0] + turn) % 1
    return np.asarray(hsv2rgb(hsv))


_JITTER: list[Callable[[Array, float], Array]] = [
    lambda pixels, amount: pixels * (1 + amount),
    lambda pixels, amount: pixels * (1 + amount) - amount * _grey(pixels).mean(),
    lambda pixels, amount: pixels * (1 + amount) - amount * _grey(pixels),
    _turn_hue,
]


def downscale(image: Array, step: options.Downscale, rng: np.random.Generator) -> Array:
    small = tuple(max(1, round(side * step.scale)) for side in image.shape[:2])
    return _nearest(_nearest(image, small), image.shape[:2])


def _nearest(image: Array, size: tuple[int, ...]) -> Array:
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, image.shape[:2], strict=True))
    return image[rows[:, None], columns]


def blur(image: Array, step: options.Blur, rng: np.random.Generator) -> Array:
    from scipy.ndimage import uniform_filter

    side = int(rng.choice(np.arange(3, step.limit + 1, 2)))
    return to_uint8(uniform_filter(image.astype(np.float32), (side, side, 1), mode="mirror"))


def gaussian_noise(image: Array, step: options.GaussianNoise, rng: np.random.Generator) -> Array:
    deviation = np.sqrt(rng.uniform(0, step.variance))
    return to_uint8(image + deviation * rng.standard_normal(image.shape, np.float32))


def zoom_blur(image: Array, step: options.ZoomBlur, rng: np.random.Generator) -> Array:
    """The image itself counts twice: as such, and as the enlargement by 1."""
    most, width = rng.uniform(1, step.max_factor), rng.uniform(*step.step)
    factors = np.arange(1, most, width)
    size = (image.shape[0], image.shape[1])
    total = image.astype(np.float32)
    for factor in factors:
        total = total + warp_image(image, np.linalg.inv(about_centre(size, factor)), size, "edge")
    return to_uint8(total / (len(factors) + 1))


def superpixels(image: Array, step: options.Superpixels, rng: np.random.Generator) -> Array:
    from skimage.segmentation import slic

    replaced = rng.random(step.segments) < step.replace
    if not replaced.any():
        return image
    shrink = min(1.0, step.max_size / max(image.shape[:2]))
    small = _linear(image, tuple(max(1, round(side * shrink)) for side in image.shape[:2]))
    segments = slic(small, step.segments, compactness=10, start_label=0, channel_axis=-1).ravel()
    pixels = small.reshape(-1, 3)
    counts = np.maximum(np.bincount(segments), 1)
    means = np.stack([np.bincount(segments, channel) / counts for channel in pixels.T], 1)
    chosen = replaced[np.arange(len(counts)) % step.segments][segments]
    pixels = np.where(chosen[:, None], to_uint8(means)[segments], pixels)
    return _linear(pixels.reshape(small.shape), image.shape[:2])


def _linear(image: Array, size: tuple[int, ...]) -> Array:
    from skimage.transform import resize

    if size == image.shape[:2]:
        return image
    return to_uint8(resize(image.astype(np.float32), size, order=1, mode="edge", anti_aliasing=False))


APPEARANCE: dict[str, Callable[[Array, Any, np.random.Generator], Array]] = {
    "color_jitter": color_jitter,
    "downscale": downscale,
    "blur": blur,
    "gaussian_noise": gaussian_noise,
    "zoom_blur": zoom_blur,
    "superpixels": superpixels,
}
