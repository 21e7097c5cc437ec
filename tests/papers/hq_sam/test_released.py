"""The authors' weights take the place of a training."""

import pytest
import torch

from papers.hq_sam import released
from papers.hq_sam.models import build_hq, new_names
from papers.hq_sam.released import ReleasedOptions, ReleasedWeights, build, fill
from shared.errors import DataError
from shared.segmentation.context import Context
from shared.segmentation.sam.model import build_sam
from shared.segmentation.sam.options import sam_size

SIZE = sam_size("small_patch8")
CONTEXT = Context(torch.device("cpu"), 1)


def filled(monkeypatch, path):
    monkeypatch.setattr(released, "checkpoint_file", lambda name: path)
    options = ReleasedWeights(checkpoint="sam_hq_vit_l")
    sam = build_sam(SIZE, 5)
    model = build(sam, options, 1)
    fill(model, sam, options, CONTEXT)
    return model


def test_every_tensor_is_the_files(monkeypatch, tmp_path):
    published = build_hq(SIZE, seed=9)
    torch.save(published.state_dict(), tmp_path / "hq.pth")
    model = filled(monkeypatch, tmp_path / "hq.pth")
    assert all(torch.equal(value, published.state_dict()[name]) for name, value in model.state_dict().items())
    found = released.released({"model": model}, ReleasedOptions(model={"checkpoint": "x"}, hq_token_only=True), CONTEXT)
    assert found.model is model
    assert found.decode == {"hq_token_only": True}


def test_a_plain_sam_is_refused(monkeypatch, tmp_path):
    torch.save(build_sam(SIZE, 9).state_dict(), tmp_path / "sam.pth")
    with pytest.raises(DataError, match="without the tensors of HQ-SAM"):
        filled(monkeypatch, tmp_path / "sam.pth")
    assert len(new_names(build_hq(SIZE, seed=1))) == 25


def test_it_reads_its_file_and_no_training_set():
    part = ReleasedWeights(checkpoint="sam_hq_vit_l")
    assert part.sets() == []
    assert part.manifests() == ["sam_hq_vit_l"]
