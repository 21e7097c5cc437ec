"""A small untrained model of the world, and a miniature of Stable Diffusion 1.4's folder."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.diffusion.sample import ddim_scheduler
from shared.diffusion.text_to_image import TextToImage
from shared.diffusion.world.autoencoder import fit_autoencoder
from shared.diffusion.world.images import draw_captions, draw_images, draw_labels
from shared.diffusion.world.tokenizer import world_tokenizer
from shared.diffusion.zoo.options import TextTowerRecipe, UnetShape, WorldRecipe
from shared.diffusion.zoo.text_tower import build_clip, text_encoder_of
from shared.diffusion.zoo.world import build_unet

TEXT = TextTowerRecipe(width=16, layers=1, heads=2, steps=3, batch=8)
SMALL = WorldRecipe(text=TEXT, unet=UnetShape(widths=(16, 16), heads=2, groups=4))


def small_images(num=40, seed=3):
    """Images (num, 3, 32, 32) in [0, 1] and their captions."""
    import numpy as np

    random = np.random.RandomState(seed)
    labels = draw_labels(num, random)
    images = torch.from_numpy(draw_images(labels, random)).movedim(3, 1).float() / 255
    return images, draw_captions(labels, random)


@pytest.fixture(scope="session")
def world_images():
    return small_images()


@pytest.fixture(scope="session")
def _parts(world_images):
    tokenizer = world_tokenizer()
    clip = build_clip(TEXT, tokenizer, 32, seed=0)
    unet = build_unet(SMALL, 8, seed=0).eval().requires_grad_(False)
    vae = fit_autoencoder(world_images[0] * 2 - 1)
    return unet, vae, text_encoder_of(clip), tokenizer, ddim_scheduler(SMALL.noise)


@pytest.fixture
def pipe(_parts):
    """An untrained pipeline that a test may change."""
    import copy

    unet, vae, text_encoder, tokenizer, scheduler = _parts
    return TextToImage(copy.deepcopy(unet), vae, copy.deepcopy(text_encoder), tokenizer, scheduler)


@pytest.fixture
def small_recipe():
    return SMALL


def byte_pair_files(folder):
    """vocab.json and merges.txt as CLIP's tokenizer has them: bytes, bytes at a word's end, a few merges, specials."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    merges = [("c", "a"), ("ca", "t</w>"), ("a", "n</w>"), ("o", "f</w>")]
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges)]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    special["unk_token"] = "<|endoftext|>"
    (folder / "special_tokens_map.json").write_text(json.dumps(special))
    config = {**special, "model_max_length": 77, "do_lower_case": True, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return len(vocabulary)


OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def stable_diffusion_folder(folder):
    """The public layout of Stable Diffusion 1.4: old names in the autoencoder, prefixed names and position ids in the
    text encoder, vocab.json and merges.txt, PNDM, and a safety checker that nobody may read."""
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    folder.mkdir()
    num_tokens = byte_pair_files(folder / "tokenizer")
    torch.manual_seed(0)
    UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=12, attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=4,
    ).save_pretrained(folder / "unet")  # fmt: skip
    AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4, sample_size=16,
    ).save_pretrained(folder / "vae")  # fmt: skip
    CLIPTextModel(
        CLIPTextConfig(
            vocab_size=num_tokens, hidden_size=12, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=77, bos_token_id=0, eos_token_id=2, pad_token_id=1,
        )
    ).save_pretrained(folder / "text_encoder")  # fmt: skip
    PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1,
        set_alpha_to_one=False,
    ).save_pretrained(folder / "scheduler")  # fmt: skip
    rename(folder / "vae" / "diffusion_pytorch_model.safetensors", old_attention_names)
    rename(folder / "text_encoder" / "model.safetensors", prefixed_names)
    checker = folder / "safety_checker"
    checker.mkdir()
    (checker / "model.safetensors").write_bytes(b"not to be read")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": "0.2.2",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def rename(path, change):
    save_file(change(load_file(path)), path, {"format": "pt"})


def old_attention_names(weights):
    renamed = {}
    for name, value in weights.items():
        for new, old in OLD_NAMES.items():
            name = name.replace(f".attentions.0.{new}.", f".attentions.0.{old}.")
        renamed[name] = value
    return renamed


def prefixed_names(weights):
    renamed = {f"text_model.{name.removeprefix('text_model.')}": value for name, value in weights.items()}
    return {**renamed, "text_model.embeddings.position_ids": torch.arange(77)[None]}


@pytest.fixture(scope="session")
def _stable_diffusion(tmp_path_factory):
    return stable_diffusion_folder(tmp_path_factory.mktemp("models") / "sd")


@pytest.fixture
def stable_diffusion(_stable_diffusion, tmp_path):
    """A folder that a test may damage."""
    return shutil.copytree(_stable_diffusion, tmp_path / "sd")
