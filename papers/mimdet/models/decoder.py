"""MAE's decoder, which completes the map of the sampled tokens."""

import torch
from torch import Tensor, nn

from papers.mimdet.models.encoder import Encoded, initialise_linear, run_blocks, transformer_blocks
from papers.mimdet.models.positions import ResizedTables, sincos_table
from papers.mimdet.models.sampling import put_back, take_tokens
from papers.mimdet.options import MimDetOptions


class Decoder(nn.Module):
    """Names are those of MAE's and of the released files.

    Version 2 of the paper fills dropped places with the stem's features through `conv_feat_proj`, version 1 with one
    learned `mask_token`.
    """

    decoder_pos_embed: Tensor

    def __init__(self, options: MimDetOptions) -> None:
        super().__init__()
        C = options.decoder_dim
        self.decoder_embed = nn.Linear(options.dim, C)
        if options.fill == "conv":
            self.conv_feat_proj = nn.Linear(options.dim, C)
        else:
            self.mask_token = nn.Parameter(nn.init.normal_(torch.empty(1, 1, C), std=0.02))
        self.fill = options.fill
        self.register_buffer("decoder_pos_embed", sincos_table(C, options.grid))
        self.decoder_blocks = transformer_blocks(C, options.decoder_heads, options.decoder_depth)
        self.decoder_norm = nn.LayerNorm(C)
        self.checkpointing = options.checkpointing
        self.positions = ResizedTables()
        initialise_linear(self)

    def forward(self, encoded: Encoded) -> Tensor:
        """The completed tokens (N, L, C), in their places."""
        features = encoded.maps[-1]
        tokens = self.complete(encoded, features.flatten(2).transpose(1, 2))
        tokens = tokens + self.positions.get(self.decoder_pos_embed, (features.shape[2], features.shape[3]))
        tokens = run_blocks(self.decoder_blocks, tokens, self.checkpointing and self.training)
        normed: Tensor = self.decoder_norm(tokens)
        return normed

    def complete(self, encoded: Encoded, features: Tensor) -> Tensor:
        """Embedded tokens (N, L, C) in their places, dropped ones filled. features: (N, L, D), of the stem."""
        embedded: Tensor = self.decoder_embed(encoded.tokens)
        kept = embedded.shape[1]
        if encoded.order is None:
            # a fill for no place at all: it keeps its weights in the graph, for distributed training
            return embedded + self._fill(features[:, :0]).sum(1, keepdim=True)
        fill = self._fill(take_tokens(features, encoded.order[:, kept:]))
        # under autocast a mask token keeps its own format
        return put_back(torch.cat([embedded, fill.to(embedded.dtype)], 1), encoded.order)

    def _fill(self, features: Tensor) -> Tensor:
        """What stands at places with those features (N, P, D): (N, P, C)."""
        if self.fill == "conv":
            projected: Tensor = self.conv_feat_proj(features)
            return projected
        return self.mask_token.expand(features.shape[0], features.shape[1], -1)
