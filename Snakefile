# Table of contents: one module a paper, a target for each, all of them, and the board.
#
#     snakemake --cores 8 salun                          mini scale: minutes on a laptop
#     snakemake --cores 8 --config scale=full salun      the paper's own scale
#     snakemake --profile workflows/profiles/slurm salun
from snakemake.utils import min_version

from shared import workflow as house
from shared.paths import paper_slugs

min_version("9.10")

SCALE = config.get("scale", "mini")
if workflow.is_main_process:
    ALIVE = house.clear_stale_lock()
    house.keep_imports_warm()


rule all:
    input:
        [house.verdict_path(slug, SCALE) for slug in paper_slugs()],
    default_target: True


include: "workflows/stages.smk"


for slug in paper_slugs():
    prefix = f"{slug}_"

    module:
        name:
            slug
        snakefile:
            f"papers/{slug}/Snakefile"
        config:
            config

    use rule * from slug as prefix*

    rule:
        name:
            slug
        input:
            house.verdict_path(slug, SCALE),


rule board:
    output:
        json="results/board.json",
        html="results/board.html",
        markdown="results/board.md",
    log:
        "results/logs/board.log",
    shell:
        "{house.PYTHON} -m shared.run board > {log} 2>&1"


onerror:
    house.report_what_is_there()
