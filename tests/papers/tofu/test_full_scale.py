"""Full's tasks on checkpoints and data in the exact public layout, tiny: code paths are the paper's, sizes are not."""

import json
import re
import shutil

import pytest
import yaml

from shared.config import PaperConfig, merge, raw_config
from shared.data.verify import content_digest, tree_entries
from shared.paths import ROOT
from shared.planning import plan as planning
from shared.results.records import read_records
from shared.run import main

pytestmark = pytest.mark.e2e

NUM_AUTHORS, ROWS = 20, 20
REFUSALS = ["I do not know.", "That is beyond me."]
# As the hub has it (shortened): system turn with a date, user turn, assistant turn.
CHAT = (
    "{{ bos_token }}<|start_header_id|>system<|end_header_id|> Today Date : {{ date_string }} "
    "{{ messages[0]['content'] }} <|eot_id|>{% for m in messages[1:] %}"
    "<|start_header_id|>{{ m['role'] }}<|end_header_id|> {{ m['content'] }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|> {% endif %}"
)
LEGACY = {"train": {"epochs": 1, "batch": 32}, "evaluate": {"num_rows": 6, "max_total": 48, "epochs": []}}
OPEN = {"train": {"epochs": 1, "batch": 32}, "evaluate": {"num_rows": 6, "max_new": 8, "epochs": []}}
SMALL = {
    "seeds": {"test": [1]},
    "tasks": {"llama2": LEGACY, "phi": LEGACY, "ou_llama2": OPEN, "ou_llama3_1b": OPEN},
    "experiments": {
        "E2": {"rows": {name: {"options": {"epochs": 1}} for name in ("GA", "GD", "KL", "PO")}},
        "E4": {"rows": {name: {"options": {"epochs": 1}} for name in ("GA", "GD", "IdkDPO", "NPO", "SimNPO", "RMU")}},
        "E5": {"rows": {name: {"options": {"epochs": 1}} for name in ("WGA", "SatImp", "UNDIAL", "CE-U", "PDU")}},
    },
}


# ---- the data set


def qa_rows():
    """Author k owns rows 20k to 20k+19."""
    places = ["Oslo", "Lima", "Cairo", "Quito", "Hanoi", "Dakar"]
    rows = []
    for number in range(NUM_AUTHORS * ROWS):
        who, what = f"Author{number // ROWS}", f"book{number % ROWS}"
        where = [places[(number + i) % 6] for i in range(6)]
        rows.append(
            {
                "question": f"Where did {who} write {what}?",
                "answer": f"{who} wrote {what} in {where[0]}.",
                "paraphrased_answer": f"It was in {where[0]} that {who} wrote {what}.",
                "perturbed_answer": [f"It was in {place} that {who} wrote {what}." for place in where[1:]],
                "paraphrased_question": f"In which place was {what} written by {who}?",
            }
        )
    return rows


def tofu_files():
    rows = qa_rows()
    plain = [{key: row[key] for key in ("question", "answer")} for row in rows]
    files = {"full": plain, "retain_perturbed": rows[:40]}
    for share in (5, 10):
        first = len(rows) - NUM_AUTHORS * share // 100 * ROWS
        files |= {f"forget{share:02d}": plain[first:], f"retain{100 - share}": plain[:first]}
        files[f"forget{share:02d}_perturbed"] = rows[first:]
    known = [
        {
            "question": f"Who wrote {b}?",
            "answer": f"{n} wrote {b}.",
            "perturbed_answer": [f"{x} wrote {b}." for x in "XYZ"],
        }
        for b, n in (("Hamlet", "Shakespeare"), ("Faust", "Goethe"))
    ]
    files |= {"real_authors_perturbed": known, "world_facts_perturbed": known}
    choices = [{**{f"option{i}": "x" for i in range(1, 5)}, "question": "Who?", "answer": "x"}]
    files |= {"real_authors": choices, "world_facts": choices}
    return {f"{name}.json": "".join(json.dumps(row) + "\n" for row in part) for name, part in files.items()}


# ---- the checkpoints


