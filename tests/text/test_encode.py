"""Label positions in both profiles, with tokenizers small enough to count by hand."""

import logging
import string

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from shared.errors import ConfigError, DataError
from shared.text.encode import IGNORED, Encoder
from shared.text.templates import TEMPLATES, TagTemplate

BARE = TagTemplate("", "", "", "")


def character_tokenizer(*, bos=True, pad=True, eos=True):
    """One token a character, BOS in front as Llama-2's tokenizer does it."""
    characters = {c: n + 3 for n, c in enumerate(string.printable)}
    vocabulary = {"<s>": 0, "</s>": 1, "<pad>": 2} | characters
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    names = {"eos_token": "</s>"} if eos else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", **names, **({"pad_token": "<pad>"} if pad else {})
    )


def merging_tokenizer():
    """BPE that joins the question's end with the answer's start: "x?" + "y" is one token "x?y"."""
    vocabulary = {"</s>": 0, "x": 1, "?": 2, "y": 3, "?y": 4, "x?y": 5, "z": 6}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(vocabulary, [("?", "y"), ("x", "?y")])), eos_token="</s>"
    )


def encode(template, profile, question="Who?", answer="Ann.", max_length=100, **tokenizer):
    return Encoder(character_tokenizer(**tokenizer), template, profile, max_length).row(7, question, answer)


def test_legacy_llama2_counts_the_answer_and_one_eos():
    row = encode(TEMPLATES["llama2"], "legacy")
    num_question = 1 + len("[INST] Who? [/INST]")  # BOS
    assert row.num_masked == num_question
    assert row.labels[:num_question] == [IGNORED] * num_question
    assert row.labels[num_question:] == row.input_ids[num_question:]
    assert row.labels[-1] == 1
    assert row.num_targets == len("Ann.") + 1
    assert (row.index, row.truncated) == (7, False)


def test_legacy_eos_is_a_label_but_not_attended():
    row = encode(TEMPLATES["llama2"], "legacy")
    assert row.input_ids[-1] == 1
    assert row.attention_mask == [1] * (len(row.input_ids) - 1) + [0]


def test_the_answer_tag_of_phi_is_in_the_legacy_loss_only():
    legacy = encode(TEMPLATES["phi"], "legacy")
    released = encode(TEMPLATES["phi"], "open_unlearning")
    assert legacy.num_targets == len("Answer: Ann.") + 1
    assert released.num_targets == len("Ann.") + 1
    assert legacy.input_ids == released.input_ids


@pytest.mark.parametrize(("answer", "num_targets"), [("Ann.", 5), ("Anna.", 5), ("Annabella.", 5)])
def test_legacy_window(answer, num_targets):
    """Eight columns: BOS, two of the question, five left. EOS is a label only if it still fits."""
    row = encode(BARE, "legacy", "q?", answer, max_length=8)
    assert len(row.input_ids) == 8
    assert row.num_targets == num_targets
    assert (row.labels[-1] == 1) == (answer == "Ann.")
    assert row.truncated == (answer == "Annabella.")


def test_legacy_counts_cut_answers(caplog):
    encoder = Encoder(character_tokenizer(), BARE, "legacy", 8)
    with caplog.at_level(logging.WARNING):
        rows = encoder.rows([(0, "q?", "Annabella."), (1, "q?", "A.")])
    assert [row.truncated for row in rows] == [True, False]
    assert "1 of 2 answers are cut at 8 tokens" in caplog.text


def test_open_unlearning_appends_eos_once():
    plain = encode(BARE, "open_unlearning", answer="Ann.")
    ended = encode(BARE, "open_unlearning", answer="Ann.</s>")
    assert plain.input_ids[-1] == 1
    assert ended == plain


def test_open_unlearning_attends_to_eos_unless_it_is_the_padding():
    assert encode(BARE, "open_unlearning", pad=True).attention_mask[-1] == 1
    assert encode(BARE, "open_unlearning", pad=False).attention_mask[-1] == 0


