"""CLIP score: 100 times the cosine of an image and its prompt, through torchmetrics."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from shared.errors import DataError, first_line


def clip_score(folder: Path, images: Tensor, prompts: Sequence[str], device: torch.device | str) -> float:
    """Mean over images (N, 3, H, W) uint8 and their prompts, at least 0, under the CLIP model of a folder."""
    from torchmetrics.multimodal.clip_score import CLIPScore

    model, processor = _load(folder, device)
    own: Any = lambda: (_Features(model), processor)  # noqa: E731 - typed as transformers' own classes alone
    metric = CLIPScore(model_name_or_path=own).to(device)
    for start in range(0, len(images), 64):
        part = images[start : start + 64].to(device)
        metric.update(list(part), list(prompts[start : start + 64]))
    return float(metric.compute())


def _load(folder: Path, device: torch.device | str) -> tuple[Any, Any]:
    """Model and processor; a folder without image processor is the world's, whose images need none but scaling."""
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel, CLIPProcessor

    try:
        model: Any = CLIPModel.from_pretrained(folder, local_files_only=True)
        if (folder / "preprocessor_config.json").is_file():
            return model.to(device).eval(), CLIPProcessor.from_pretrained(folder, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: no CLIP model can be read ({first_line(error)})") from None
    plain = CLIPImageProcessor(do_resize=False, do_center_crop=False, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return model.to(device).eval(), _Processor(tokenizer, plain)


class _Features(nn.Module):
    """CLIP's projections as tensors: what `get_image_features` returns differs between releases of transformers."""

    def __init__(self, clip: Any) -> None:
        super().__init__()
        self.clip, self.config = clip, clip.config

    @torch.no_grad()
    def get_image_features(self, pixels: Tensor) -> Tensor:
        """(B, D) of pixels as the image processor gives them."""
        found: Tensor = self.clip.visual_projection(self.clip.vision_model(pixel_values=pixels).pooler_output)
        return found

    @torch.no_grad()
    def get_text_features(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(B, D) of token ids (B, L)."""
        found: Tensor = self.clip.text_projection(self.clip.text_model(ids, attention_mask).pooler_output)
        return found


class _Processor:
    """Tokenizer and image processor of a small CLIP, called as CLIPProcessor is."""

    def __init__(self, tokenizer: Any, images: Any) -> None:
        self._tokenizer, self._images = tokenizer, images
        self.tokenizer, self.image_processor = tokenizer, images

    def __call__(self, text: Any = None, images: Any = None, **settings: Any) -> Any:
        """Ids with their mask, pixels, or both."""
        from transformers import BatchEncoding

        found: dict[str, Any] = {}
        if text is not None:
            found |= self._tokenizer(text, padding="max_length", return_tensors="pt")
        if images is not None:
            found |= self._images(images, return_tensors="pt")
        return BatchEncoding(found)
