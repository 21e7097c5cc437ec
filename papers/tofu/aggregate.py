"""`python -m papers.tofu.aggregate LOG [--retain LOG]`: the numbers of TOFU's tables from a per-question log."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import get_args

from shared.errors import UserError
from shared.metrics.text.truth_ratio import Kind
from shared.text.aggregate import UTILITY_SETS, aggregate
from shared.text.logs.log import SETS, EvalLog
from shared.text.logs.read import read_log

_TITLES = {"retain": "retain", "real_authors": "real authors", "world_facts": "world facts", "forget": "forget"}
_METRICS = {"probability": "Probability", "rouge_l_recall": "ROUGE-L recall", "truth_ratio": "Truth ratio"}
_SHOWN_APART = ("model_utility", "forget_quality", "log10_forget_quality", "ks_statistic")


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 good, 2 bad input (one line on stderr)."""
    arguments = _parser().parse_args(argv)
    try:
        print(_answer(arguments))
        return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m papers.tofu.aggregate",
        description="The nine numbers, model utility and forget quality from a per-question evaluation log: the "
        "paper's eval_log_aggregated.json (both versions) or OpenUnlearning's TOFU_EVAL.json, plain or xz.",
    )
    parser.add_argument("log", metavar="LOG", help="log of the model")
    parser.add_argument("--retain", metavar="LOG", help="log of the retain model, for forget quality")
    parser.add_argument(
        "--truth-ratio",
        choices=get_args(Kind),
        default="geometric",
        help="geometric: published numbers; arithmetic: the paper's formula",
    )
    parser.add_argument("--rows", type=int, metavar="N", help="first N rows of retain and forget set (paper: 300)")
    parser.add_argument(
        "--sets",
        nargs="+",
        choices=SETS,
        default=list(SETS),
        metavar="SET",
        help=f"question sets to use, of {', '.join(SETS)} (default: all); for logs that have fewer",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with null for what was not computed")
    return parser


def _answer(arguments: argparse.Namespace) -> str:
    sets = [name for name in SETS if name in (*arguments.sets, "forget")]
    log = read_log(arguments.log, sets)
    # Of the retain model only the forget answers are compared; its log may have nothing else.
    retain = read_log(arguments.retain, ["forget"]) if arguments.retain else None
    utility_sets = [name for name in UTILITY_SETS if name in sets]
    if not utility_sets:
        raise UserError(f"--sets: model utility needs one of {', '.join(UTILITY_SETS)}")
    values = aggregate(
        log, retain, truth_ratio=arguments.truth_ratio, num_rows=arguments.rows, utility_sets=utility_sets
    )
    if arguments.json:
        return json.dumps({**dict.fromkeys(_SHOWN_APART), **values}, indent=1, allow_nan=False)
    return "\n".join(_lines(values, log, retain, arguments.truth_ratio, [*utility_sets, "forget"]))


def _lines(
    values: dict[str, float], log: EvalLog, retain: EvalLog | None, kind: str, names: Sequence[str]
) -> list[str]:
    convention = f"{kind} truth ratio" + (f", {log.epsilon:g} in denominators" if log.epsilon else "")
    lines = [f"{log.source} ({convention})", "", f"{'':16}" + "".join(f"{_TITLES[name]:>14}" for name in names)]
    for metric, title in _METRICS.items():
        lines.append(f"{title:16}" + "".join(f"{values[f'{metric}_{name}']:14.8f}" for name in names))
    terms = 3 * (len(names) - 1)
    lines += ["", f"Model utility       {values['model_utility']:.8f}   (harmonic mean of {terms})"]
    lines.append(f"Forget truth ratio  {values['truth_ratio_forget']:.8f}")
    if retain is None:
        lines.append("Forget quality      not computed (give the retain model's log with --retain)")
    else:
        lines.append(
            f"Forget quality      p = {values['forget_quality']:.7e}, log10 p = {values['log10_forget_quality']:.6f}, "
            f"D = {values['ks_statistic']:.6f} against {retain.source}"
        )
    shown = {f"{metric}_{name}" for metric in _METRICS for name in names} | set(_SHOWN_APART)
    return lines + [f"{name:19} {value:.8f}" for name, value in values.items() if name not in shown]


if __name__ == "__main__":
    sys.exit(main())