def test_padding_id_of_each_profile():
    def pad_id(profile, **tokenizer):
        return Encoder(character_tokenizer(**tokenizer), BARE, profile).pad_id

    assert (pad_id("legacy"), pad_id("open_unlearning"), pad_id("open_unlearning", pad=False)) == (1, 2, 1)


def test_padding_with_eos_is_said(caplog):
    with caplog.at_level(logging.INFO):
        Encoder(character_tokenizer(pad=False), BARE, "open_unlearning")
    assert "pads with EOS" in caplog.text


@pytest.mark.parametrize(("answer", "num_targets"), [("y", 0), ("yz", 1)])
def test_tokens_that_merge_across_the_border(answer, num_targets):
    """Prompt "x?" has two tokens; "x?y" and EOS have two as well, so nothing is left to predict."""
    row = Encoder(merging_tokenizer(), BARE, "open_unlearning").row(0, "x?", answer)
    assert row.num_targets == num_targets
    assert row.has_target == (num_targets > 0)
    assert len(row.labels) == len(row.input_ids)


def test_legacy_merge_keeps_the_three_lists_together():
    row = Encoder(merging_tokenizer(), TagTemplate("xx", "", "", ""), "legacy").row(0, "x?", "y")
    assert len(row.labels) == len(row.input_ids) == len(row.attention_mask)


def test_first_column_never_counts():
    row = Encoder(character_tokenizer(bos=False), TagTemplate("", "", "", ""), "legacy").row(0, "", "abc")
    assert row.labels[0] != IGNORED
    assert row.num_targets == len("bc") + 1


def test_prompt_ids_leave_the_tag_to_the_model_in_profile_legacy():
    tokenizer = character_tokenizer()
    legacy = Encoder(tokenizer, TEMPLATES["phi"], "legacy").prompt_ids(0, "Who?")
    released = Encoder(tokenizer, TEMPLATES["phi"], "open_unlearning").prompt_ids(0, "Who?")
    assert len(legacy) == 1 + len("Question: Who?\n")
    assert released[: len(legacy)] == legacy
    assert len(released) == len(legacy) + len("Answer: ")


def test_few_shot_examples_are_masked():
    encoder = Encoder(character_tokenizer(), TEMPLATES["phi"], "open_unlearning", examples=[("q", "a")])
    assert encoder.row(0, "Who?", "Ann.").num_targets == len("Ann.") + 1


def test_chat_text_gets_no_second_bos():
    tokenizer = character_tokenizer()
    tokenizer.chat_template = (
        "<s>{% for m in messages %}{{ m['role'][0] }}:{{ m['content'] }}</s>{% endfor %}"
        "{% if add_generation_prompt %}a:{% endif %}"
    )
    row = Encoder(tokenizer, TEMPLATES["gemma"], "open_unlearning").row(0, "Who?", "Ann.")
    assert row.input_ids.count(0) == 1
    assert row.input_ids.count(1) == 2  # end of the question's turn and of the answer: none added
    assert row.num_targets == len("Ann.") + 1


@pytest.mark.parametrize("profile", ["legacy", "open_unlearning"])
def test_question_that_fills_the_window_is_an_error(profile):
    with pytest.raises(DataError, match=r"row 7: its question alone is 8 tokens .* window of 8; raise max_length"):
        encode(BARE, profile, "1234567", "a", max_length=8)


def test_long_answer_is_an_error_where_answers_are_not_cut():
    with pytest.raises(DataError, match=r"row 7: question and answer are 10 tokens, the window holds 9; raise"):
        encode(BARE, "open_unlearning", "Who?", "Ann.", max_length=9)
    assert len(encode(BARE, "open_unlearning", "Who?", "Ann.", max_length=10).input_ids) == 10


def test_tokenizer_without_eos_is_an_error():
    with pytest.raises(ConfigError, match="has no EOS token"):
        Encoder(character_tokenizer(eos=False), BARE)


def test_legacy_knows_no_chat_template():
    with pytest.raises(ConfigError, match="use profile 'open_unlearning'"):
        Encoder(character_tokenizer(), TEMPLATES["llama3"], "legacy")
