from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF

from shared.errors import DataError
from shared.training.device_images import DeviceImages, crop
from shared.training.options import Augment


def arrays(count=10, size=6, channels=3, dtype=np.uint8):
    draw = np.random.RandomState(0)
    images = draw.randint(0, 256, (count, size, size, channels)).astype(np.uint8)
    if dtype == np.float32:
        images = images.astype(np.float32) / 255
    return SimpleNamespace(images=images, labels=np.arange(count) % 4, class_names=list("abcd"))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_unshuffled_batches_are_the_stored_images_scaled_to_one(dtype):
    source = arrays(dtype=dtype)
    batches = list(DeviceImages.from_arrays(source, "cpu").batches(4, shuffle=False))
    assert [len(batch.labels) for batch in batches] == [4, 4, 2]
    images = torch.cat([batch.images for batch in batches])
    expected = source.images.astype(np.float32) / (255 if dtype == np.uint8 else 1)
    assert images.dtype == torch.float32
    np.testing.assert_allclose(images.permute(0, 2, 3, 1).numpy(), expected, rtol=0, atol=1e-7)
    assert torch.cat([batch.labels for batch in batches]).tolist() == source.labels.tolist()
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(10))


def test_every_epoch_shows_every_image_once_in_a_new_order():
    data, generator = DeviceImages.from_arrays(arrays(), "cpu"), seeded()
    orders = [torch.cat([b.indices for b in data.batches(3, generator)]).tolist() for _ in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(10))
    assert orders[0] != orders[1]


def test_crops_are_torchvisions():
    images = torch.randint(0, 256, (81, 3, 6, 6), dtype=torch.uint8)
    top, left = (grid.flatten() for grid in torch.meshgrid(torch.arange(9), torch.arange(9), indexing="ij"))
    ours = crop(images, 4, top, left)
    for image, row, column, result in zip(images, top.tolist(), left.tolist(), ours, strict=True):
        assert torch.equal(result, TF.crop(TF.pad(image, [4]), row, column, 6, 6))


@pytest.mark.parametrize(("pad", "flip"), [(2, True), (2, False), (0, True)])
def test_every_augmented_image_is_one_of_the_valid_ones(pad, flip):
    data = DeviceImages.from_arrays(arrays(300), "cpu", Augment(pad=pad, flip=flip))
    seen = set()
    for batch in data.batches(64, seeded()):
        for image, index in zip((batch.images * 255).round().byte(), batch.indices.tolist(), strict=True):
            padded = TF.pad(data.images[index], [pad])
            valid = {}
            for row in range(2 * pad + 1):
                for column in range(2 * pad + 1):
                    window = TF.crop(padded, row, column, 6, 6)
                    valid[row, column, False] = window
                    if flip:
                        valid[row, column, True] = TF.hflip(window)
            matches = [key for key, window in valid.items() if torch.equal(window, image)]
            assert matches, f"image {index} is no crop of itself"
            seen.update(matches)
    assert len(seen) == (2 * pad + 1) ** 2 * (2 if flip else 1)  # every corner and mirror occurs


