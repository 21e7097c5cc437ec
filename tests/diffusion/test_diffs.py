"""Erased models as files of changed weights, and published ones as whole state dicts."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.diffusion.diffs import copy_weights, load_diff, save_diff, weights_digest, weights_of
from shared.diffusion.subsets import select
from shared.diffusion.victims import load_victim
from shared.errors import DataError


def erase(pipe):
    """Stands for an eraser: keys and values and one weight of the text encoder."""
    for parameter in select(pipe.unet, "key_value").values():
        parameter.data += 0.1
    next(pipe.text_encoder.parameters()).data *= 2


@pytest.fixture
def erased(pipe, tmp_path):
    """The base's weights, the erased ones, and the file."""
    base = copy_weights(pipe)
    erase(pipe)
    path = tmp_path / "erased.safetensors"
    num = save_diff(path, base, pipe)
    after = copy_weights(pipe)
    put_back(pipe, base)
    return base, after, path, num


def put_back(pipe, weights):
    for name, value in weights_of(pipe).items():
        value.copy_(weights[name])


def same(left, right):
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_a_diff_holds_the_changed_weights_and_nothing_else(pipe, erased):
    base, after, path, num = erased
    written = load_file(path)
    changed = {name for name in base if not torch.equal(base[name], after[name])}
    assert set(written) == changed
    assert num == len(changed) == len(select(pipe.unet, "key_value")) + 1
    assert all(name.startswith(("unet.", "text_encoder.")) for name in changed)


def test_base_and_diff_are_the_erased_model_to_the_bit(pipe, erased):
    base, after, path, num = erased
    assert same(weights_of(pipe), base)
    assert load_diff(path, pipe) == num
    assert same(weights_of(pipe), after)


def test_an_eraser_that_changed_nothing(pipe, tmp_path):
    path = tmp_path / "none.safetensors"
    base = copy_weights(pipe)
    assert save_diff(path, base, pipe) == 0
    assert load_diff(path, pipe) == 0
    assert same(weights_of(pipe), base)


def test_another_base_is_refused(pipe, erased):
    _, _, path, _ = erased
    pipe.unet.conv_in.bias.data += 1  # not even among the changed weights
    before = copy_weights(pipe)
    with pytest.raises(DataError, match=r"erased\.safetensors: saved as a change of the base [0-9a-f]{16}, this model"):
        load_diff(path, pipe)
    assert same(weights_of(pipe), before)


def test_loading_twice_is_refused(pipe, erased):
    load_diff(erased[2], pipe)
    with pytest.raises(DataError, match="load it onto its own base"):
        load_diff(erased[2], pipe)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {**w, "unet.nowhere": torch.zeros(1)}, "unet.nowhere is no weight of this model"),
        (lambda w: {n: v.flatten() for n, v in w.items()}, r"has shape \(\d+,\), this model's"),
    ],
)
def test_names_and_shapes_are_checked(change, message, pipe, erased):
    from safetensors import safe_open

    path = erased[2]
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    weights = change(load_file(path))
    save_file(weights, path, {**metadata, "num_weights": str(len(weights))})
    with pytest.raises(DataError, match=message):
        load_diff(path, pipe)


def test_damaged_and_foreign_files(pipe, erased, tmp_path):
    path = erased[2]
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"no readable safetensors file"):
        load_diff(path, pipe)
    with pytest.raises(DataError, match=r"missing\.safetensors: no readable safetensors file"):
        load_diff(tmp_path / "missing.safetensors", pipe)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(DataError, match="is not a file of changed weights"):
        load_diff(path, pipe)


def test_a_diverged_model_is_not_saved(pipe, tmp_path):
    base = copy_weights(pipe)
    pipe.unet.conv_out.bias.data[0] = float("nan")
    with pytest.raises(DataError, match=r"unet\.conv_out\.bias has values that are not finite: the erasing diverged"):
        save_diff(tmp_path / "x.safetensors", base, pipe)
    assert not list(tmp_path.iterdir())


def test_the_digest_is_of_content(pipe):
    weights = copy_weights(pipe)
    digest = weights_digest(weights)
    assert weights_digest(dict(reversed(weights.items()))) == digest
    name = "unet.conv_in.weight"
    assert weights_digest({**weights, name: weights[name].contiguous(memory_format=torch.channels_last)}) == digest
    assert weights_digest({**weights, name: weights[name] + 1}) != digest
    assert weights_digest({**weights, name: weights[name].double()}) != digest


# ---- published victims


def changed_state(model):
    return {name: value + 0.5 for name, value in model.state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "unet.", "module.", "model.", "module.unet."])
@pytest.mark.parametrize("nested", [False, True])
def test_unet_victims_with_and_without_prefixes(prefix, nested, pipe, tmp_path):
    wanted = changed_state(pipe.unet)
    path = tmp_path / "diffusers-UNET.pt"
    content = {f"{prefix}{name}": value for name, value in wanted.items()}
    torch.save({"state_dict": content} if nested else content, path)
    assert load_victim(path, pipe) == "unet"
    assert all(torch.equal(value, wanted[name]) for name, value in pipe.unet.state_dict().items())


def test_text_encoder_victims_are_known_by_their_path(pipe, tmp_path):
    plain = {n.removeprefix("text_model."): v for n, v in changed_state(pipe.text_encoder).items()}
    old = {f"text_encoder.text_model.{name}": value for name, value in plain.items()}
    old["text_encoder.text_model.embeddings.position_ids"] = torch.arange(12)[None]
    path = tmp_path / "TextEncoder-full.safetensors"
    save_file(old, path)
    assert load_victim(path, pipe) == "text_encoder"
    now = {n.removeprefix("text_model."): v for n, v in pipe.text_encoder.state_dict().items()}
    assert all(torch.equal(now[name], value) for name, value in plain.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {**w, "extra": torch.zeros(1)}, r"extra is no weight of the unet \(1 such\)"),
        (lambda w: {n: v for n, v in w.items() if n != "conv_in.bias"}, "first missing conv_in.bias"),
        (lambda w: {**w, "conv_in.bias": torch.zeros(3)}, r"conv_in.bias has shape \(3,\), the model's is \(16,\)"),
        (lambda w: {**w, "conv_in.bias": torch.full((16,), torch.nan)}, "conv_in.bias has values that are not finite"),
        (lambda w: {"epoch": 3}, "holds no state dict"),
    ],
)
def test_a_victim_that_does_not_fit_changes_nothing(change, message, pipe, tmp_path):
    path = tmp_path / "victim.pt"
    torch.save(change(changed_state(pipe.unet)), path)
    before = copy_weights(pipe)
    with pytest.raises(DataError, match=message):
        load_victim(path, pipe)
    assert same(weights_of(pipe), before)


def test_pickled_code_is_not_run(pipe, tmp_path):
    path = tmp_path / "victim.pt"
    torch.save({"a": torch.nn.Linear(2, 2)}, path)
    with pytest.raises(DataError, match=r"victim\.pt: no weights can be read"):
        load_victim(path, pipe)
