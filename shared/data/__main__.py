"""Data sets on the command line: list, pull, verify, digest."""

import argparse
import logging
import signal
import sys
from pathlib import Path

from shared.data.manifest import load_manifest, manifest_names
from shared.data.pull import data_root, pull, verify
from shared.data.verify import MARKER, content_digest, tree_entries
from shared.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit code. Bad input is one line on stderr and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m shared.data", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="all data sets, and which are pulled")
    for name, text in (
        ("pull", "fetch, verify and unpack"),
        ("verify", "read every pulled byte again"),
    ):
        commands.add_parser(name, help=text).add_argument("names", nargs="+", metavar="NAME")
    commands.add_parser("digest", help="content digest of a folder").add_argument("folder", type=Path)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        return _run(options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    if options.command == "list":
        for name in manifest_names():
            manifest = load_manifest(name)
            state = "pulled" if (data_root() / name / MARKER).exists() else "-"
            print(f"{name:20} {state:7} {manifest.licence:24.24} {manifest.title}")
    elif options.command == "digest":
        if not options.folder.is_dir():
            raise UserError(f"{options.folder} is no folder")
        entries = tree_entries(options.folder)
        num_bytes = sum((options.folder / path).stat().st_size for path in entries)
        print(f"{content_digest(entries)}  {len(entries)} files, {num_bytes} bytes")
    else:
        for name in options.names:
            print(pull(name) if options.command == "pull" else f"{name}: {verify(name)}")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # a reader such as `head` may have had enough
    sys.exit(main())
