"""Write the README's first screen: the claim in a sentence, the shipped models in a table."""

import textwrap

from eval.reporting.tables import BASELINE, REAL, markdown_table, shipped_models, with_interval

CLAIMED = "student-1step"
COLUMNS = (
    "network calls an image",
    "weights (MB)",
    "image (ms)",
    "times faster",
    "Fréchet distance",
    "class accuracy",
)


def claim(records: dict[str, dict]) -> str:
    """State steps, megabytes, milliseconds and speed-up of the one-step student.

    Raises:
        ValueError: a figure in it has not been measured.
    """
    size, latency = section(records, CLAIMED, "size"), timing(records, CLAIMED)
    baseline = section(records, BASELINE, "size")
    steps = {1: "one step"}.get(size["num_inference_steps"], f"{size['num_inference_steps']} steps")
    text = (
        f"mobilediff draws a 32 x 32 picture from a prompt in {steps}: {size['weights_bytes'] / 1e6:.1f} MB of "
        f"weights, {latency['image']['median_ms']:.1f} ms on {processor(latency['protocol'])}, "
        f"{latency['times_faster']:.0f} times faster than its {latency['baseline']} in "
        f"{baseline['num_inference_steps']} steps, all of it trained on CIFAR-10 alone."
    )
    return textwrap.fill(text, 119)


def headline(records: dict[str, dict]) -> str:
    """Tabulate the shipped models in six columns, and explain the columns and samples below.

    Raises:
        ValueError: a figure in it has not been measured.
    """
    names = shipped_models(records)
    sizes = [section(records, name, "size") for name in names]
    timings = [timing(records, name) for name in names]
    distances = [section(records, name, "frechet_distance") for name in names]
    rows = [cells(*row) for row in zip(sizes, timings, distances, strict=True)]
    table = markdown_table(("checkpoint", *COLUMNS), [[name, *row] for name, row in zip(names, rows, strict=True)])
    distance, real = distances[0], section(records, REAL, "frechet_distance")
    protocol = timings[0]["protocol"]
    meanings = (
        "at the default steps; a guided step makes two.",
        "text encoder, network and decoder, on disk.",
        f"median of the whole pipeline, batch {protocol['batch_size']}, {protocol['dtype']}, on "
        f"{processor(protocol)}; the embeddings of the prompt are kept from a call before.",
        f"than the {BASELINE}, all models taking turns on one machine.",
        f"of the features of this project's own classifier against {distance['protocol']['reference']}, not FID; "
        f"lower is better, the test images have {distance['floor']:.2f}.",
        "samples that this classifier takes for the class asked for; of the test images "
        f"{real['class_accuracy']:.1%}.",
    )
    legend = [f"- **{column}**: {meaning}" for column, meaning in zip(COLUMNS, meanings, strict=True)]
    return "\n".join([table, "", *legend, "", sample_counts(names, distances)])


def section(records: dict[str, dict], name: str, key: str) -> dict:
    """Get a section of a record.

    Raises:
        ValueError: it has not been measured.
    """
    if key not in records.get(name, {}):
        raise ValueError(f"{name} has no {key}: measure it with python -m eval.report")
    return records[name][key]


def timing(records: dict[str, dict], name: str) -> dict:
    """Get the latencies of a model that was timed beside the teacher; errors as in `section`."""
    latency = section(records, name, "latency")
    if "times_faster" not in latency:
        raise ValueError(f"{name} was not timed beside the {BASELINE}: give eval.report both in --models")
    return latency


def processor(protocol: dict) -> str:
    """Name the threads and the processor of a timing, without trade marks."""
    return f"{protocol['threads']} threads ({protocol['device_name'].replace('(R)', '')})"


def cells(size: dict, latency: dict, distance: dict) -> list[str]:
    """Format the six columns of one model."""
    return [
        str(size["nfe"]),
        f"{size['weights_bytes'] / 1e6:.1f}",
        f"{latency['image']['median_ms']:.1f}",
        f"{latency['times_faster']:.1f}",
        with_interval(distance, "frechet_distance_judge", "{:.2f}"),
        with_interval(distance, "class_accuracy", "{:.1%}"),
    ]


def sample_counts(names: list[str], distances: list[dict]) -> str:
    """State the number of samples of the rows, and each row that has another."""
    counts = [distance["n"] for distance in distances]
    common = max(counts, key=lambda count: (counts.count(count), count))
    others = [f"{name} {count:,}" for name, count in zip(names, counts, strict=True) if count != common]
    exceptions = f" but {', '.join(others)}: the distance of fewer samples is biased upward" if others else ""
    return f"{common:,} samples a row{exceptions}. 95% bootstrap intervals in brackets."
