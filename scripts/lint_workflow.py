"""Snakemake's own linter over the whole workflow; red on any advice that is not answered here."""

import re
import subprocess
import sys

# Advice that does not fit this workflow -> why.
ANSWERED = {
    "Specify a conda environment or container for each rule.": (
        "all rules share one environment, pinned with digests in requirements.lock"
    ),
    "Shell command directly uses variable house from outside of the rule": (
        "house.PYTHON is the interpreter that runs the workflow: neither a file nor a parameter"
    ),
}


def main() -> int:
    """Print unanswered advice with its rule. Returns 1 if there is any, 2 if linting failed."""
    # The text form, because `--lint json` prints text as well (Snakemake 9.27).
    command = [sys.executable, "-m", "snakemake", "--lint"]
    done = subprocess.run(command, capture_output=True, text=True)
    printed = done.stdout + done.stderr
    where, unanswered, answered = "", [], 0
    for line in printed.splitlines():
        if heading := re.match(r"Lints for (.+):$", line):
            where = heading[1]
        elif advice := re.match(r" {4}\* (.+):$", line):
            answered += advice[1] in ANSWERED
            if advice[1] not in ANSWERED:
                unanswered.append(f"{where}: {advice[1]}")
    if done.returncode != 0 and not unanswered and not answered:
        print(printed, file=sys.stderr)
        return 2
    print(*unanswered, sep="\n", end="\n" if unanswered else "")
    print(f"snakemake --lint: {len(unanswered)} open, {answered} answered in {__file__}")
    return int(bool(unanswered))


if __name__ == "__main__":
    sys.exit(main())
