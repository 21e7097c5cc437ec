"""Word tokenizer of the world: 43 entries, special tokens and windows as CLIP's tokenizer has them."""

from typing import TYPE_CHECKING

from shared.diffusion.world.words import BEGIN, END, VOCABULARY, WINDOW

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def world_tokenizer() -> "PreTrainedTokenizerFast":
    """Lower-cased words, `<s>` (id 0) before and `</s>` (id 1) after them; padded with `</s>` to 12 tokens.

    As in Stable Diffusion's tokenizer the padding is the end token, and so is an unknown word:
    `TextToImage.tokenize` refuses those. (transformers' CLIPTokenizer is a byte-pair encoder: with whole words as
    entries it would decode them without spaces, and attacks tokenise again what they decode.)
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {word: index for index, word in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token=END))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}", special_tokens=[(BEGIN, ids[BEGIN]), (END, ids[END])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=WINDOW,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=END,
        unk_token=END,
    )
