"""One question and answer as token ids, with the labels that a loss or a score looks at.

Two profiles, because published numbers come from both:

legacy (released TOFU code). Text with special tokens, cut at `max_length`; then one EOS as label at
    the first padding position, where the input is EOS with attention 0. The labels of the question
    *without* the answer tag are -100, so a tag such as Phi's "Answer: " is inside the loss. A text
    that fills the window has no EOS label.
open_unlearning. EOS is appended when missing; the labels of the whole prompt, *with* the answer
    tag, are -100; attention = (id != pad), so a true EOS is masked as an input where pad = EOS.

A row keeps its own length. The released legacy code fills every row up to 500 columns; those
columns have attention 0 and label -100, so no loss but KL over all positions sees them, and
`shared.text.batches.collate(pad_to=500)` restores them.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from shared.errors import ConfigError, DataError
from shared.text.templates import ChatTemplate, Example, PromptTemplate, Rendered

log = logging.getLogger(__name__)
IGNORED = -100
Profile = Literal["legacy", "open_unlearning"]


@dataclass(frozen=True, slots=True)
class EncodedRow:
    """One row; the three lists have one length T, at most the window.

    index: the row's number in its data set. labels: -100 where no loss is counted; labels[t] is
    predicted from position t-1. num_masked: leading labels that are -100. truncated: the answer was
    cut at the window.
    """

    index: int
    input_ids: list[int]
    attention_mask: list[int]
    labels: list[int]
    num_masked: int
    truncated: bool

    @property
    def num_targets(self) -> int:
        """Labels that count: answer tokens and EOS. The first position is predicted from nothing."""
        return sum(label != IGNORED for label in self.labels[1:])

    @property
    def has_target(self) -> bool:
        """Whether any label counts. Tokens that merge across the border can leave none: the row
        then has no probability, and scores 0."""
        return self.num_targets > 0


@dataclass(frozen=True)
class Encoder:
    """Turns rows into ids for one tokenizer, template, profile and window.

    max_length: most tokens of a row, EOS included (500 in training and 200 in evaluation of the
    released code, 512 in OpenUnlearning, a tiny model's context). examples: few-shot pairs before
    every question. Raises ConfigError if the tokenizer has no EOS, or the profile no such template.
    """

    tokenizer: Any
    template: PromptTemplate
    profile: Profile = "legacy"
    max_length: int = 500
    examples: Sequence[Example] = ()
    # Ids by text and by whether special tokens are added. A prompt is asked for with each of its answers, and one call
    # of the tokenizer for many texts takes a fraction of one call each.
    _known: dict[tuple[str, bool], list[int]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.tokenizer.eos_token_id is None:
            raise ConfigError(
                f"{self._name}: has no EOS token, so no answer can end; set its eos_token and save it again"
            )
        if self.profile == "legacy" and isinstance(self.template, ChatTemplate):
            raise ConfigError("profile 'legacy' has no chat templates; use profile 'open_unlearning'")
        if self.profile == "open_unlearning" and self.tokenizer.pad_token_id in (None, self.eos_id):
            log.info("%s: pads with EOS, so attention leaves out every true EOS too", self._name)

    @property
    def eos_id(self) -> int:
        """Id of the end of an answer."""
        return int(self.tokenizer.eos_token_id)

    @property
    def pad_id(self) -> int:
        """Id that fills a batch: EOS in profile legacy whatever the tokenizer says, and wherever
        the tokenizer has no padding token."""
        pad = self.tokenizer.pad_token_id
        return self.eos_id if self.profile == "legacy" or pad is None else int(pad)

    def row(self, index: int, question: str, answer: str) -> EncodedRow:
        """Ids and labels of one row. Raises DataError, naming the row, if it does not fit the
        window: a question must leave room for one label, and only profile legacy cuts answers."""
        text = self.template.render(question, answer, self.tokenizer, self.examples)
        return self._legacy(index, text) if self.profile == "legacy" else self._open_unlearning(index, text)

    def rows(self, items: Iterable[tuple[int, str, str]]) -> list[EncodedRow]:
        """Rows of (index, question, answer) triples; says how many answers were cut."""
        items = list(items)
        texts = [self.template.render(question, answer, self.tokenizer, self.examples) for _, question, answer in items]
        self._learn(texts)
        encode = self._legacy if self.profile == "legacy" else self._open_unlearning
        encoded = [encode(index, text) for (index, _, _), text in zip(items, texts, strict=True)]
        if cut := sum(row.truncated for row in encoded):
            log.warning(
                "%d of %d answers are cut at %d tokens and have no EOS label", cut, len(encoded), self.max_length
            )
        return encoded

    def prompt_ids(self, index: int, question: str) -> list[int]:
        """Ids that generation starts from: with the answer tag, or without it in profile legacy,
        where the model has to write the tag itself."""
        text = self.template.render(question, "", self.tokenizer, self.examples)
        ids = self._ids(text.question if self.profile == "legacy" else text.prompt, text)
        self._check_question(index, len(ids))
        return ids

    def _legacy(self, index: int, text: Rendered) -> EncodedRow:
        num_question = len(self._ids(text.question, text))
        self._check_question(index, num_question)
        ids = self._ids(text.full, text)
        fills = len(ids) >= self.max_length
        kept = ids[: self.max_length]
        end = [] if fills else [self.eos_id]
        mask = [1] * len(kept) + [0] * len(end)
        labels = _masked(kept + end, num_question)
        return EncodedRow(index, kept + end, mask, labels, num_question, truncated=len(ids) > len(kept))

    def _open_unlearning(self, index: int, text: Rendered) -> EncodedRow:
        num_prompt = len(self._ids(text.prompt, text))
        self._check_question(index, num_prompt)
        ids = self._ids(text.full, text)
        if ids[-1] != self.eos_id:
            ids = [*ids, self.eos_id]
        if len(ids) > self.max_length:
            raise DataError(
                f"row {index}: question and answer are {len(ids)} tokens, the window holds {self.max_length}; "
                "raise max_length, leave the row out, or use profile 'legacy', which cuts answers"
            )
        mask = [int(i != self.pad_id) for i in ids]
        return EncodedRow(index, ids, mask, _masked(ids, num_prompt), num_prompt, truncated=False)

    def _ids(self, text: str, rendered: Rendered) -> list[int]:
        key = text, rendered.special_tokens
        if key not in self._known:
            self._tokenise([text], rendered.special_tokens)
        return self._known[key]

    def _learn(self, texts: Sequence[Rendered]) -> None:
        for special in (False, True):
            own = [text for text in texts if text.special_tokens == special]
            prompts = [text.question if self.profile == "legacy" else text.prompt for text in own]
            new = dict.fromkeys((*prompts, *(text.full for text in own)))
            self._tokenise([text for text in new if (text, special) not in self._known], special)

    def _tokenise(self, texts: list[str], special_tokens: bool) -> None:
        if texts:
            # verbose: the tokenizer warns of long texts; here they are cut or refused, and counted
            found = self.tokenizer(texts, add_special_tokens=special_tokens, verbose=False)["input_ids"]
            self._known.update(((text, special_tokens), list(ids)) for text, ids in zip(texts, found, strict=True))

    def _check_question(self, index: int, num_tokens: int) -> None:
        if num_tokens >= self.max_length:
            raise DataError(
                f"row {index}: its question alone is {num_tokens} tokens and leaves no room for an answer in the "
                f"window of {self.max_length}; raise max_length or leave the row out"
            )

    @property
    def _name(self) -> str:
        return f"tokenizer {getattr(self.tokenizer, 'name_or_path', '') or type(self.tokenizer).__name__}"


def _masked(ids: list[int], num_masked: int) -> list[int]:
    """`ids` as labels with the first `num_masked` ignored. Tokens that merge across the border can
    make the prompt alone as long as prompt and answer, or longer."""
    num_masked = min(num_masked, len(ids))
    return [IGNORED] * num_masked + ids[num_masked:]
