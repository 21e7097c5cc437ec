"""Every eraser by its name: options, one short run, what it leaves alone."""

import subprocess
import sys

import pytest
import torch

from shared.diffusion.erasers.context import plain_guidance
from shared.diffusion.erasers.names import ERASERS
from shared.errors import ConfigError
from shared.imports import import_path
from shared.options import parse_options

SHORT = {
    "esd": {"lr": 1e-3, "iterations": 2, "draw_steps": 3},
    "uce": {},
    "fmn": {"lr": 1e-3, "iterations": 2},
    "ablation": {"lr": 1e-3, "iterations": 2},
    "sld": {},
    "salun": {"lr": 1e-3, "epochs": 1},
    "erasediff": {"lr": 1e-3, "epochs": 1},
    "scissorhands": {"lr": 1e-3, "epochs": 1},
    "amnesia": {"lr": 1e-3, "epochs": 1, "fisher_samples": 2},
    "spm": {"lr": 1e-3, "iterations": 2, "draw_steps": 3, "warmup": 0.0},
    "seot": {"a": 0.5, "lr": 0.1},
}
AT_DRAWING_TIME = {"sld", "seot"}


@pytest.mark.parametrize("name", ERASERS)
def test_an_eraser_changes_weights_or_how_images_are_drawn(name, unet, concept, context, weights):
    before = weights(unet)
    options = parse_options(ERASERS[name], SHORT[name])
    erased = import_path(ERASERS[name])(unet, concept, options, context)
    after = weights(erased.unet)
    assert torch.isfinite(after).all()
    assert torch.equal(after, before) == (name in AT_DRAWING_TIME)
    assert (erased.guidance is not plain_guidance) == (name in AT_DRAWING_TIME)


@pytest.mark.parametrize("name", ERASERS)
def test_unknown_options_are_named(name):
    with pytest.raises(ConfigError, match=r"learnig_rate: unknown key"):
        parse_options(ERASERS[name], {**SHORT[name], "learnig_rate": 1.0})


def test_options_are_read_without_torch():
    code = (
        "import sys\n"
        "from shared.diffusion.erasers.names import ERASERS\n"
        "from shared.options import options_class\n"
        "found = [options_class(path).__name__ for path in ERASERS.values()]\n"
        "print(len(found), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(ERASERS)), "False"]
