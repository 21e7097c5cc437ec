# Jobs that papers share: pulled data and stages (trained models, cached embeddings). One rule each, for all papers.
from shared import workflow as house
from shared.planning.stages import stage_inputs


rule pull:
    output:
        f"{house.data_folder()}/{{manifest}}/pulled.json",
    log:
        "results/logs/pull/{manifest}.log",
    wildcard_constraints:
        manifest="[a-z0-9_]+",
    retries: 1
    resources:
        mem_mb=2000,
        runtime=240,
    shell:
        "{house.PYTHON} -m shared.run pull {wildcards.manifest} > {log} 2>&1"


rule stage:
    input:
        unpack(stage_inputs),
    output:
        "results/stages/{digest}/record.json",
    log:
        "results/logs/stages/{digest}.log",
    wildcard_constraints:
        digest="[0-9a-f]{16}",
    priority: house.roots_first("results/stages/{digest}/record.json")
    threads: house.asked("threads", "results/stages/{digest}/record.json")
    resources:
        mem_mb=house.asked("memory_mb", "results/stages/{digest}/record.json"),
        runtime=house.asked("runtime_min", "results/stages/{digest}/record.json"),
        gpu=house.asked("gpu", "results/stages/{digest}/record.json"),
    shell:
        "{house.PYTHON} -m shared.run stage {input.job} --threads {threads} --gpus {resources.gpu} > {log} 2>&1"
