"""Tiny language models made here: a small GPT and a word tokenizer, saved as transformers saves them.

They enter every pipeline through AutoModelForCausalLM and AutoTokenizer, as Llama does: no code path
knows that a model is tiny. torch and transformers are imported inside the functions.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from shared.options import Count, Options, Positive

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast

SPECIAL_TOKENS = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>", "sep_token": "<sep>"}
WORDS = r"\w+|[^\w\s]"  # words, and every punctuation mark by itself


class TinyGptOptions(Options):
    """Sizes of a tiny GPT: pre-LN, tied embeddings, no dropout, feed-forward width 4 x `width`.

    width: of the hidden states; context: most tokens of a row; init_std: of all weight matrices
    (those that write into the residual stream are divided by sqrt(2 x layers), as GPT-2 does it).
    """

    width: Count = 64
    layers: Count = 2
    heads: Count = 4
    context: Count = 20
    init_std: Positive = 0.05


def word_tokenizer(texts: Iterable[str], context: int) -> "PreTrainedTokenizerFast":
    """Word-level tokenizer whose vocabulary is every lower-cased word and punctuation mark of
    `texts`, after <pad>, <eos>, <unk>, <sep> (ids 0 to 3); frequent words first, ties by alphabet."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(unk_token=SPECIAL_TOKENS["unk_token"]))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True)
    special = list(SPECIAL_TOKENS.values())
    # The trainer's default would cut the vocabulary at 30,000 words.
    trainer = trainers.WordLevelTrainer(vocab_size=1 << 31, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=context, **SPECIAL_TOKENS)


def tiny_gpt(options: TinyGptOptions, tokenizer: "PreTrainedTokenizerFast", seed: int) -> "GPT2LMHeadModel":
    """Untrained model for a tokenizer; the same seed gives the same weights and leaves torch's
    global generator as it was."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=options.context,
        n_embd=options.width,
        n_layer=options.layers,
        n_head=options.heads,
        initializer_range=options.init_std,
        activation_function="gelu_pytorch_tanh",  # GPT-2's own function, in one kernel
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config)


def save_tiny(folder: Path, options: TinyGptOptions, texts: Iterable[str], seed: int) -> None:
    """Write an untrained model and the tokenizer of `texts` into `folder`, in transformers' format."""
    from shared.text.models import save_model

    tokenizer = word_tokenizer(texts, options.context)
    save_model(tiny_gpt(options, tokenizer, seed), tokenizer, folder)
