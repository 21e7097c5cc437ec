"""Which stages begin first."""

from pathlib import Path
from types import SimpleNamespace

from shared import workflow
from shared.planning.plan import Plan


def test_models_that_are_trained_from_scratch_begin_first(monkeypatch):
    plan = Plan("salun", "mini_generation")
    jobs = {str(job.output): job for job in plan.stages.values()}
    monkeypatch.setattr(workflow, "_jobs", jobs)
    priority = workflow.roots_first("results/stages/{digest}/record.json")

    def of(digest):
        return priority(SimpleNamespace(items=lambda: {"digest": digest}.items()))

    kinds = {}
    for output, job in jobs.items():
        kinds.setdefault(job.content["recipe"]["stage"], set()).add(of(Path(output).parent.name))
    assert kinds == {"model": {1}, "classifier": {1}, "retrained": {1}, "erased": {0}}
    assert of("0" * 16) == 0  # as on a cluster node, where no plan is known
