import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from shared.gpu.launch import launch_command
from tests.training.train_in_processes import train

ROOT = Path(__file__).resolve().parents[2]


def test_one_process_needs_no_launcher():
    assert launch_command("shared.run", ["row", "job.json"], 1) == [
        sys.executable,
        "-m",
        "shared.run",
        "row",
        "job.json",
    ]


def test_several_gpus_go_through_the_launcher():
    command = launch_command("shared.run", ["row", "a job.json"], 4)
    assert command[:4] == [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    assert command[command.index("--num_processes") + 1] == "4"
    assert command[-4:] == [
        "--module",
        "shared.run",
        "row",
        "a job.json",
    ]  # a list: no shell splits the blank


def test_no_process_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one process"):
        launch_command("shared.run", [], 0)


def test_two_processes_train_the_weights_of_one(tmp_path):
    # 37 samples: batches of 12 leave one sample at the end, fewer than there are processes
    arguments = [str(tmp_path), "12/0", "12/4"]
    command = launch_command("tests.training.train_in_processes", arguments, 2, cpu=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    alone, history = train(12, None)
    expected = {
        **alone.state_dict(),
        "losses": torch.tensor([float(row["loss"]) for row in history]),
    }
    for name in ("12_0", "12_4"):
        together = load_file(tmp_path / f"{name}.safetensors")
        assert together.keys() == expected.keys()
        assert len(together["losses"]) == 2  # of three epochs, though one process only wanted to stop
        for key, value in expected.items():
            torch.testing.assert_close(together[key], value, rtol=0, atol=1e-6)
