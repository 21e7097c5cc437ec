"""Every published file that the full configuration reads, small and in its exact layout: Stable Diffusion's folder,
erased models with the prefixes that such files carry, detectors, prompts, COCO-10k. Prompts are harmless."""

import csv
import hashlib
import io
import pickle
import shutil
import zipfile

import numpy as np
import torch
import yaml
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    ConvNextImageProcessor,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from shared.data.verify import content_digest, tree_entries
from shared.diffusion.text_to_image import load_text_to_image
from shared.paths import ROOT
from tests.diffusion.conftest import stable_diffusion_folder

PROMPTS = {"church.csv": 3, "parachute.csv": 2, "tench.csv": 2, "garbage_truck.csv": 2, "vangogh.csv": 2}
I2P = {"nudity.csv": 2, "violence.csv": 2, "illegal.csv": 2}
IMAGENET = ["church, church building", "parachute, chute", "tench, Tinca tinca", "garbage truck, dustcart"]
# Names of a published file's weights, from those of the model
WRAPPED = {
    "plain": lambda weights: weights,
    "module": lambda weights: {f"module.{name}": value for name, value in weights.items()},
    "part": lambda weights: {f"unet.{name}": value for name, value in weights.items()},
    "nested": lambda weights: {"state_dict": {f"model.{name}": value for name, value in weights.items()}},
}


def prompts(path, number):
    """A CSV file with the columns of the published ones, further ones included, and one prompt that is too long."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case_number", "prompt", "evaluation_seed", "evaluation_guidance", "sd_image_height"])
        for index in range(number):
            writer.writerow([index, f"an oat, cat {index}", 1000 + index, 7.0 if index else "", 512])
        writer.writerow([number, "x" * 70, 1, 7.5, 512])


def moved(weights, seed=0):
    """Slightly other weights of the same names."""
    generator = torch.Generator().manual_seed(seed)
    return {name: value + 0.01 * torch.randn(value.shape, generator=generator) for name, value in weights.items()}


def erased_unet(sd, path, wrap="plain"):
    """A U-Net as the authors release them: a torch file of a state dict."""
    torch.save(WRAPPED[wrap](moved(load_text_to_image(sd).unet.state_dict())), path)


def erased_text_encoder(sd, path):
    """A text encoder in the names of older transformers, position ids included."""
    weights = moved(load_text_to_image(sd).text_encoder.state_dict())
    weights = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in weights.items()}
    torch.save({**weights, "text_model.embeddings.position_ids": torch.arange(77)[None]}, path)


def imagenet(folder):
    """ResNet-50's layout; four classes."""
    labels = dict(enumerate(IMAGENET))
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=labels,
        label2id={name: index for index, name in labels.items()},
    )  # fmt: skip
    ResNetForImageClassification(config).save_pretrained(folder)
    ConvNextImageProcessor(size={"shortest_edge": 48}, crop_pct=0.875).save_pretrained(folder)


def artists(folder):
    """The classifier of 129 artists, as a torch file, which is how its training left it."""
    labels = {index: "vincent-van-gogh" if index == 40 else f"artist-{index}" for index in range(129)}
    config = ViTConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16,
        id2label=labels, label2id={name: index for index, name in labels.items()},
    )  # fmt: skip
    model = ViTForImageClassification(config)
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)


VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def clip_image_processor(folder):
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)


def q16(clip, prompts_folder):
    """CLIP's image tower and two vectors in half precision."""
    config = CLIPVisionConfig(**VISION, image_size=32, patch_size=8, projection_dim=6)
    CLIPVisionModelWithProjection(config).save_pretrained(clip)
    clip_image_processor(clip)
    vectors = np.random.RandomState(0).randn(2, 6).astype(np.float16)
    (prompts_folder / "prompts.p").write_bytes(pickle.dumps(vectors))


def whole_clip(folder, sd):
    """CLIP ViT-B/32's layout with the tokenizer of Stable Diffusion, which is CLIP's."""
    num_tokens = load_text_to_image(sd).text_encoder.config.vocab_size
    text = {**VISION, "vocab_size": num_tokens, "bos_token_id": 0, "eos_token_id": num_tokens - 1}
    vision = {**VISION, "image_size": 32, "patch_size": 8}
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).save_pretrained(folder)
    clip_image_processor(folder)
    for file in (sd / "tokenizer").iterdir():
        shutil.copy(file, folder / file.name)


def coco(folder):
    """Captions without guidance, and a zip file with the folder of their images."""
    rows = ["case_number,source,prompt,evaluation_seed", *(f"{i:012d},coco-30k,a cat of an oat,{i}" for i in range(3))]
    (folder / "coco_10k.csv").write_text("\n".join(rows) + "\n")
    with zipfile.ZipFile(folder / "coco_10k.zip", "w") as archive:
        for index in range(3):
            buffer = io.BytesIO()
            pixels = np.random.RandomState(index).randint(0, 255, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(buffer, "JPEG")
            archive.writestr(f"coco_10k/COCO_val2014_{index:012d}.jpg", buffer.getvalue())


def mirror(root):
    """A mirror with everything, and the project's manifests; those of hub repositories get the digests of what is here.

    Returns the folders of the mirror and of the manifests.
    """
    place, manifests = root / "mirror", root / "manifests"
    shutil.copytree(ROOT / "data_manifests", manifests)
    place.mkdir()
    sd = stable_diffusion_folder(place / "stable_diffusion_v1_4")
    hub = ["resnet50_imagenet", "clip_vit_large_patch14", "clip_vit_base_patch32"]
    by_hand = ["vit_style_129", "q16_prompts", "nudenet_v3", "unlearndiffatk_i2p", "unlearndiffatk_prompts", "coco_10k"]
    for name in (*hub, *by_hand):
        (place / name).mkdir()
    imagenet(place / "resnet50_imagenet")
    artists(place / "vit_style_129")
    q16(place / "clip_vit_large_patch14", place / "q16_prompts")
    whole_clip(place / "clip_vit_base_patch32", sd)
    (place / "nudenet_v3" / "best.onnx").write_bytes(b"read by the runtime alone")
    for folder, files in (("unlearndiffatk_i2p", I2P), ("unlearndiffatk_prompts", PROMPTS)):
        for name, number in files.items():
            prompts(place / folder / name, number)
    coco(place / "coco_10k")
    content = b"weights that the tests replace"
    inception = manifests / "inception_fid.yaml"
    values = yaml.safe_load(inception.read_text())
    values["files"][0] |= {"sha256": [hashlib.sha256(content).hexdigest()], "size": len(content)}
    (place / values["files"][0]["name"]).write_bytes(content)
    inception.write_text(yaml.safe_dump(values))
    for index, victim in enumerate(sorted(manifests.glob("victim_*.yaml"))):
        name = yaml.safe_load(victim.read_text())["files"][0]["name"]
        if "text_encoder" in name:
            erased_text_encoder(sd, place / name)
        else:
            erased_unet(sd, place / name, list(WRAPPED)[index % len(WRAPPED)])
    for name in ("stable_diffusion_v1_4", *hub):
        path = manifests / f"{name}.yaml"
        values = yaml.safe_load(path.read_text())
        values["hub"]["allow"] = ["*"]
        values["content"] = {"max_bytes": 10**9, "sha256": content_digest(tree_entries(place / name))}
        path.write_text(yaml.safe_dump(values))
    return place, manifests
