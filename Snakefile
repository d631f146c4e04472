# Trains the whole family: mobilediff/training/graph.yaml says of which stages, mobilediff/training/tools/graph.py how.
#
#   snakemake --cores all                       train what is missing or out of date; an interrupted run resumes
#   snakemake --cores all --dry-run             the plan: images and minutes of every stage
#   snakemake --cores all --config trial=true   three steps of every stage, into runs/trial
#
# --config launcher="accelerate launch --num_processes 4" runs each stage on several processes. The checkpoints are in
# runs/checkpoints, or runs/trial/checkpoints.

import sys

sys.path.insert(0, workflow.basedir)

from mobilediff.training.tools.graph import TRIAL_SUFFIX, load_graph

NODES, CHECKPOINTS = load_graph()
TRIAL = bool(config.get("trial", False))
RUNS = "runs/trial" if TRIAL else "runs"
SUFFIX = TRIAL_SUFFIX if TRIAL else ""
PYTHON = sys.executable
LAUNCHER = config.get("launcher", PYTHON)


def done(run):
    return f"{RUNS}/{run}{SUFFIX}/.done"


def exported(checkpoint):
    return f"{RUNS}/checkpoints/.{checkpoint}.done"


rule family:
    input: [exported(name) for name in CHECKPOINTS], done("classifier-judge")
    localrule: True


for node in NODES.values():
    rule:
        name: node.name
        input: [done(parent) for parent in node.parents], config=str(node.config_file)
        output: touch(done(node.name))
        threads: workflow.cores
        message: f"{node.name}: a trial of three steps" if TRIAL else node.plan()
        params: command=node.command(RUNS, SUFFIX)
        shell: f"{LAUNCHER} {{params.command}}"

for checkpoint in CHECKPOINTS.values():
    rule:
        name: f"export-{checkpoint.name}"
        input: [done(parent) for parent in checkpoint.parents]
        output: touch(exported(checkpoint.name))
        message: f"export {checkpoint.name}"
        params: command=checkpoint.command(RUNS, f"{RUNS}/checkpoints", SUFFIX)
        shell: f"{PYTHON} {{params.command}}"
