"""Linear probe: a known optimum, an unchanged source, and option errors at plan time."""

import copy

import pytest
import torch

from papers.unlearn_sparse import transfer as module
from papers.unlearn_sparse.transfer import TransferOptions, frozen_features, probe_accuracy, transfer
from shared.classification.options import SgdOptions
from shared.classification.pruning import apply_mask, omp_mask, sparsity

PROBE = {"lr": 0.1, "epochs": 30, "batch": 30, "weight_decay": 0.0}


def test_probe_learns_what_the_features_tell_and_leaves_the_source_alone(model, retain, forget, context):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = probe_accuracy(model, retain, forget, SgdOptions(**PROBE), context)
    assert found >= 95
    shuffled = retain.with_labels(torch.randint(0, 3, (60,), generator=context.generator("labels")))
    assert probe_accuracy(model, shuffled, forget, SgdOptions(**PROBE), context) < found
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_features_are_the_input_of_the_last_layer(model, retain):
    found = frozen_features(model, retain, 7)
    torch.testing.assert_close(model.fc(found), model.eval()(retain.images))
    assert not found.requires_grad


@pytest.fixture
def target(monkeypatch, retain, forget):
    """The small task itself as the target data."""

    class Arrays:
        def __init__(self, images):
            self.images = images.images.numpy().transpose(0, 2, 3, 1)
            self.labels, self.class_names = images.labels.numpy(), ["a", "b", "c"]

    asked = []

    def load(name, split, **loader):
        asked.append((name, split, loader))
        return Arrays(retain if split == "train" else forget)

    monkeypatch.setattr(module, "load_images", load)
    return asked


def test_the_source_method_is_run_under_the_mask(model, forget, retain, new_context, target):
    mask = omp_mask(model, 0.8)
    apply_mask(model, mask)
    options = TransferOptions(
        **PROBE, source="finetune", source_options={"lr": 0.01, "epochs": 1, "batch": 16},
        target="small", target_loader={"noise": 1},
    )  # fmt: skip
    context = new_context(mask=mask)
    before = copy.deepcopy(model)
    unlearned = transfer(model, forget, retain, options, context)
    assert sparsity(unlearned) == sparsity(mask)
    assert not torch.equal(unlearned.fc.weight, before.fc.weight)
    assert target == [("small", "train", {"noise": 1}), ("small", "test", {"noise": 1})]
    (measured,) = context.measured
    assert (measured.name, measured.unit) == ("probe_accuracy", "%")
    assert measured.value >= 95
    assert context.meter.steps == 4 + 30 * 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "finetun"}, "source 'finetun' is not a method.*finetune"),
        ({"source": "finetune", "source_options": {"lrr": 1.0}}, "source_options: .*lr"),
    ],
)
def test_a_wrong_source_is_found_at_plan_time(changes, message):
    with pytest.raises(ValueError, match=message):
        TransferOptions(**PROBE, target="small", **changes)
