"""Tabulate the report's records as Markdown, cost and quality, with a legend."""

from eval.extractors.judge import JUDGE

BASELINE = "teacher"  # of the speeds
NOISE_STD = 0.1  # of the damaged images, as a fraction of the range 0..1
REAL, RECONSTRUCTED, DAMAGED = SCALE = (
    "CIFAR-10 test",
    "CIFAR-10 test, through the VAE",
    f"CIFAR-10 test, noise {NOISE_STD}",
)
IMAGE_COSTS = (
    ("macs_image", "MACs, image (M)", lambda macs: f"{macs / 1e6:,.0f}"),
    ("weights_bytes", "weights (MB)", lambda size: f"{size / 1e6:.1f}"),
    ("nfe", "NFE", str),
)


def figures(record: dict) -> dict[str, dict[str, str]]:
    """Format a record's figures for the two tables, "cost" and "quality", by column title.

    Sections that were not measured have no columns. Where sections have different numbers of samples, `n` lists them
    in the order of the columns.
    """
    cost, quality = {}, {}
    if size := record.get("size"):
        cost["params (M)"] = f"{size['params_total'] / 1e6:.2f}"
        cost["of these, network (M)"] = f"{size['params_unet'] / 1e6:.2f}"
        cost["MACs, network call (M)"] = f"{size['macs_network_call'] / 1e6:,.0f}"
        for key, title, form in IMAGE_COSTS:
            if key in size:  # a peer may be timed by its network call alone, and has no file
                cost[title] = form(size[key])
    if latency := record.get("latency"):
        for part, title in (("network_call", "network call (ms)"), ("image", "image (ms)")):
            if part in latency:
                cost[title] = f"{latency[part]['median_ms']:.1f} / {latency[part]['p90_ms']:.1f}"
        if "times_faster" in latency:
            cost[f"times faster than {latency['baseline']}"] = f"{latency['times_faster']:.1f}"
    if throughput := record.get("throughput"):
        largest = throughput["batches"][-1]
        size, image = largest["protocol"]["batch_size"], largest["image"]
        cost[f"images/s, batch {size}"] = f"{image['images_per_second']:.1f}"
        cost[f"peak memory, batch {size} (MB)"] = f"{image['peak_memory_bytes'] / 1e6:.0f}"
    sections = [record[name] for name in ("frechet_distance", "nouns", "clip", "quality") if name in record]
    if sections:
        quality["n"] = " / ".join(dict.fromkeys(f"{section['n']:,}" for section in sections))
    if distance := record.get("frechet_distance"):
        quality["Fréchet distance"] = with_interval(distance, "frechet_distance_judge", "{:.2f}")
        quality["class accuracy"] = with_interval(distance, "class_accuracy", "{:.1%}")
    for section in (section for name, section in record.items() if name.startswith("frechet_distance ")):
        quality[section["label"]] = with_interval(section, section["figure"], "{:.2f}")
    if nouns := record.get("nouns"):
        for key, title in (("noun_top1", "noun top-1"), ("noun_top5", "noun top-5")):
            quality[title] = with_interval(nouns, key, "{:.1%}")
    if clip := record.get("clip"):
        quality["CLIP score"] = with_interval(clip, "clip_score", "{:.2f}")
    if features := record.get("quality"):
        quality["kernel distance"] = with_interval(features, "kernel_distance_mean", "{:.3f}")
        for name in ("precision", "recall", "density", "coverage"):
            quality[name] = f"{features[name]:.3f}"
        if "seed_distance" in features:
            quality["seed distance"] = f"{features['seed_distance']:.2f}"
        quality["near copies"] = f"{features['copies']['copy_fraction']:.1%}"
    return {"cost": cost, "quality": quality}


def with_interval(section: dict, key: str, form: str) -> str:
    """Format a figure and, where it has one, its confidence interval."""
    text = form.format(section[key])
    if interval := section.get("intervals", {}).get(key):
        text += f" ({form.format(interval['low'])} to {form.format(interval['high'])})"
    return text


def table(records: dict[str, dict]) -> str:
    """Tabulate all records and explain the columns: models by cost, then peers, the rows for scale last."""
    rows = ordered(records)
    tables = [one_table(kind, rows, records) for kind in ("cost", "quality")]
    return "\n".join([*tables, *legend([records[name] for name in rows])])


def ordered(records: dict[str, dict]) -> list[str]:
    """List the names of the records that have figures, in the order of the tables."""
    return sorted(
        (name for name, record in records.items() if "figures" in record),
        key=lambda name: (
            SCALE.index(name) if name in SCALE else -1,
            "peer" in records[name],
            -records[name].get("size", {}).get("macs_image", 0),
        ),
    )


def shipped_models(records: dict[str, dict]) -> list[str]:
    """List the models whose weights are in `checkpoints/`, in the order of the tables."""
    return [name for name in ordered(records) if records[name].get("shipped")]


