"""`python -m shared.results summary|diff|board|readme`: see --help of each."""

import argparse
import signal
import sys
from pathlib import Path

from shared.errors import UserError, nearest
from shared.files import write_text
from shared.paths import paper_slugs, papers_root


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 good, 1 red, moved or stale, 2 bad input (one line on stderr)."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.function(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m shared.results", description="Look at results.")
    commands = parser.add_subparsers(required=True, metavar="command")

    summary = commands.add_parser("summary", help="verdict, claims and missing cells of a paper at a scale")
    summary.add_argument("slug")
    summary.add_argument("scale")
    summary.add_argument("--results", type=Path, default=Path("results"), help="results folder")
    summary.set_defaults(function=_summary)

    diff = commands.add_parser("diff", help="two runs, cell by cell; exit code 1 if a cell moved beyond its spread")
    diff.add_argument("a", help="results folder, a paper's folder, tables.json or a table as CSV")
    diff.add_argument("b", help="the same, of the other run")
    diff.add_argument("--paper", help="compare this paper only")
    diff.add_argument("--html", type=Path, help="write the difference as a page too")
    diff.set_defaults(function=_diff)

    board = commands.add_parser("board", help="all papers at a glance: board.html, board.md and board.json")
    board.add_argument("--results", type=Path, default=Path("results"), help="results folder")
    board.set_defaults(function=_board)

    readme = commands.add_parser("readme", help="make the results block of a paper's README from its stored summaries")
    readme.add_argument("slug")
    readme.add_argument("--from", dest="results", type=Path, help="first store the summaries of this results folder")
    readme.add_argument(
        "--picture",
        action="append",
        default=[],
        metavar="TITLE",
        help="with --from: show this figure, too",
    )
    readme.add_argument("--check", action="store_true", help="change nothing; exit code 1 if the block is stale")
    readme.add_argument("--papers", type=Path, default=papers_root(), help="folder of the papers")
    readme.set_defaults(function=_readme)
    return parser


def _summary(arguments: argparse.Namespace) -> int:
    from shared.results.claims import read_results
    from shared.results.markdown import GLYPHS
    from shared.results.verdict import judge_folder

    folder = arguments.results / arguments.slug / arguments.scale
    if not folder.is_dir() and arguments.slug not in paper_slugs():
        raise UserError(f"paper '{arguments.slug}' does not exist{nearest(arguments.slug, paper_slugs())}")
    found = judge_folder(folder)
    report = folder / "report.html"
    colour = "GREEN" if found.is_green else "RED"
    print(f"{arguments.slug} at {arguments.scale}: {colour}, {found.line}")
    for claim in read_results(folder / "claims.json"):
        if claim.level:
            seeds = f" [{claim.seeds_agree} of {claim.seeds_total} seeds]" if claim.seeds_total else ""
            why = f": {claim.reason}" if claim.reason else ""
            verdict = f"{GLYPHS[claim.status]} {claim.status:12} {claim.level:8}"
            print(f"  {verdict} {claim.id} {claim.text}{seeds}{why}")
    for reason in found.shown:
        print(f"  red: {reason}")
    print(f"report: {report if report.is_file() else 'not made yet'}")
    return 0 if found.is_green else 1


def _diff(arguments: argparse.Namespace) -> int:
    from shared.results import diff

    found = diff.difference(arguments.a, arguments.b, arguments.paper)
    print(diff.text(found))
    if arguments.html:
        write_text(arguments.html, diff.html(found, arguments.a, arguments.b))
    return 1 if found.moved else 0


def _board(arguments: argparse.Namespace) -> int:
    from shared.results import board

    if not arguments.results.is_dir():
        raise UserError(f"{arguments.results}: no such folder")
    board.run({"results": str(arguments.results), "output": str(arguments.results)})
    print(arguments.results / "board.html")
    return 0


def _readme(arguments: argparse.Namespace) -> int:
    from shared.results import readme

    paper = arguments.papers / arguments.slug
    if not paper.is_dir():
        raise UserError(f"{paper}: no such paper")
    if arguments.check:
        stale = [] if readme.is_fresh(paper) else [paper / "README.md"]
        if arguments.results:
            stale += readme.stale(arguments.results, paper)
        for path in stale:
            print(f"{path}: stale; run: python -m shared.results readme {arguments.slug}")
        return 1 if stale else 0
    if arguments.results:
        for path in readme.store(arguments.results, paper, arguments.picture):
            print(path)
    print(f"{paper / 'README.md'}: {'written' if readme.update(paper) else 'already fresh'}")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader such as `head` may have had enough
    sys.exit(main())
