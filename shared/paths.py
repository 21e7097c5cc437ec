"""Where things are. Code and configs are found beside this package; results and data below the working folder."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def papers_root() -> Path:
    """Folder of the paper rooms."""
    return ROOT / "papers"


def paper_slugs() -> list[str]:
    """Every room with a Snakefile, sorted."""
    return sorted(path.parent.name for path in papers_root().glob("*/Snakefile"))


def results_of(slug: str, scale: str) -> Path:
    """Results of one paper at one scale, relative to the working folder."""
    return Path("results") / slug / scale


def stage_folder(digest16: str) -> Path:
    """Artifacts of one stage, shared by all papers that use the same recipe."""
    return Path("results") / "stages" / digest16


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+=-]*")


def error_file(record: Path) -> Path:
    """Where the job of a record leaves its reason when it fails."""
    return record.with_suffix(".error.json")


def shown(path: Path) -> str:
    """`path` as the engine should know it: relative below the working folder, so that a checkout can be moved."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def is_name(text: str) -> bool:
    """Whether `text` may name an experiment, setting or row: it becomes a file name on every system."""
    return _NAME.fullmatch(text) is not None
