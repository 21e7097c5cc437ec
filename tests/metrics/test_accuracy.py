"""Evaluation: eval mode, no augmentation, order, batch size without influence."""

import numpy as np
import pytest
import torch
from torch import nn

from shared.errors import UserError
from shared.metrics.accuracy import accuracy, predict, predictions
from shared.training.device_images import DeviceImages
from shared.training.options import Augment


def images(num=20):
    generator = torch.Generator().manual_seed(0)
    pictures = torch.rand((num, 1, 8, 8), generator=generator)
    labels = torch.randint(0, 3, (num,), generator=generator)
    return DeviceImages(pictures, labels, 3, Augment(pad=2, flip=True))


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 3))


def test_batch_size_mode_and_augmentation_do_not_matter():
    model, data = network().train(), images()
    whole = predict(model, data, batch=1000)
    np.testing.assert_allclose(predict(model, data, batch=3).values, whole.values, atol=1e-6)
    np.testing.assert_allclose(whole.values.sum(1), 1, atol=1e-6)
    np.testing.assert_array_equal(whole.labels, data.labels)
    assert model.training
    buffers = dict(model.named_buffers())
    assert buffers["1.num_batches_tracked"] == 0


def test_accuracy_is_a_percentage_of_right_predictions():
    model, data = network(), images()
    found = predict(model, data)
    right = int((predictions(found) == data.labels.numpy()).sum())
    assert accuracy(found) == pytest.approx(100 * right / 20)


def test_empty_set_is_refused():
    with pytest.raises(UserError, match="empty"):
        predict(network(), images().subset([]))
