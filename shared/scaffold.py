"""A new paper's room: `python -m shared.scaffold <slug> [--title T] [--track T]`.

It runs as it is; CONTRIBUTING.md says what to fill in.
"""

import argparse
import re
import sys
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from shared.config import TRACKS
from shared.errors import UserError
from shared.files import write_text
from shared.paths import ROOT

TEMPLATES = Path(__file__).parent / "templates"
# Tracks that have a template
KINDS = [track for track in TRACKS if (TEMPLATES / track).is_dir()]


def scaffold(slug: str, title: str, track: str = "classification", root: Path = ROOT) -> list[Path]:
    """Write `papers/<slug>/` and `tests/papers/<slug>/`; returns the new files. Never overwrites a room."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", slug):
        raise UserError(
            f"'{slug}' cannot name a paper: small letters, digits and _ only, for it becomes a Python package"
        )
    room, tests = root / "papers" / slug, root / "tests" / "papers" / slug
    for folder in (room, tests):
        if folder.exists():
            raise UserError(f"{folder.relative_to(root)} exists already; choose another slug or delete it")
    sources = (
        (TEMPLATES / "common" / "room", room),
        (TEMPLATES / track / "room", room),
        (TEMPLATES / track / "tests", tests),
    )
    written = [path for source, target in sources for path in _render(source, target, slug, title)]
    write_text(room / "__init__.py", "")
    return [*written, room / "__init__.py"]


def _render(source: Path, target: Path, slug: str, title: str) -> list[Path]:
    templates = Environment(loader=FileSystemLoader(source), undefined=StrictUndefined, keep_trailing_newline=True)
    written = []
    for template in sorted(source.rglob("*.j2")):
        name = template.relative_to(source)
        write_text(
            target / name.with_suffix(""), templates.get_template(name.as_posix()).render(slug=slug, title=title)
        )
        written.append(target / name.with_suffix(""))
    return written


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m shared.scaffold", description=__doc__)
    parser.add_argument("slug", help="name of the room, such as salun")
    parser.add_argument("--title", default="", help="title of the paper")
    parser.add_argument("--track", choices=KINDS, default="classification")
    arguments = parser.parse_args()
    try:
        written = scaffold(arguments.slug, arguments.title or arguments.slug, arguments.track)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(str(path.relative_to(ROOT)) for path in written))
    print(f"next: snakemake --cores 2 {arguments.slug}   (it runs as it is), then CONTRIBUTING.md, 'Add a paper'")
    return 0


if __name__ == "__main__":
    sys.exit(main())
