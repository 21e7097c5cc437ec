"""Generated images with a bright square or a bar each, by class and as instances."""

import numpy as np

from shared.segmentation.episodes.source import ClassSource, View
from shared.segmentation.samples import Instances, Sample

SIDE = 32
CLASSES = ("square", "bar", "dot")


def picture(number):
    """Image and labels: object 1 and 2 of two of the classes."""
    rng = np.random.default_rng(number)
    image = rng.integers(0, 60, (SIDE, SIDE, 3)).astype(np.uint8)
    labels = np.zeros((SIDE, SIDE), np.int32)
    first, second = number % 3, (number + 1) % 3
    x = int(rng.integers(2, 8))
    labels[3:13, x : x + 10], labels[18:28, x + 4 : x + 14] = 1, 2
    for key, label in ((1, first), (2, second)):
        image[labels == key] = np.eye(3, dtype=np.uint8)[label] * 200
    return image, labels, np.array([first, second], np.int64)


class Instanced:
    """A source of label maps."""

    def __init__(self, number):
        self.names = [f"scene_{n}" for n in range(number)]

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        image, labels, classes = picture(index)
        return Sample(self.names[index], image, Instances(labels, classes))


class Classed(ClassSource):
    """The same by class."""

    def __init__(self, number):
        self.names, self.classes = [f"scene_{n}" for n in range(number)], list(CLASSES)
        shown = [picture(n)[2] for n in range(number)]
        self.members = [[n for n in range(number) if label in shown[n]] for label in range(3)]

    def view(self, image, label):
        pixels, labels, classes = picture(image)
        return View(pixels, labels == 1 + int(np.flatnonzero(classes == label)[0]), self.names[image])