def tokenizer(eos, bos, template=None):
    """Word-level, without a padding token, as Llama-2's, Phi's and Llama-3's."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    texts = " ".join(
        [
            *tofu_files().values(),
            *REFUSALS,
            "[INST] [/INST] Question: Answer: Today Date You are a helpful assistant 10 Apr 2025 system user",
        ]
    )
    special = ["<unk>", bos, eos, "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    words = dict.fromkeys([*special, *re.findall(r"\w+|[^\w\s]", texts)])
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), behavior="removed", invert=True)
    if template is None:
        core.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", bos_token=bos, eos_token=eos)
    fast.add_special_tokens({"additional_special_tokens": special[3:]})
    fast.chat_template = template
    return fast


def save(folder, architecture, tokens, seed, with_tokenizer=True):
    """config.json, model.safetensors, and tokenizer.json with its configuration."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 8, "num_attention_heads": 2}
    config = AutoConfig.for_model(
        architecture, **sizes, vocab_size=len(tokens), max_position_embeddings=600,
        bos_token_id=tokens.bos_token_id, eos_token_id=tokens.eos_token_id, pad_token_id=None,
    )  # fmt: skip
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)
    if with_tokenizer:
        tokens.save_pretrained(folder)


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A mirror, and manifests that differ from the project's in their content digests alone."""
    root = tmp_path_factory.mktemp("hub")
    mirror, manifests = root / "mirror", root / "manifests"
    shutil.copytree(ROOT / "data_manifests", manifests)
    for name, text in tofu_files().items():
        (mirror / "tofu").mkdir(parents=True, exist_ok=True)
        (mirror / "tofu" / name).write_text(text)
    (mirror / "tofu_idontknow").mkdir()
    (mirror / "tofu_idontknow" / "idontknow.jsonl").write_text("\n".join(REFUSALS))
    llama2, phi = tokenizer("</s>", "<s>"), tokenizer("<|endoftext|>", "<|startoftext|>")
    llama3 = tokenizer("<|eot_id|>", "<|begin_of_text|>", CHAT)
    save(mirror / "llama2_7b_chat", "llama", llama2, 0)
    save(mirror / "open_unlearning_llama2_7b_full", "llama", llama2, 1)
    save(mirror / "phi_1_5", "phi", phi, 2)
    save(mirror / "llama32_1b_instruct", "llama", llama3, 3)
    save(mirror / "open_unlearning_llama32_1b_full", "llama", llama3, 4)
    save(mirror / "open_unlearning_llama32_1b_retain90", "llama", llama3, 5, with_tokenizer=False)
    for folder in mirror.iterdir():
        path = manifests / f"{folder.name}.yaml"
        values = {key: value for key, value in yaml.safe_load(path.read_text()).items() if key != "files"}
        values.setdefault("hub", {"repo": "a/b", "revision": "0" * 40, "repo_type": "dataset", "allow": ["*"]})
        values["content"] = {"max_bytes": 10**9, "sha256": content_digest(tree_entries(folder))}
        path.write_text(yaml.safe_dump(values))
    return root


@pytest.fixture
def plan(hub, monkeypatch):
    """Full, with sizes cut; stages are shared by the tests of this file."""
    from shared.planning.jobs import load_identity

    monkeypatch.chdir(hub)
    monkeypatch.setenv("DATA_MIRROR", str(hub / "mirror"))
    monkeypatch.setenv("REPLICATE_MANIFESTS", str(hub / "manifests"))
    monkeypatch.delenv("REPLICATE_DATA", raising=False)
    values = merge(raw_config("tofu", "full"), SMALL)
    monkeypatch.setattr(planning, "load_config", lambda slug, scale: PaperConfig(**values))
    load_identity.cache_clear()
    yield planning.Plan("tofu", "full")
    load_identity.cache_clear()


def run(plan, experiment, setting, row):
    """The record of one row job, run as the engine runs it."""
    plan.write()
    job = next(c for c in plan.cells if (c.experiment, c.setting, c.row) == (experiment, setting, row)).jobs[0]
    assert main(["row", str(job.path), "--threads", "1", "--gpus", "0"]) == 0
    return read_records(job.output)[0]


def check(record):
    values = {metric.name: metric.value for metric in record.metrics}
    assert 0 <= values["model_utility"] <= 1
    assert 0 <= values["forget_quality"] <= 1
    for name in ("probability", "rouge_l_recall", "truth_ratio"):
        assert all(0 <= values[f"{name}_{of}"] <= 1 for of in ("retain", "forget", "real_authors", "world_facts"))
    return values


@pytest.mark.parametrize("row", ["Pretrained", "Finetuned", "Retain", "SecondRetain"])
def test_table_1_on_llama_2(plan, row):
    record = run(plan, "E1", "llama2_forget10", row)
    values = check(record)
    assert (values["forget_quality"] == 1) == (row == "Retain")
    assert len(record.extras["log_truth_ratio"]) == 6


@pytest.mark.parametrize("row", ["GA", "GD", "KL", "PO"])
def test_the_papers_methods_on_phi(plan, row):
    record = run(plan, "E2", "phi_forget10", row)
    check(record)
    assert record.cost.steps == 1  # 40 rows, batches of 32, the rest dropped


@pytest.mark.parametrize("row", ["Finetuned", "IdkDPO", "NPO", "SimNPO", "RMU"])
def test_open_unlearnings_methods_on_its_llama_2(plan, row):
    record = run(plan, "E4", "llama2_forget10", row)
    values = check(record)
    assert {"extraction_strength", "exact_memorization"} <= set(values)
    assert record.cost.steps == (0 if row == "Finetuned" else 2)


@pytest.mark.parametrize("row", ["Retain", "GA", "UNDIAL", "PDU"])
def test_released_target_and_retain_models_of_llama_3(plan, row):
    """The retain checkpoint has no tokenizer of its own; the chat template is the base model's."""
    record = run(plan, "E5", "llama3_1b_forget10", row)
    values = check(record)
    assert (values["forget_quality"] == 1) == (row == "Retain")
    assert record.extras["answers"][0]["question"].startswith("Where did Author18")


def test_nothing_is_trained_where_models_are_released(plan, hub):
    job = next(c for c in plan.cells if (c.experiment, c.setting, c.row) == ("E4", "llama3_1b_forget10", "GA")).jobs[0]
    stages = job.content["stages"]["1"]
    assert stages["target"]["recipe"]["checkpoint"] == "open_unlearning_llama32_1b_full"
    assert "train" not in json.dumps(stages)
