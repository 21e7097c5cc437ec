"""One view of text-to-image models: the library's own pipeline as the judge, and what goes wrong."""

import json

import pytest
import torch
import torch.nn.functional as F

from shared.diffusion.options import SampleOptions
from shared.diffusion.sample import ClassifierFree
from shared.diffusion.text_to_image import load_text_to_image
from shared.errors import ConfigError, DataError

PROMPTS = ["a red circle in flat style", "a hoop", "a nice blue bar"]
FOUR = SampleOptions(num_steps=4, guidance=4.0)


# ---- prompts


def test_one_hot_rows_times_the_table_are_the_ids_to_the_bit(pipe):
    ids = pipe.tokenize(PROMPTS)
    embeddings = F.one_hot(ids, len(pipe.token_table)).float() @ pipe.token_table
    with torch.no_grad():
        plain = pipe.text_encoder(ids)[0]
    assert torch.equal(pipe.encode(ids, embeddings), plain)
    assert torch.equal(pipe.encode(PROMPTS), plain)
    # the hook is gone
    assert torch.equal(pipe.text_encoder(ids)[0], plain)


def test_gradients_reach_the_rows(pipe):
    ids = pipe.tokenize(PROMPTS[:1])
    rows = F.one_hot(ids, len(pipe.token_table)).float().requires_grad_()
    pipe.encode(ids, rows @ pipe.token_table)[0, -1, 0].backward()  # (their sum is constant: a layer norm comes last)
    assert rows.grad.abs().sum(2).min() > 0  # the last position sees all of them
    assert pipe.token_table.grad is None


def test_the_hook_goes_when_the_encoder_fails(pipe):
    ids = pipe.tokenize(PROMPTS)
    with pytest.raises(RuntimeError, match="size"):
        pipe.encode(ids, torch.zeros(1, 5, 3))
    assert pipe.encode(ids).shape == (3, 12, 16)


def test_later_words_do_not_change_earlier_states(pipe):
    one, two = pipe.encode(["a red circle", "a red box"])
    assert torch.equal(one[:3], two[:3])
    assert not torch.equal(one[3:], two[3:])


def test_tokens_are_the_tokenizers(pipe):
    ids = pipe.tokenize(PROMPTS)
    assert ids.shape == (3, 12)
    assert (ids[:, 0] == 0).all()
    assert pipe.decode_tokens(ids) == PROMPTS


def test_prompts_that_do_not_fit(pipe):
    long = " ".join(["nice"] * 11)
    with pytest.raises(DataError, match=r"prompt 1 has 11 tokens, the text encoder's window holds 10"):
        pipe.tokenize(["a circle", long])
    assert pipe.tokenize([long], truncate=True).shape == (1, 12)
    with pytest.raises(DataError, match="prompt 2 holds a word that the tokenizer does not know"):
        pipe.tokenize(["a circle", "", "a zebra"])


# ---- latents


def test_latents_and_images_are_inverse_up_to_the_projection(pipe, world_images):
    images = world_images[0][:4]
    latents = pipe.to_latents(images)
    assert latents.shape == (4, *pipe.latent_shape)
    assert torch.allclose(pipe.to_latents(pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample / 2 + 0.5),
                          latents, atol=1e-4)  # fmt: skip
    decoded = pipe.to_images(latents)
    assert (decoded - images).square().mean() < 0.01
    assert (decoded.min() >= 0) & (decoded.max() <= 1)


def test_a_wide_posterior_is_drawn_from(stable_diffusion):
    pipe = load_text_to_image(stable_diffusion)
    images = torch.rand(2, 3, 16, 16)
    mean = pipe.to_latents(images)
    first, second = (pipe.to_latents(images, torch.Generator().manual_seed(seed)) for seed in (0, 0))
    assert torch.equal(first, second)
    posterior = pipe.vae.encode(images * 2 - 1).latent_dist
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    wanted = (posterior.mean + posterior.std * noise) * pipe.vae.config.scaling_factor
    assert torch.allclose(first, wanted)


# ---- images


