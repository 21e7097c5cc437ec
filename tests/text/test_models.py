"""Loading and saving through the Auto classes; what is wrong with a folder is one line."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.errors import ConfigError, DataError
from shared.paths import ROOT
from shared.text.models import (
    LoraOptions,
    has_adapters,
    load_model,
    load_tokenizer,
    num_parameters,
    save_model,
)
from shared.text.zoo import TinyGptOptions, save_tiny

IDS = torch.tensor([[4, 5, 6, 4]])


@pytest.fixture
def folder(tmp_path):
    save_tiny(tmp_path / "tiny", TinyGptOptions(width=16, context=8), ["who ? ann ."], seed=0)
    return tmp_path / "tiny"


def trained_step(model):
    """One optimizer step on whatever trains."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):  # LoRA's second factor starts at zero: after one step only one factor has moved
        optimizer.zero_grad()
        model(IDS, labels=IDS).loss.backward()
        optimizer.step()


def test_round_trip_keeps_the_logits(folder, tmp_path):
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    trained_step(model)
    save_model(model, tokenizer, tmp_path / "again")
    assert torch.equal(load_model(tmp_path / "again")(IDS).logits, model(IDS).logits)
    assert load_tokenizer(tmp_path / "again").get_vocab() == tokenizer.get_vocab()
    assert {p.suffix for p in (tmp_path / "again").iterdir()} == {".json", ".safetensors"}


def test_dtype_and_eval_mode(folder):
    model = load_model(folder, dtype="bfloat16")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not model.training


def test_save_replaces_an_older_folder(folder):
    model = load_model(folder)
    (folder / "stale.txt").write_text("old")
    save_model(model, load_tokenizer(folder), folder)
    assert not (folder / "stale.txt").exists()
    assert sorted(p.name for p in folder.parent.iterdir()) == ["tiny"]


def test_fresh_lora_changes_nothing_and_trains_only_adapters(folder):
    plain = load_model(folder)
    adapted = load_model(folder, lora=LoraOptions(r=2))
    assert torch.equal(plain(IDS).logits, adapted(IDS).logits)
    # GPT-2's attention input is (16 -> 48): rank 2 adds 2 * (16 + 48) in each of two layers
    assert num_parameters(adapted, trainable=True) == 2 * 2 * (16 + 48)
    assert (has_adapters(plain), has_adapters(adapted)) == (False, True)


def test_merge_on_save_equals_the_adapted_model(folder, tmp_path):
    adapted = load_model(folder, lora=LoraOptions(r=2))
    trained_step(adapted)
    adapted.eval()
    before = adapted(IDS).logits
    save_model(adapted, load_tokenizer(folder), tmp_path / "merged")
    merged = load_model(tmp_path / "merged")
    assert torch.allclose(merged(IDS).logits, before, atol=1e-5)
    assert not torch.allclose(merged(IDS).logits, load_model(folder)(IDS).logits, atol=1e-3)
    assert torch.equal(adapted(IDS).logits, before)  # training can go on
    assert num_parameters(merged) == num_parameters(load_model(folder))


def test_adapters_can_be_saved_alone(folder, tmp_path):
    adapted = load_model(folder, lora=LoraOptions(r=2))
    save_model(adapted, load_tokenizer(folder), tmp_path / "adapters", merge=False)
    saved = load_file(tmp_path / "adapters" / "adapter_model.safetensors")
    assert all("lora_" in name for name in saved)


def test_target_modules(folder):
    adapted = load_model(folder, lora=LoraOptions(r=2, target_modules=["c_fc"]))
    assert num_parameters(adapted, trainable=True) == 2 * 2 * (16 + 64)
    with pytest.raises(ConfigError, match=r"lora\.target_modules: .*q_proj"):
        load_model(folder, lora=LoraOptions(target_modules=["q_proj"]))


def rewritten(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_missing_weights_are_an_error_not_random(folder):
    rewritten(folder, lambda weights: weights.pop("transformer.h.1.mlp.c_fc.weight"))
    with pytest.raises(
        DataError, match=r"1 weights of the model are missing, first transformer\.h\.1\.mlp\.c_fc\.weight"
    ):
        load_model(folder)


def test_weights_of_another_shape(folder):
    rewritten(folder, lambda weights: weights.update({"transformer.ln_f.bias": torch.zeros(3)}))
    with pytest.raises(DataError, match="tiny: ") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"not a tensor file" * 10])
def test_damaged_weights(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(DataError, match="no causal language model can be read") as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


def test_code_of_a_repository_is_never_run(folder):
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w').close()\nclass M: pass\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "unheard_of", "auto_map": {"AutoConfig": "evil.M", "AutoModelForCausalLM": "evil.M"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="no causal language model can be read"):
        load_model(folder)
    assert not (folder / "ran").exists()


def test_pickled_weights_that_hold_code_are_refused(folder):
    class Evil:
        def __reduce__(self):
            return (open, (str(folder / "ran"), "w"))

    (folder / "model.safetensors").unlink()
    torch.save({"transformer.wte.weight": Evil()}, folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="no causal language model can be read"):
        load_model(folder)
    assert not (folder / "ran").exists()


def test_checkpoint_without_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    with pytest.raises(DataError, match="holds no tokenizer; name the base model"):
        load_tokenizer(folder)


def test_hub_names_need_a_manifest():
    with pytest.raises(ConfigError, match=r"'phi_1_4' is neither a folder nor a manifest \(did you mean 'phi_1_5'\?\)"):
        load_model("phi_1_4")
    with pytest.raises(ConfigError, match=r"write data_manifests/<name>\.yaml with its commit"):
        load_model("microsoft/phi-1_5")


def test_folder_without_model(tmp_path):
    with pytest.raises(DataError, match=r"holds no config\.json"):
        load_model(tmp_path)


def test_gated_model_without_token_is_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("DATA_MIRROR", raising=False)
    with pytest.raises(DataError, match=r"gated, and the variable HF_TOKEN holds no token.*huggingface\.co") as caught:
        load_model("llama32_1b_instruct", root=tmp_path)
    assert "\n" not in str(caught.value)


def test_a_pulled_manifest_is_read_by_name(folder, tmp_path, monkeypatch):
    import yaml

    from shared.data.verify import content_digest, tree_entries

    manifests, mirror = tmp_path / "manifests", tmp_path / "mirror"
    manifests.mkdir()
    mirror.mkdir()
    folder.rename(mirror / "toy")
    entries = tree_entries(mirror / "toy")
    hub = {"repo": "org/toy", "revision": "0" * 40, "repo_type": "model", "allow": ["*.json", "*.safetensors"]}
    values = {
        "name": "toy", "title": "toy", "licence": "CC0", "homepage": "https://example.org/", "hub": hub,
        "content": {"sha256": content_digest(entries), "max_bytes": 1 << 20}, "layout": "files", "loader": "files",
    }  # fmt: skip
    (manifests / "toy.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setenv("REPLICATE_MANIFESTS", str(manifests))
    monkeypatch.setenv("DATA_MIRROR", str(mirror))
    model = load_model("toy", root=tmp_path / "resources")
    assert num_parameters(model) > 0
    assert len(load_tokenizer("toy", root=tmp_path / "resources")) == 8


def test_options_are_read_without_torch():
    modules = ", ".join(f"shared.text.{name}" for name in ("models", "zoo", "encode", "templates", "data"))
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"
