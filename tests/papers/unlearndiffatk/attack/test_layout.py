"""Where adversarial tokens stand, and the noise levels of a search."""

import pytest
import torch

from papers.unlearndiffatk.attack.layout import gaps, lay_out
from papers.unlearndiffatk.attack.schedule import attack_times
from shared.diffusion.attacks.prompts import Prompt, short_enough
from shared.errors import DataError

START, END = 0, 1


def lay(prompts, num, place="prefix", window=12):
    names = [f"prompt {index}" for index in range(len(prompts))]
    return lay_out(prompts, num, place, start=START, end=END, window=window, names=names)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("prefix", [90, 91, 5, 6, 7, 8]),
        ("suffix", [5, 6, 7, 8, 90, 91]),
        ("middle", [5, 6, 90, 91, 7, 8]),
        ("even", [90, 5, 6, 91, 7, 8]),
        ("every_third", [90, 5, 6, 7, 91, 8]),
    ],
)
def test_places(place, expected):
    layout = lay([[5, 6, 7, 8], [9, 10]], 2, place)
    ids = layout.filled(torch.tensor([[90, 91], [92, 93]]))
    assert ids[0].tolist() == [START, *expected, *[END] * 5]
    assert ids.shape == (2, 12)
    contents = layout.content(ids)
    assert contents[0] == expected
    assert [t for t in contents[1] if t < 90] == [9, 10]
    assert [t for t in contents[1] if t >= 90] == [92, 93]


@pytest.mark.parametrize("place", ["prefix", "suffix", "middle", "even", "every_third"])
@pytest.mark.parametrize("words", [0, 1, 2, 5, 9])
@pytest.mark.parametrize("num", [0, 1, 3, 5])
def test_every_token_finds_its_place(place, words, num):
    found = gaps(place, num, words)
    assert len(found) == num
    assert found == sorted(found)
    assert all(0 <= gap <= words for gap in found)
    prompt = list(range(5, 5 + words))
    layout = lay([prompt], num, place, window=20)
    content = layout.content(layout.filled(90 + torch.arange(num)[None]))[0]
    assert [t for t in content if t < 90] == prompt
    assert [t for t in content if t >= 90] == [90 + i for i in range(num)]


def test_embeddings_are_the_table_s_with_those_put_in_and_carry_gradients():
    layout = lay([[5, 6], [7]], 2)
    generator = torch.Generator().manual_seed(0)
    table, adversarial = torch.randn(100, 3, generator=generator), torch.randn(2, 2, 3, generator=generator)
    adversarial.requires_grad_(True)
    embeddings = layout.embeddings(adversarial, table)
    assert torch.equal(embeddings[:, 1:3], adversarial)
    tokens = torch.tensor([[90, 91], [92, 93]])
    assert torch.equal(layout.embeddings(table[tokens], table), table[layout.filled(tokens)])
    (gradient,) = torch.autograd.grad((embeddings * torch.arange(1.0, 13)[None, :, None]).sum(), adversarial)
    assert torch.equal(gradient, torch.tensor([2.0, 3.0])[None, :, None].expand(2, 2, 3))


def test_some_of_the_prompts():
    layout = lay([[5, 6], [7], [8, 9, 10]], 2).keep(torch.tensor([2, 0]))
    assert layout.content(layout.filled(torch.tensor([[90, 91], [92, 93]]))) == [[90, 91, 8, 9, 10], [92, 93, 5, 6]]


def test_the_window_is_77_and_one_end_token_is_kept():
    layout = lay([[5] * 70], 5, window=77)
    assert layout.filled(torch.full((1, 5), 9)).tolist()[0] == [START, *[9] * 5, *[5] * 70, END]
    with pytest.raises(DataError, match="prompt 1: 71 tokens and 5 adversarial ones do not fit into the window of 77"):
        lay([[5], [5] * 71], 5, window=77)


def test_long_prompts_are_left_out():
    prompts = [Prompt(index, "x " * length, 0, 7.5) for index, length in enumerate((3, 60, 61))]
    assert [p.index for p in short_enough(prompts, str.split)] == [0, 1]


def test_noise_levels():
    assert attack_times(50) == list(range(10, 1000, 20))
    assert attack_times(8) == [62, 187, 312, 437, 562, 687, 812, 937]
    assert attack_times(1) == [500]
    assert attack_times(1000) == list(range(1000))
    with pytest.raises(ValueError, match="1001 times do not fit"):
        attack_times(1001)
