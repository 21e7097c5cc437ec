"""Seeded splits by position. numpy's legacy `RandomState` is used on purpose: its streams are
frozen for ever, and the released code of the unlearning papers draws from it.
"""

import numpy as np

from shared.errors import ConfigError


def validation_split(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hold out `fraction` of every class (SalUn's released code: 10 %, seed 1 for the original model).

    One `RandomState(seed)` serves all classes: for class 0, 1, ... in turn it draws int(fraction *
    count) of the class's positions (ascending) without replacement. Returns (train_indices,
    validation_indices), int64: train ascending; validation in draw order, class after class, which
    is the order of the released code's validation set.
    """
    if not 0 < fraction < 1:
        raise ConfigError(f"validation fraction {fraction} must lie between 0 and 1, both excluded")
    random = np.random.RandomState(seed)
    drawn = []
    for label in range(int(np.max(labels)) + 1):
        positions = np.flatnonzero(labels == label)
        drawn.append(random.choice(positions, int(fraction * len(positions)), replace=False))
    validation = np.concatenate(drawn).astype(np.int64)
    return complement(len(labels), validation), validation


def draw(indices: np.ndarray, count: int, seed: int) -> np.ndarray:
    """`count` different elements of `indices` by RandomState(seed).choice, in draw order."""
    if not 0 <= count <= len(indices):
        raise ConfigError(f"cannot draw {count} of {len(indices)} items without replacement")
    return np.random.RandomState(seed).choice(indices, count, replace=False).astype(np.int64)


def forget_split(num_items: int, num_forget: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random forget set (as SalUn's released code does): RandomState(seed - 1).choice(num_items, num_forget).

    Returns (forget_indices, retain_indices), int64: forget in draw order, retain ascending. The
    released code subtracts one from its seed, so seed must be at least 1.
    """
    if seed < 1:
        raise ConfigError(f"forget seed {seed} must be at least 1: the drawing uses seed - 1")
    forget = draw(np.arange(num_items), num_forget, seed - 1)
    return forget, complement(num_items, forget)


def complement(num_items: int, indices: np.ndarray) -> np.ndarray:
    """Positions 0..num_items-1 that are not in `indices`, int64 ascending."""
    rest = np.ones(num_items, dtype=bool)
    rest[indices] = False
    return np.flatnonzero(rest)