def test_corners_and_mirrors_are_uniform():
    images = torch.arange(36, dtype=torch.uint8).view(1, 1, 6, 6).repeat(9000, 1, 1, 1) + 1
    data = DeviceImages(images, torch.zeros(9000, dtype=torch.int64), 1, Augment(pad=1, flip=True))
    shown = torch.cat([batch.images for batch in data.batches(500, seeded())])
    centre = (shown[:, 0, 2, 2] * 255).round().long() - 1
    # rows 1 to 3; columns 1 to 3, or mirrored 2 to 4: the middle two come twice as often
    rows = torch.bincount(centre // 6, minlength=6) / 9000
    columns = torch.bincount(centre % 6, minlength=6) / 9000
    torch.testing.assert_close(rows, torch.tensor([0, 1, 1, 1, 0, 0]) / 3, rtol=0, atol=0.02)
    torch.testing.assert_close(columns, torch.tensor([0, 1, 2, 2, 1, 0]) / 6, rtol=0, atol=0.02)
    mirrored = shown[:, 0, 2, 2] > shown[:, 0, 2, 3]
    assert abs(mirrored.float().mean() - 0.5) < 0.02
    top_row_is_padding = (shown[:, 0, 0, 2] == 0).float().mean()
    assert abs(top_row_is_padding - 1 / 3) < 0.02


def test_draws_depend_on_the_seed_only():
    data = DeviceImages.from_arrays(arrays(), "cpu", Augment(pad=2, flip=True))
    small = torch.cat([b.images for b in data.batches(3, seeded(5))])
    large = torch.cat([b.images for b in data.batches(7, seeded(5))])
    other = torch.cat([b.images for b in data.batches(7, seeded(6))])
    assert torch.equal(small, large)
    assert not torch.equal(small, other)


def test_skipping_equals_drawing():
    data = DeviceImages.from_arrays(arrays(), "cpu", Augment(pad=2, flip=True))
    everything = list(data.batches(3, seeded()))
    batches = data.batches(3, seeded())
    assert len(batches) == len(everything) == 4
    batches.skip(2)
    for ours, theirs in zip(batches, everything[2:], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    batches = data.batches(3, seeded())
    batches.skip(4)
    assert list(batches) == []


def test_randomness_needs_a_generator():
    data = DeviceImages.from_arrays(arrays(), "cpu")
    with pytest.raises(ValueError, match="need a generator"):
        data.batches(3)
    augmented = DeviceImages.from_arrays(arrays(), "cpu", Augment(flip=True))
    with pytest.raises(ValueError, match="need a generator"):
        augmented.batches(3, shuffle=False)
    assert len(list(augmented.without_augmentation().batches(3, shuffle=False))) == 4


def test_derived_sets():
    data = DeviceImages.from_arrays(arrays(), "cpu", Augment(pad=1))
    part = data.subset(np.array([7, 2]))
    assert len(part) == 2
    assert torch.equal(part.images[0], data.images[7])
    assert part.labels.tolist() == [3, 2]
    assert part.augment == data.augment
    assert part.num_classes == 4
    relabelled = part.with_labels([0, 1])
    assert relabelled.labels.tolist() == [0, 1]
    assert part.labels.tolist() == [3, 2]
    joined = relabelled.followed_by(part)
    assert joined.labels.tolist() == [0, 1, 3, 2]
    assert torch.equal(joined.images[2:], part.images)
    with pytest.raises(DataError, match="different classes or augmentation"):
        data.followed_by(data.without_augmentation())
    assert len(data.subset([])) == 0
    assert list(data.subset([]).batches(4, seeded())) == []


def test_read_only_memory_maps_are_copied(tmp_path):
    source = arrays(channels=1)
    np.save(tmp_path / "images.npy", source.images)
    source.images = np.load(tmp_path / "images.npy", mmap_mode="r")
    data = DeviceImages.from_arrays(source, "cpu")
    data.images += 1
    assert data.images.shape == (10, 1, 6, 6)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 3, 4), [0, 0], "must be .N, C, H, W. of uint8 or float32"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.float64), [0, 0], "of torch.float64"),
        (torch.zeros(2, 1, 4, 4), [0], "2 images but labels of shape"),
        (torch.zeros(2, 1, 4, 4), [0, 5], "label 5 of image 1 is not one of the 3 classes"),
        (torch.zeros(2, 1, 4, 4), [-1, 0], "label -1 of image 0"),
    ],
)
def test_bad_input_names_the_row(images, labels, message):
    with pytest.raises(DataError, match=message):
        DeviceImages(images, torch.tensor(labels), 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_shows_the_crops_of_the_cpu():
    on_cpu = DeviceImages.from_arrays(arrays(100), "cpu", Augment(pad=2, flip=True))
    on_gpu = DeviceImages.from_arrays(arrays(100), "cuda", Augment(pad=2, flip=True))
    for ours, theirs in zip(on_gpu.batches(16, seeded()), on_cpu.batches(16, seeded()), strict=True):
        assert torch.equal(ours.images.cpu(), theirs.images)
