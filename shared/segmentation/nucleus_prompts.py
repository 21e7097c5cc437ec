"""Point prompts of nuclei in a label map, with points of neighbours as negatives (PromptNucSeg, arXiv:2311.15939).

Points are (x, y) pixel indices; labels are 1 the nucleus, 0 a neighbour, -1 no point (its coordinates are 0, 0).
"""

from typing import NamedTuple

import numpy as np

from shared.errors import DataError
from shared.segmentation.samples import Array, Instances


class NucleusPrompts(NamedTuple):
    """ids: (T,) int64 of the target nuclei; points: (T, 1 + K, 2), labels: (T, 1 + K), both float32."""

    ids: Array
    points: Array
    labels: Array


def nucleus_prompts(
    instances: Instances, rng: np.random.Generator, max_targets: int, num_negatives: int = 0
) -> NucleusPrompts:
    """Training prompts of one crop: at most `max_targets` nuclei, each with a random pixel as its point.

    For the negatives every nucleus of the crop draws one more pixel; a target gets the min(K, targets - 1) nearest of
    those of other nuclei, chosen or not, by the distance to its own one of this second drawing. A crop without
    nuclei gives T = 0.
    """
    num = len(instances)
    ids = np.sort(rng.permutation(num)[:max_targets]) + 1
    positives = instance_points(instances, rng)[ids - 1]
    negatives = instance_points(instances, rng) if num_negatives else np.zeros((num, 2), np.float32)
    given = min(num_negatives, max(0, len(ids) - 1))
    near = nearest_others(negatives, given)[ids - 1] if given else np.zeros((len(ids), 0), np.int64)
    return NucleusPrompts(ids, *_joined(positives, negatives[near], num_negatives))


def neighbour_prompts(points: Array, num_negatives: int) -> tuple[Array, Array]:
    """Test prompts of one window: points (N, 2) -> (N, 1 + K, 2) and labels (N, 1 + K).

    The negatives of a prompt are the min(K, N - 1) nearest other prompts of the window.
    """
    points = np.asarray(points, np.float32).reshape(-1, 2)
    given = min(num_negatives, max(0, len(points) - 1))
    near = nearest_others(points, given) if given else np.zeros((len(points), 0), np.int64)
    return _joined(points, points[near], num_negatives)


def without_negatives(labels: Array) -> Array:
    """The labels with every negative point switched off (-1)."""
    return np.where(labels == 0, np.float32(-1), labels).astype(np.float32)


def instance_points(instances: Instances, rng: np.random.Generator) -> Array:
    """(n, 2) float32: one uniformly drawn pixel of each instance."""
    flat = instances.labels.ravel()
    pixels = np.flatnonzero(flat)
    counts = np.bincount(flat[pixels], minlength=len(instances) + 1)[1:]
    if not counts.all():
        raise DataError(f"instance {int(np.flatnonzero(counts == 0)[0]) + 1} has no pixel in the label map")
    ordered = pixels[np.argsort(flat[pixels], kind="stable")]
    chosen = ordered[np.cumsum(counts) - counts + rng.integers(0, counts)] if len(counts) else pixels
    rows, columns = np.divmod(chosen, instances.labels.shape[1])
    return np.stack([columns, rows], 1).astype(np.float32)


def nearest_others(points: Array, num: int) -> Array:
    """(N, num) indices of the nearest other points, nearest first. num < N."""
    from scipy.spatial import KDTree

    _, near = KDTree(points).query(points, k=num + 1)
    other = near != np.arange(len(points))[:, None]
    # Of equal points the tree may leave out the point itself: then drop the last instead.
    other[other.all(1), -1] = False
    return np.asarray(near[other].reshape(len(points), num))


def centroids(instances: Instances) -> Array:
    """(n, 2) float32: centroid of the largest connected piece of each instance, cut to whole pixels.

    What the prompter is trained to find. A piece without its own centroid (a crescent) gives the centroid all the same.
    """
    from scipy.ndimage import find_objects, label

    points = []
    for number, box in enumerate(find_objects(instances.labels, len(instances)), 1):
        pieces, _ = label(instances.labels[box] == number, np.ones((3, 3)))
        rows, columns = np.nonzero(pieces == np.bincount(pieces.ravel())[1:].argmax() + 1)
        points.append((int(columns.mean() + box[1].start), int(rows.mean() + box[0].start)))
    return np.array(points, np.float32).reshape(-1, 2)


def _joined(positives: Array, negatives: Array, num_negatives: int) -> tuple[Array, Array]:
    """Positive points (T, 2) and given negatives (T, k', 2), filled up to K with slots that hold no point."""
    points = np.zeros((len(positives), 1 + num_negatives, 2), np.float32)
    labels = np.full((len(positives), 1 + num_negatives), -1, np.float32)
    given = negatives.shape[1]
    points[:, 0], labels[:, 0] = positives, 1
    points[:, 1 : 1 + given], labels[:, 1 : 1 + given] = negatives, 0
    return points, labels