@pytest.mark.parametrize("scheduler", ["ddim", "pndm", "lms"])
def test_images_are_those_of_diffusers_own_pipeline(scheduler, pipe):
    from diffusers import StableDiffusionPipeline

    from shared.diffusion.sample import make_scheduler

    theirs = StableDiffusionPipeline(
        vae=pipe.vae, text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer, unet=pipe.unet,
        scheduler=make_scheduler(pipe.scheduler, scheduler), safety_checker=None, feature_extractor=None,
    )  # fmt: skip
    theirs.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 6, 7)]
    wanted = theirs(PROMPTS, num_inference_steps=5, guidance_scale=4.0, generator=generators, output_type="pt").images
    options = SampleOptions(scheduler=scheduler, num_steps=5, guidance=4.0)
    assert torch.allclose(pipe.generate(PROMPTS, [5, 6, 7], options), wanted, atol=1e-4)


def test_an_image_does_not_depend_on_its_batch(pipe):
    together = pipe.generate(PROMPTS, [1, 2, 3], FOUR)
    assert torch.allclose(pipe.generate(PROMPTS, [1, 2, 3], FOUR.model_copy(update={"batch": 2})), together, atol=1e-5)
    assert torch.allclose(pipe.generate(PROMPTS[1:2], [2], FOUR)[0], together[1], atol=1e-5)
    repeated = pipe.generate([PROMPTS[0]] * 2, [1, 1], FOUR)
    assert torch.allclose(repeated[0], repeated[1], atol=1e-6)


def test_guidance_of_one_is_the_prompt_alone_in_half_the_rows(pipe):
    rows = []
    pipe.unet.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    with_null = pipe.generate(PROMPTS, [1, 2, 3], FOUR, ClassifierFree(1.0))
    alone = pipe.generate(PROMPTS, [1, 2, 3], FOUR.model_copy(update={"guidance": 1.0}))
    assert rows == [6] * 4 + [3] * 4
    assert torch.allclose(alone, with_null, atol=1e-5)


def test_guidance_of_zero_forgets_the_prompt(pipe):
    images = pipe.generate(PROMPTS[:2], [4, 4], FOUR.model_copy(update={"guidance": 0.0}))
    assert torch.allclose(images[0], images[1], atol=1e-6)


def test_every_prompt_may_have_its_own_scale(pipe):
    own = pipe.generate(PROMPTS, [1, 2, 3], FOUR.model_copy(update={"batch": 2}), ClassifierFree([1.0, 4.0, 7.0]))
    for index, scale in enumerate([1.0, 4.0, 7.0]):
        alone = pipe.generate([PROMPTS[index]], [index + 1], FOUR, ClassifierFree(scale))
        assert torch.allclose(own[index], alone[0], atol=1e-5)


def test_prompts_are_encoded_once(pipe):
    calls = []
    pipe.text_encoder.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    pipe.generate([PROMPTS[0]] * 5, range(5), FOUR)
    assert calls == [1, 1]  # the prompt, and the empty one


def test_no_prompts_are_no_images(pipe):
    assert pipe.generate_latents(torch.empty(0, 12, 16), [], FOUR).shape == (0, 12, 8, 8)
    with pytest.raises(ValueError, match="3 prompts but 1 seeds"):
        pipe.generate(PROMPTS, [1], FOUR)


def test_latents_that_are_not_finite(pipe):
    pipe.unet.conv_out.bias.data[0] = float("nan")
    with pytest.raises(DataError, match=r"3 of 3 latents are not finite, first that of prompt 0: the model has div"):
        pipe.generate(PROMPTS, [1, 2, 3], FOUR)


# ---- folders


