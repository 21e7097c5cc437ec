"""Pictures in records: small, and unpacked as they were packed."""

import base64

import pytest
import torch

from shared.diffusion.evaluate.pictures import LONGEST, MOST_BYTES, pack, unpack
from shared.errors import RecordError


def test_small_images_come_back_to_the_bit():
    images = torch.rand(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    found = unpack(pack(images, ["red circle", "disc", "disc"], ["target", "retained", "retained"]))
    assert [(each.label, each.group) for each in found] == [
        ("red circle", "target"),
        ("disc", "retained"),
        ("disc", "retained"),
    ]
    for each, image in zip(found, images, strict=True):
        assert torch.equal(torch.from_numpy(each.image.copy()), (image * 255).round().byte().permute(1, 2, 0))


def test_grey_images_become_three_channels():
    (found,) = unpack(pack(torch.linspace(0, 1, 16).view(1, 1, 4, 4), ["disc"], ["target"]))
    assert found.image.shape == (4, 4, 3)
    assert (found.image[..., 0] == found.image[..., 2]).all()


def test_large_images_shrink_until_they_fit():
    images = torch.rand(1, 3, 512, 256, generator=torch.Generator().manual_seed(0))  # noise: the worst to compress
    (packed,) = pack(images, ["church"], ["retained"])
    assert len(base64.b64decode(packed["image"])) <= MOST_BYTES
    (found,) = unpack([packed])
    assert max(found.image.shape) <= LONGEST
    assert found.image.shape[0] == pytest.approx(2 * found.image.shape[1], abs=2)


def test_numbers_of_labels_and_groups_must_fit():
    with pytest.raises(ValueError, match="2 images, 1 labels and 2 groups"):
        pack(torch.zeros(2, 1, 4, 4), ["disc"], ["target", "retained"])


@pytest.mark.parametrize(
    "content",
    [{"label": "a"}, {"label": "a", "group": "target", "image": "no image"}, {"label": "a", "group": "x", "image": ""}],
)
def test_a_damaged_record_is_named(content):
    with pytest.raises(RecordError, match="run its row again"):
        unpack([content])
