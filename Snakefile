# Table of contents: one module a paper, a target for each, all of them, and the board.
#
#     snakemake salun --cores 8                                   # mini: a minute on a laptop
#     snakemake salun --cores 8 --config scale=full               # the paper's own scale
#     snakemake salun --profile workflows/profiles/slurm          # on a cluster
from snakemake.utils import min_version

from shared import workflow as house
from shared.paths import paper_slugs

min_version("9.10")

SCALE = config.get("scale", "mini")
ALIVE = house.begin(workflow.is_main_process)


rule all:
    default_target: True
    input:
        [house.verdict_path(slug, SCALE) for slug in paper_slugs()],


include: "workflows/stages.smk"


for slug in paper_slugs():
    prefix = f"{slug}_"

    module:
        name: slug
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
    input:
        house.board_inputs,
    output:
        json="results/board.json",
        html="results/board.html",
        markdown="results/board.md",
    log:
        "results/logs/board.log",
    shell:
        "{house.PYTHON} -m shared.run board > {log} 2>&1"


onstart:
    if workflow.local_exec:
        house.start_early()


onerror:
    house.report_what_is_there()
