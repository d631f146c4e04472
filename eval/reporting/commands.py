"""Write the command line that measures a row of the report again, into a file of its own."""

import shlex

from eval.reporting.tables import SCALE
from eval.schema import Record

RESULTS = "outputs/results.json"
# Options of eval.report --only, and the sections of a record that each measures.
MEASURED = {
    "size": "size",
    "latency": "latency",
    "throughput": "throughput",
    "distance": "frechet_distance",
    "quality": "quality",
    "nouns": "nouns",
    "clip": "clip",
    "outside": "outside",
}


def report_command(records: dict[str, Record], name: str) -> str:
    """Write the command line of eval.report that measures the sections of a row.

    FOLDER stands for a model outside `checkpoints/`, DIR for CIFAR-10. The rows for scale are measured beside any
    model; the command takes the first shipped one, whose autoencoder is that of the reconstructions. The distance is
    the judge's. Samples of all sections are drawn in one dtype, that of the distance.
    """
    record = records[name]
    options = []
    if name in SCALE:
        options += ["--models", min(row for row in records if records[row].shipped)]
    elif record.peer is not None:
        options += ["--peers", name]
    else:
        options += ["--models", name if record.shipped else f"{name}=FOLDER"]
    if name not in SCALE:
        options += _sampling(record)
    options += ["--only", ",".join(option for option, section in MEASURED.items() if getattr(record, section))]
    if record.latency:
        options += ["--threads", str(record.latency.protocol.threads)]
    if record.throughput:
        options += ["--batch-sizes", *(str(batch.protocol.batch_size) for batch in record.throughput.batches)]
    if record.outside:
        options += ["--n-outside", str(record.outside.n)]
    if record.frechet_distance or record.quality or record.nouns or record.clip or record.outside:
        options += ["--data", "DIR"]
    return f"python -m eval.report {shlex.join(options)} --results {RESULTS} --no-insert"


def _sampling(record: Record) -> list[str]:
    """List the options that draw a record's samples."""
    options = []
    if of_classes := record.frechet_distance or record.quality or record.clip:
        options += ["--n", str(of_classes.n)]
    if record.nouns:
        options += ["--n-nouns", str(record.nouns.n)]
    if drawn := of_classes or record.nouns or record.outside:
        options += ["--dtype", drawn.samples.dtype or "fp32", *(["--compile"] if drawn.samples.compiled else [])]
    return options
