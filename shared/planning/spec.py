"""The job file of table, claims, report and verdict: everything that they show, in plain values."""

from typing import TYPE_CHECKING, Any

from shared.config import Experiment, merge
from shared.paths import error_file, papers_root

if TYPE_CHECKING:
    from shared.planning.plan import Plan


def spec_of(plan: "Plan") -> dict[str, Any]:
    """The spec of a plan; `shared.results.spec` types it."""
    slug, config = plan.slug, plan.config
    own_figures = [f"papers.{slug}.figures:figures"] if (papers_root() / slug / "figures.py").is_file() else []
    return {
        "kind": "spec",
        "paper": slug,
        "scale": plan.scale,
        "title": config.title,
        "track": ", ".join(plan.tracks),
        "reference": plan.tracks[config.track].REFERENCE,
        "metrics": [metric.model_dump() for metric in plan.metrics.measured],
        "derived": [derived.model_dump() for derived in plan.metrics.derived],
        "sources": plan.metrics.sources,  # an edited function makes the tables again
        "published_data": config.published_data,
        "experiments": {name: _experiment(plan, name, x) for name, x in config.experiments.items()},
        "cells": [
            {
                "experiment": cell.experiment,
                "setting": cell.setting,
                "row": cell.row,
                "record": str(job.output),
                "error": str(error_file(job.output)),
            }
            for cell in plan.cells
            for job in cell.jobs
        ],
        "seeds": config.seeds.test,
        "published_csv": f"papers/{slug}/published.csv",
        "claims_yaml": f"papers/{slug}/claims.yaml",
        # the paper's own pictures first
        "figures": [*own_figures, *(track.FIGURES for track in plan.tracks.values())],
        "deviations": config.deviations,
        "output": str(plan.folder),
        "stages": sorted(str(job.output) for job in plan.stages.values()),
    }


def _experiment(plan: "Plan", name: str, experiment: Experiment) -> dict[str, Any]:
    settings = {
        key: {"label": s.label, "published": s.published, "enabled": s.enabled, "why_not": s.why_not}
        for key, s in experiment.settings.items()
    }
    shown = next((key for key, s in experiment.settings.items() if s.enabled), next(iter(settings)))
    rows = {}
    for key, row in experiment.rows.items():
        method, options = plan.resolver.row(name, shown, key)
        rows[key] = {
            "label": row.label or key,
            "published": row.published or key,
            "why_not": "" if row.enabled else row.why_not or "not run at this scale",
            "method": method,
            "options": options,
            "per_setting": _per_setting(experiment, row.per_setting),
        }
    return {
        "title": experiment.title,
        "study": experiment.study,
        "published_table": experiment.published_table,
        "settings": settings,
        "rows": rows,
        "metrics": experiment.metrics,
        "note": experiment.note,
        "seeds": experiment.seeds or plan.config.seeds.test,
    }


def _per_setting(experiment: Experiment, own: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Options of a row that differ in a setting, whether the row or the setting says so."""
    shared = {key: setting.options for key, setting in experiment.settings.items() if setting.options}
    return {key: merge(shared.get(key, {}), own.get(key, {})) for key in [*own, *(k for k in shared if k not in own)]}
