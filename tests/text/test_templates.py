"""Prompt templates: the exact strings of the released code, and chat templates through a tokenizer."""

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from shared.errors import ConfigError
from shared.text.templates import TEMPLATES, ChatTemplate, prompt_template

# The parts of Llama-3's chat template that decide the text, written down from its documentation.
LLAMA3 = (
    "{{ '<|begin_of_text|>' }}"
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\n' }}"
    "{{ 'Today Date: ' + (date_string or 'NOW') + '\n\n' + system + '<|eot_id|>' }}"
    "{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def chat_tokenizer(template):
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>")), unk_token="<unk>"
    )
    tokenizer.chat_template = template
    return tokenizer


def test_llama2_has_no_space_before_the_answer():
    text = TEMPLATES["llama2"].render("Who?", "Ann.")
    assert text.prompt == text.question == "[INST] Who? [/INST]"
    assert text.full == "[INST] Who? [/INST]Ann."
    assert text.special_tokens


def test_phi_question_part_ends_before_the_answer_tag():
    text = TEMPLATES["phi"].render("Who?", "Ann.")
    assert text.question == "Question: Who?\n"
    assert text.prompt == "Question: Who?\nAnswer: "
    assert text.full == "Question: Who?\nAnswer: Ann."


def test_plain_separates_with_a_token():
    assert TEMPLATES["plain"].render("Who?", "Ann.").full == "Who? <sep> Ann."


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama2", "[INST] q [/INST]a [INST] Who? [/INST]Ann."),
        ("phi", "Question: q\nAnswer: a\n\nQuestion: Who?\nAnswer: Ann."),
    ],
)
def test_few_shot_turns_end_and_the_last_answer_does_not(name, expected):
    assert TEMPLATES[name].render("Who?", "Ann.", examples=[("q", "a")]).full == expected


def test_llama3_has_the_system_prompt_and_a_fixed_date():
    text = TEMPLATES["llama3"].render("Who?", "Ann.", chat_tokenizer(LLAMA3))
    assert "Today Date: 10 Apr 2025\n\nYou are a helpful assistant.<|eot_id|>" in text.prompt
    assert text.prompt.endswith("Who?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n")
    assert text.full == text.prompt + "Ann.<|eot_id|>"
    assert not text.special_tokens  # the template wrote <|begin_of_text|> itself


def test_generic_chat_template_sends_no_date_and_gemma_no_system():
    tokenizer = chat_tokenizer(LLAMA3)
    assert "Today Date: NOW" in TEMPLATES["chat"].render("Who?", "Ann.", tokenizer).prompt
    assert "helpful assistant" not in TEMPLATES["gemma"].render("Who?", "Ann.", tokenizer).full


def test_chat_few_shot_turns_stand_before_the_question():
    text = TEMPLATES["chat"].render("Who?", "Ann.", chat_tokenizer(LLAMA3), examples=[("q", "a")])
    assert text.prompt.index("a<|eot_id|>") < text.prompt.index("Who?")


def test_tokenizer_without_chat_template_is_one_line():
    with pytest.raises(ConfigError, match=r"has no chat template; choose one of llama2, phi, plain"):
        ChatTemplate(None).render("q", "a", chat_tokenizer(None))


def test_chat_template_that_rewrites_the_prompt_is_refused():
    tokenizer = chat_tokenizer("{{ messages | length }}{% for m in messages %}{{ m['content'] }}{% endfor %}")
    with pytest.raises(ConfigError, match="does not continue the prompt"):
        ChatTemplate(None).render("q", "a", tokenizer)


def test_unknown_template_names_the_nearest():
    with pytest.raises(ConfigError, match=r"'lama2' is no prompt template \(did you mean 'llama2'\?\)"):
        prompt_template("lama2")
