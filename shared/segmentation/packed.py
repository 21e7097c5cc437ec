"""Decoded copy of a pulled set of instance folders: images of several sizes in one memory-mapped array.

source = load_instance_folders("dsb2018", below="stage1_train")
"""

from pathlib import Path

import numpy as np

from shared.data.cache import cached
from shared.data.pull import pull, pulled_content
from shared.errors import DataError
from shared.segmentation.folders import InstanceFolders
from shared.segmentation.samples import Array, Instances, Sample

_MOST = np.iinfo(np.uint16).max


class PackedInstances:
    """A set of images with label maps, decoded. Every image and label map is a fresh, writable array.

    data: flat uint8, an image's pixels and then its label map as little-endian uint16; table: (N, 4) int64
    rows of offset, height, width and number of instances.
    """

    def __init__(self, data: Array, table: Array, names: list[str]) -> None:
        self.data, self.table, self.names = data, table, names

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Sample:
        offset, height, width, num_instances = (int(value) for value in self.table[index])
        area = height * width
        block = np.array(self.data[offset : offset + 5 * area])
        labels = block[3 * area :].view("<u2").reshape(height, width).astype(np.int32)
        image = block[: 3 * area].reshape(height, width, 3)
        return Sample(self.names[index], image, Instances(labels, np.zeros(num_instances, np.int64)))


def load_instance_folders(name: str, below: str = ".", root: Path | None = None) -> PackedInstances:
    """The pulled data set `name` (`InstanceFolders` in its folder `below`), decoded once, then memory-mapped."""
    folder = pull(name, root)
    inner = "" if below == "." else f"-{below.replace('/', '-')}"
    key = f"{pulled_content(name, root)[:16]}-instances{inner}"
    return PackedInstances(*cached(folder, key, lambda _: pack(InstanceFolders(folder / below))))


def pack(source: InstanceFolders) -> tuple[Array, Array, list[str]]:
    """data, table and names of `PackedInstances`."""
    blocks, rows, offset = [], [], 0
    for index in range(len(source)):
        sample = source[index]
        assert isinstance(sample.truth, Instances)
        if len(sample.truth) > _MOST:
            raise DataError(f"{source.folders[index]}: {len(sample.truth)} instances, at most {_MOST} can be kept")
        labels = sample.truth.labels.astype("<u2")
        blocks += [sample.image.ravel(), labels.ravel().view(np.uint8)]
        rows.append([offset, *labels.shape, len(sample.truth)])
        offset += sample.image.size + labels.nbytes
    return np.concatenate(blocks), np.array(rows, np.int64), source.names