def one_table(kind: str, rows: list[str], records: dict[str, dict]) -> str:
    """Tabulate the rows that have figures of a kind, and add an empty line."""
    rows = [name for name in rows if records[name]["figures"][kind]]
    columns = list(dict.fromkeys(title for name in rows for title in records[name]["figures"][kind]))
    if not columns:
        return ""
    lines = []
    for name in rows:
        note = "" if records[name].get("shipped", True) else " (its weights are not in `checkpoints/`)"
        note = " (random weights)" if "peer" in records[name] else note
        shown = records[name]["figures"][kind]
        lines.append([name + note, *(shown.get(title, "") for title in columns)])
    return markdown_table(["", *columns], lines) + "\n"


def markdown_table(titles: list[str] | tuple[str, ...], rows: list[list[str]]) -> str:
    """Lay out a Markdown table, the first column left-aligned, the others right-aligned."""
    lines = [
        "|".join(["", *(f" {title} " if title else " " for title in titles), ""]),
        "|---|" + "---:|" * (len(titles) - 1),
    ]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def legend(records: list[dict]) -> list[str]:
    """Explain the columns, from the protocols in the records."""
    lines = []
    if timed := [record["latency"] for record in records if "latency" in record]:
        protocol = timed[0]["protocol"]
        lines.append(
            f"Latency: batch {protocol['batch_size']}, {protocol['dtype']}, {protocol['threads']} threads of "
            f"{protocol['device_name']}, torch {protocol['versions']['torch']}, median / 90th percentile, of "
            f"{protocol['timed']}, the models taking turns; network "
            "call is one sample without guidance, image is the whole pipeline at its default steps and guidance. The "
            f"machine's matrix product reaches {protocol['matrix_peak_fp32_gflops']:.0f} GFLOP/s in fp32 and "
            f"{protocol['matrix_peak_bf16_gflops']:.0f} in bf16."
        )
    if batches := [record["throughput"]["batches"][-1] for record in records if "throughput" in record]:
        protocol = batches[0]["protocol"]
        lines.append(
            f"At batch {protocol['batch_size']}: the whole pipeline in {protocol['dtype']}, median of "
            f"{protocol['rounds']} runs or more; peak memory: allocated by a call beyond the weights."
        )
    if sources := sorted({record["peer"] for record in records if "peer" in record}):
        lines.append(
            f"Random weights: built from the public configuration of {', '.join(sources)}, since time does not depend "
            "on the weights."
        )
    if measured := [record["frechet_distance"] for record in records if "frechet_distance" in record]:
        protocol = measured[0]["protocol"]
        lines.append(
            f"Fréchet distance: features of {JUDGE} ({protocol['extractor_sha256'][:12]}), not FID, against "
            f"{protocol['reference']} (n = {protocol['reference_n']:,}); lower is better, the floor (test set against "
            f"training set) is {measured[0]['floor']:.2f}. Class accuracy: of the same classifier. In brackets: 95 % "
            "intervals by bootstrap over the samples."
        )
    sampled = [record for record in records if "dtype" in record.get("frechet_distance", {}).get("samples", {})]
    if sampled:
        ways = {}
        for record in sampled:
            samples = record["frechet_distance"]["samples"]
            way = f"{samples['dtype']} under torch.compile" if samples.get("compiled") else samples["dtype"]
            ways.setdefault(way, []).append(record["model"])
        drawn = "; ".join(f"{way}: {', '.join(models)}" for way, models in ways.items())
        lines.append(f"Samples: the classes' prompts in turn, one seed an image, drawn in {drawn}.")
    if nouns := [record["nouns"] for record in records if "nouns" in record]:
        lines.append(
            f"Noun top-1 and top-5: the noun is the first, or one of the first five, of the {nouns[0]['nouns']} that "
            "the same classifier knows; on samples of prompts that have each noun as often as the test images do."
        )
    if sets := [record["quality"] for record in records if "quality" in record]:
        first, copies = sets[0], sets[0]["copies"]
        lines.append(
            "Of the same features, at equal numbers of samples and training images: kernel distance "
            f"({first['subsets']} subsets), precision, recall, density and coverage (k = {first['neighbours']}); seed "
            "distance, the mean between samples of one prompt; near copies, the fraction of the first "
            f"{copies['n']:,} samples that are nearer to "
            f"one of {copies['n_training']:,} training images than all but {copies['copy_percentile']:.0f} % of the "
            "test images are."
        )
    if scored := [record["clip"] for record in records if "clip" in record]:
        protocol, template = scored[0]["protocol"], scored[0]["samples"]["template"]
        lines.append(f'CLIP score: {protocol["clip_model"]}, cosine x 100, prompts "{template}".')
    return [line for pair in zip(lines, [""] * len(lines), strict=True) for line in pair][:-1]
