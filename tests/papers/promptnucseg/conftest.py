"""One thread, and a model whose right answer is known: it reads the mask of a point off the picture."""

import pytest
import torch
from torch import nn

from shared.segmentation.sam.decoder import Embeddings, Masks
from shared.segmentation.sam.options import SamSize, VitSize


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class ReadingModel(nn.Module):
    """Pictures show the id of each nucleus as their colour, black is background. The mask of a point is all that has
    its colour; the predicted IoU is the share of the input that it fills, plus `bonus` with a negative point.

    asked: labels of every question, in their order.
    """

    mask_threshold = 0.0

    def __init__(self, side=32, bonus=0.0):
        super().__init__()
        encoder = VitSize(patch=4, dim=8, depth=1, heads=1, window=0)
        self.size = SamSize(image=side, encoder=encoder, width=16, pixel_mean=(0.0, 0.0, 0.0))
        self.register_buffer("pixel_mean", torch.zeros(3, 1, 1))
        self.bonus, self.asked, self.calls = bonus, [], 0

    @property
    def mask_decoder(self):
        return self

    @property
    def device(self):
        return torch.device("cpu")

    def prepare(self, embeddings):
        return embeddings

    def embed(self, pixels):
        return Embeddings(pixels[:, :1])

    def forward(self, embeddings, prompts):
        self.calls += 1
        self.asked += prompts.labels.tolist()
        pictures = embeddings.image[prompts.image, 0]
        x, y = prompts.points[:, 0].round().long().unbind(-1)
        colour = pictures[torch.arange(len(pictures)), y, x]
        same = (pictures == colour[:, None, None]) & (colour > 0)[:, None, None]
        score = same.flatten(1).float().mean(1) + self.bonus * (prompts.labels == 0).any(1)
        return Masks(torch.where(same, 1.0, -1.0)[:, None], score[:, None])


@pytest.fixture
def reading():
    return ReadingModel