def test_saved_and_read_again(pipe, tmp_path):
    pipe.save(tmp_path / "model")
    again = load_text_to_image(tmp_path / "model")
    assert torch.allclose(again.generate(PROMPTS, [1, 2, 3], FOUR), pipe.generate(PROMPTS, [1, 2, 3], FOUR), atol=1e-5)
    assert not any(p.requires_grad for m in (again.unet, again.vae, again.text_encoder) for p in m.parameters())
    pipe.unet.conv_out.bias.data += 1
    pipe.save(tmp_path / "model")  # replaces the old one
    assert torch.equal(load_text_to_image(tmp_path / "model").unet.conv_out.bias, pipe.unet.conv_out.bias)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_diffusers_reads_the_folder(pipe, tmp_path):
    from diffusers import StableDiffusionPipeline

    pipe.save(tmp_path / "model")
    theirs = StableDiffusionPipeline.from_pretrained(tmp_path / "model")
    assert torch.equal(theirs.unet.conv_in.weight, pipe.unet.conv_in.weight)
    assert torch.equal(theirs.vae.components, pipe.vae.components)
    assert theirs.tokenizer(PROMPTS)["input_ids"] == pipe.tokenizer(PROMPTS)["input_ids"]


def test_the_layout_of_stable_diffusion(stable_diffusion):
    pipe = load_text_to_image(stable_diffusion)
    assert (pipe.window, pipe.latent_shape) == (77, (4, 8, 8))
    ids = pipe.tokenize(["a cat", "an of"])
    assert pipe.decode_tokens(ids) == ["a cat", "an of"]
    states = pipe.encode(ids)
    embeddings = F.one_hot(ids, len(pipe.token_table)).float() @ pipe.token_table
    assert torch.equal(pipe.encode(ids, embeddings), states)
    images = pipe.generate(["a cat", "an of"], [0, 1], SampleOptions(num_steps=3))
    assert images.shape == (2, 3, 16, 16)
    assert images.isfinite().all()
    assert type(pipe.scheduler).__name__ == "PNDMScheduler"


def test_both_layouts_are_one_model(stable_diffusion):
    """Old names in the autoencoder and prefixes in the text encoder are the same weights."""
    from shared.diffusion.diffs import weights_of

    pipe = load_text_to_image(stable_diffusion)
    pipe.save(stable_diffusion.parent / "new")
    again = load_text_to_image(stable_diffusion.parent / "new")
    assert all(torch.equal(value, weights_of(again)[name]) for name, value in weights_of(pipe).items())
    attention = pipe.vae.encoder.mid_block.attentions[0].to_q.weight
    assert torch.equal(again.vae.encoder.mid_block.attentions[0].to_q.weight, attention)


def damage_weights(folder):
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def drop_weight(folder):
    from safetensors.torch import load_file, save_file

    path = folder / "text_encoder" / "model.safetensors"
    weights = load_file(path)
    del weights["text_model.final_layer_norm.weight"]
    save_file(weights, path, {"format": "pt"})


def change_index(**entries):
    def change(folder):
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps({**index, **entries}))

    return change


def drop_part(folder):
    import shutil

    shutil.rmtree(folder / "scheduler")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_weights, r"unet: no UNet2DConditionModel can be read"),
        (drop_weight, r"text_encoder: 1 weights of the model are missing, first .*final_layer_norm\.weight"),
        (drop_part, r"scheduler: no such folder, though model_index\.json names it"),
        (change_index(vae=["x", "Other"]), r"model_index\.json: vae is a Other of x; readable here: AutoencoderKL"),
        (change_index(unet=None), r"model_index\.json: does not name the parts unet, vae"),
    ],
)
def test_damaged_folders_are_one_line(damage, message, stable_diffusion):
    damage(stable_diffusion)
    with pytest.raises(DataError, match=message):
        load_text_to_image(stable_diffusion)


def test_sources_that_are_none(tmp_path):
    with pytest.raises(DataError, match=r"holds no model_index\.json"):
        load_text_to_image(tmp_path)
    with pytest.raises(ConfigError, match=r"is neither a folder nor a manifest.*write data_manifests"):
        load_text_to_image("CompVis/stable-diffusion-v1-4")


def test_half_precision_on_request(stable_diffusion):
    pipe = load_text_to_image(stable_diffusion, dtype="bfloat16")
    assert {pipe.unet.dtype, pipe.vae.dtype, pipe.text_encoder.dtype} == {torch.bfloat16}
    images = pipe.generate(["a cat"], [0], SampleOptions(num_steps=2, scheduler="ddim"))
    assert images.dtype == torch.float32
