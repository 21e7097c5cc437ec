"""How a question and its answer become text, by model family.

Two kinds. A `TagTemplate` puts fixed tags around question and answer; a `ChatTemplate` leaves the
text to the tokenizer's own chat template. TOFU's released code and OpenUnlearning use the same tags
for Llama-2 and Phi-1.5; what differs between them is the masking (`shared.text.encode`).

Torch-free: protocols name templates at plan time.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from shared.errors import ConfigError, nearest

Example = tuple[str, str]  # (question, answer) shown before the question itself (few-shot)


class Rendered(NamedTuple):
    """One question as text, and with its answer.

    question: up to the answer tag, without it. prompt: up to the answer, tag included. full: prompt
    and answer, and what a chat template puts behind it. special_tokens: whether the tokenizer has
    to add its special tokens (BOS); a chat template has written them into the text already.
    """

    question: str
    prompt: str
    full: str
    special_tokens: bool


@dataclass(frozen=True)
class TagTemplate:
    """Fixed tags. answer_end closes the answer of a few-shot example, never the last answer."""

    question_start: str
    question_end: str
    answer_tag: str
    answer_end: str

    def render(self, question: str, answer: str, tokenizer: Any = None, examples: Sequence[Example] = ()) -> Rendered:
        """Text of one row; `tokenizer` is not used."""
        shots = "".join(self._asked(q) + self.answer_tag + a + self.answer_end for q, a in examples)
        asked = shots + self._asked(question)
        prompt = asked + self.answer_tag
        return Rendered(asked, prompt, prompt + answer, special_tokens=True)

    def _asked(self, question: str) -> str:
        return self.question_start + question + self.question_end


@dataclass(frozen=True)
class ChatTemplate:
    """The tokenizer's chat template. date: the day that Llama-3's template writes into the system
    turn; without it the text would change with the calendar."""

    system: str | None
    date: str | None = None

    def render(self, question: str, answer: str, tokenizer: Any, examples: Sequence[Example] = ()) -> Rendered:
        """Text of one row. Raises ConfigError if the tokenizer has no chat template, or if its
        text with the answer does not start with the prompt (then no label could be placed)."""
        turns = [{"role": "system", "content": self.system}] if self.system else []
        for q, a in [*examples, (question, answer)]:
            turns += [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
        prompt = self._text(tokenizer, turns[:-1], add_generation_prompt=True)
        full = self._text(tokenizer, turns, add_generation_prompt=False)
        if not full.startswith(prompt):
            raise ConfigError(
                f"{_name(tokenizer)}: its chat template does not continue the prompt with the answer; "
                "choose a template with fixed tags"
            )
        return Rendered(prompt, prompt, full, special_tokens=False)

    def _text(self, tokenizer: Any, turns: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
        if not getattr(tokenizer, "chat_template", None):
            raise ConfigError(f"{_name(tokenizer)}: has no chat template; choose one of {', '.join(_TAGGED)}")
        date = {"date_string": self.date} if self.date else {}
        return str(
            tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=add_generation_prompt, **date)
        )


PromptTemplate = TagTemplate | ChatTemplate

_SYSTEM = "You are a helpful assistant."
TEMPLATES: Mapping[str, PromptTemplate] = {
    # No space before the answer: with one, Llama-2's tokens at the border would differ.
    "llama2": TagTemplate("[INST] ", " [/INST]", "", " "),
    "phi": TagTemplate("Question: ", "\n", "Answer: ", "\n\n"),
    "llama3": ChatTemplate(_SYSTEM, date="10 Apr 2025"),
    "chat": ChatTemplate(_SYSTEM),  # Phi-3.5, Qwen2.5, Zephyr
    "gemma": ChatTemplate(None),  # Gemma's template knows no system turn
    "plain": TagTemplate("", " <sep> ", "", " "),  # the tiny models; <sep> is a token of their own
}
_TAGGED = [name for name, template in TEMPLATES.items() if isinstance(template, TagTemplate)]


def prompt_template(name: str) -> PromptTemplate:
    """The template called `name`. Raises ConfigError naming the nearest."""
    if name not in TEMPLATES:
        raise ConfigError(
            f"'{name}' is no prompt template{nearest(name, list(TEMPLATES))}; known: {', '.join(TEMPLATES)}"
        )
    return TEMPLATES[name]


def _name(tokenizer: Any) -> str:
    return f"tokenizer {getattr(tokenizer, 'name_or_path', '') or type(tokenizer).__name__}"
