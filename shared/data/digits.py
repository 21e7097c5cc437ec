"""The digits of scikit-learn with fixed noise, which makes a generalisation gap: something to forget."""

from pathlib import Path

import numpy as np

from shared.errors import ConfigError


def digits(
    folder: Path, split: str, *, noise: float = 0.0, seed: int = 0, num_train: int = 1000
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """8x8 images scaled to [0, 1], permuted once; the first `num_train` are the train split.

    noise: standard deviation of fixed Gaussian noise added to every pixel; values may then leave
    [0, 1], they are not clipped. Permutation and noise come from one
    `numpy.random.RandomState(seed)`: first the permutation, then the noise of all 1797 images in
    the permuted order. So the split does not depend on `noise`, and an image's noise does not
    depend on `num_train`.

    Returns images (N, 8, 8, 1) float32, labels (N,) int64, class names "0".."9".
    """
    images, labels = np.load(folder / "images.npy"), np.load(folder / "labels.npy")
    if not 0 < num_train < len(images):
        raise ConfigError(f"digits: num_train = {num_train} must lie between 1 and {len(images) - 1}")
    if noise < 0:
        raise ConfigError(f"digits: noise = {noise} must not be negative")
    random = np.random.RandomState(seed)
    order = random.permutation(len(images))
    scaled = images[order] / 16
    if noise:
        scaled = scaled + noise * random.standard_normal(scaled.shape)
    part = slice(None, num_train) if split == "train" else slice(num_train, None)
    return (
        scaled[part, :, :, None].astype(np.float32),
        labels[order][part],
        [str(digit) for digit in range(10)],
    )
