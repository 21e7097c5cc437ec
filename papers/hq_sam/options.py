"""What HQ-SAM adds to SAM's decoder; torch-free, so that planning reads it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from shared.options import Options

Feature = Literal["decoder", "decoder_plain", "final", "early"]


class HqOptions(Options):
    """The HQ-Output token, its features, and context tokens (arXiv:2306.01567, tables 2 and 3).

    features: the terms of the HQ feature: SAM's mask feature through a small convolution (`decoder`) or as it is
    (`decoder_plain`), the encoder's final feature, its early feature. Empty: no HQ token, masks are SAM's.
    context_tokens: further learnable tokens of the decoder's input, whose outputs nothing reads.
    """

    features: list[Feature] = ["decoder", "final", "early"]
    context_tokens: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if len(set(self.features)) < len(self.features):
            raise ValueError("features names a term twice")
        if {"decoder", "decoder_plain"} <= set(self.features):
            raise ValueError("features: either 'decoder' or 'decoder_plain'")
        if not self.features and not self.context_tokens:
            raise ValueError("neither features nor context_tokens: that is SAM, nothing can be trained")
        return self
