"""Fixtures for all tests: one thread, no shared caches, the development data if it is there."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("REPLICATE_WARM", None)


@pytest.fixture(scope="session")
def data_mirror() -> Path:
    """Folder with the real data sets: DATA_MIRROR, or `../shared/data` beside the checkout; skips without it."""
    named = os.environ.get("DATA_MIRROR")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs real data: set DATA_MIRROR to a folder that holds it")
    return folder
