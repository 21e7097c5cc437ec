# The pipeline of one paper: rows -> tables -> claims -> report -> verdict. One rule for each kind of job and nothing
# else; what a job does is `python -m shared.run`. A paper's Snakefile sets `slug`, includes this file and asks for
# VERDICT. Tables, claims and report take seconds and run where the engine runs; their marks under done/ tell a finished
# file from one that was made after a failure, from what was there.
from shared import workflow as house

HERE = f"results/{slug}"
VERDICT = house.verdict_path(slug, config.get("scale", "mini"))
# As a module of the top-level Snakefile, a paper finds the shared rules there; run alone, it brings them itself.
ALONE = workflow.modifier.is_main_snakefile()

if ALONE:

    include: "stages.smk"

    ALIVE = house.begin(workflow.is_main_process)

    onstart:
        if workflow.local_exec:
            house.start_early()

    onerror:
        house.report_what_is_there()


rule verdict:
    input:
        spec=house.spec_path(slug),
        report=f"{HERE}/{{scale}}/report.html",
        done=f"{HERE}/{{scale}}/done/report",
    output:
        f"{HERE}/{{scale}}/verdict.json",
    log:
        f"{HERE}/{{scale}}/logs/verdict.log",
    wildcard_constraints:
        scale="[^/]+",
    localrule: True
    shell:
        "{house.PYTHON} -m shared.run verdict {input.spec} > {log} 2>&1"


rule row:
    input:
        unpack(house.row_inputs(slug)),
    output:
        f"{HERE}/{{scale}}/records/{{name}}.json",
    log:
        f"{HERE}/{{scale}}/logs/{{name}}.log",
    wildcard_constraints:
        scale="[^/]+",
    threads: house.asked("threads", f"{HERE}/{{scale}}/records/{{name}}.json")
    resources:
        mem_mb=house.asked("memory_mb", f"{HERE}/{{scale}}/records/{{name}}.json"),
        runtime=house.asked("runtime_min", f"{HERE}/{{scale}}/records/{{name}}.json"),
        gpu=house.asked("gpu", f"{HERE}/{{scale}}/records/{{name}}.json"),
    shell:
        "{house.PYTHON} -m shared.run row {input.job} --threads {threads} --gpus {resources.gpu} > {log} 2>&1"


rule table:
    input:
        unpack(house.table_inputs(slug)),
    output:
        tables=f"{HERE}/{{scale}}/tables.json",
        done=touch(f"{HERE}/{{scale}}/done/table"),
    log:
        f"{HERE}/{{scale}}/logs/table.log",
    wildcard_constraints:
        scale="[^/]+",
    localrule: True
    shell:
        "{house.PYTHON} -m shared.run table {input.spec} > {log} 2>&1"


rule claims:
    input:
        spec=house.spec_path(slug),
        tables=f"{HERE}/{{scale}}/tables.json",
        done=f"{HERE}/{{scale}}/done/table",
        claims=house.shown(house.ROOT / "papers" / slug / "claims.yaml"),
    output:
        claims=f"{HERE}/{{scale}}/claims.json",
        done=touch(f"{HERE}/{{scale}}/done/claims"),
    log:
        f"{HERE}/{{scale}}/logs/claims.log",
    wildcard_constraints:
        scale="[^/]+",
    localrule: True
    shell:
        "{house.PYTHON} -m shared.run claims {input.spec} > {log} 2>&1"


rule report:
    input:
        spec=house.spec_path(slug),
        tables=f"{HERE}/{{scale}}/tables.json",
        claims=f"{HERE}/{{scale}}/claims.json",
        done=f"{HERE}/{{scale}}/done/claims",
    output:
        html=f"{HERE}/{{scale}}/report.html",
        markdown=f"{HERE}/{{scale}}/report.md",
        done=touch(f"{HERE}/{{scale}}/done/report"),
    log:
        f"{HERE}/{{scale}}/logs/report.log",
    wildcard_constraints:
        scale="[^/]+",
    localrule: True
    shell:
        "{house.PYTHON} -m shared.run report {input.spec} > {log} 2>&1"


rule tune:
    input:
        unpack(house.tune_inputs(slug)),
    output:
        f"{HERE}/{{scale}}/tuned.json",
    log:
        f"{HERE}/{{scale}}/logs/tune.log",
    wildcard_constraints:
        scale="[^/]+",
    shell:
        "{house.PYTHON} -m shared.run tune {input.spec} > {log} 2>&1"
