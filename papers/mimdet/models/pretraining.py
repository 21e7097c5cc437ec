"""Masked autoencoding (He et al., arXiv:2111.06377) with this paper's own encoder and decoder, for runs without
published weights."""

import torch
from torch import Tensor, nn

from papers.mimdet.models.decoder import Decoder
from papers.mimdet.models.encoder import Encoder, initialise_linear
from papers.mimdet.options import MimDetOptions, PretrainOptions


class MaskedAutoencoder(nn.Module):
    """An encoder with patches instead of ConvStem, a decoder with mask tokens, and a layer that predicts pixels.

    There is no class token. A call returns the loss.
    """

    def __init__(self, options: MimDetOptions, pretraining: PretrainOptions) -> None:
        super().__init__()
        changes = {"stem": "patch", "pyramid": "upsampled", "fill": "mask_token", "drop_path": 0.0}
        own = options.model_copy(update=changes)
        self.patch, self.pretraining = options.patch, pretraining
        self.encoder, self.decoder = Encoder(own), Decoder(own)
        self.decoder_pred = nn.Linear(options.decoder_dim, 3 * options.patch**2)
        initialise_linear(self)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Normalised images (N, 3, H, W), without padding, to the mean squared error of hidden patches."""
        sizes = torch.tensor(images.shape[2:]).expand(len(images), 2)
        encoded = self.encoder(images, sizes, 1 - self.pretraining.mask, generator)
        assert encoded.order is not None
        error = (self.decoder_pred(self.decoder(encoded)) - self.targets(images)).square().mean(2)
        hidden = encoded.order[:, encoded.tokens.shape[1] :]
        return error.gather(1, hidden).mean()

    def targets(self, images: Tensor) -> Tensor:
        """Pixels of each patch (N, L, 3 * patch^2), row by row with the channel last."""
        p = self.patch
        pixels = images.unflatten(3, (-1, p)).unflatten(2, (-1, p)).permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
        if not self.pretraining.normalise:
            return pixels
        centre, spread = pixels.mean(2, keepdim=True), pixels.var(2, keepdim=True)
        return (pixels - centre) / (spread + 1e-6).sqrt()

    def mae_state(self) -> dict[str, Tensor]:
        """All weights under the names of MAE's files."""
        parts = (
            self.encoder.state_dict(),
            self.decoder.state_dict(),
            self.decoder_pred.state_dict(prefix="decoder_pred."),
        )
        return {name: value for part in parts for name, value in part.items()}
