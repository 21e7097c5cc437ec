"""Image files -> one .npy array, decoded by two worker processes.

Threads do not help here: small images are all interpreter time. The workers are plain subprocesses
of this module (`python -m shared.data.decode`), so a caller needs no `if __name__ == "__main__"`
and no forked torch.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from shared.errors import DataError, UserError
from shared.paths import ROOT

_NUM_WORKERS = 2
_WORTH_WORKERS = 4000  # fewer images are decoded before two interpreters have started
_MODES = {1: "L", 3: "RGB"}


def decode_all(paths: list[Path], shape: tuple[int, int, int], target: Path) -> np.ndarray:
    """Decode `paths` into the new .npy file `target`; returns it as a memory map (N, *shape) uint8.

    shape: (height, width, channels); channels 1 (grey) or 3 (RGB), files of another mode are
    converted. Raises DataError naming the file for a damaged image or one of another size.
    """
    images = _reserve(target, (len(paths), *shape))
    if len(paths) < _WORTH_WORKERS:
        _decode(paths, images, 0)
    else:
        _run_workers(paths, target)
    images.flush()
    return images


def _reserve(target: Path, shape: tuple[int, ...]) -> np.memmap:
    images = np.lib.format.open_memmap(target, mode="w+", dtype=np.uint8, shape=shape)
    # A memory map of a sparse file dies by SIGBUS when the disk fills up; reserving the blocks
    # fails with ENOSPC.
    with target.open("r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, target.stat().st_size)
    return images


def _decode(paths: list[Path], images: np.ndarray, start: int) -> None:
    from PIL import Image

    height, width, channels = images.shape[1:]
    for position, path in enumerate(paths, start=start):
        try:
            with Image.open(path, formats=("JPEG", "PNG")) as image:
                if image.size != (width, height):
                    raise ValueError(f"is {image.width}x{image.height} pixels, expected {width}x{height}")
                pixels = np.asarray(image.convert(_MODES[channels]))
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; delete the data set's folder and pull it again") from None
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            raise DataError(
                f"{path}: damaged image ({error}); delete the data set's folder and pull it again"
            ) from None
        images[position] = pixels.reshape(height, width, channels)


def _run_workers(paths: list[Path], target: Path) -> None:
    bounds = [len(paths) * n // _NUM_WORKERS for n in range(_NUM_WORKERS + 1)]
    workers: list[tuple[subprocess.Popen[str], Any]] = []
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
    }
    with tempfile.TemporaryDirectory() as scratch:
        try:
            for start, stop in itertools.pairwise(bounds):
                task = Path(scratch) / f"{start}.json"
                files = [os.fspath(path.absolute()) for path in paths[start:stop]]
                task.write_text(json.dumps({"target": os.fspath(target.absolute()), "start": start, "files": files}))
                errors = (Path(scratch) / f"{start}.err").open("w+")
                command = [sys.executable, "-m", "shared.data.decode", str(task)]
                workers.append((subprocess.Popen(command, env=environment, stderr=errors, text=True), errors))
            for worker, errors in workers:
                if worker.wait():
                    errors.seek(0)
                    raise DataError((errors.read().strip().splitlines() or ["a decoding process was killed"])[-1])
        finally:
            for worker, errors in workers:
                worker.kill()
                worker.wait()
                errors.close()


def main(task_file: str) -> int:
    """Decode one share of a list; returns the exit code. A UserError is the only line on stderr."""
    task = json.loads(Path(task_file).read_text(encoding="utf-8"))
    images = np.load(task["target"], mmap_mode="r+")
    try:
        _decode([Path(file) for file in task["files"]], images, task["start"])
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    images.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
