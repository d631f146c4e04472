"""Draw one prompt from one noise with several models in turn, the cheapest first."""

import json
import threading
from collections.abc import Iterator

from eval.reporting.tables import BASELINE
from mobilediff.demo.service.drawing import Noise, draw, png_uri
from mobilediff.demo.service.inputs import check_count, check_prompt, check_seed
from mobilediff.demo.service.models import Model, Models
from mobilediff.demo.service.settings import OWN_SETTINGS, Settings


def _figures(model: Model, options: dict) -> dict:
    """Describe a model in a call with these options; `options` stay in the record."""
    nfe = model.pipeline.nfe(**options)
    return {
        "model_sha256": model.sha256,
        "nfe": nfe,
        "params": model.params,
        "macs": model.macs,
        "options": options,
        "figures": [f"NFE {nfe}", f"{model.params / 1e6:.3g} M params", f"{model.macs / 1e9:.3g} GMACs"],
    }


def add_speeds(records: list[dict]) -> None:
    """Write into each record how many times as fast as the teacher its call was, if the teacher drew as well."""
    times = {record["name"]: record["latency_ms"] for record in records if record["status"] == "done"}
    for name in set(times) - {BASELINE} if BASELINE in times else ():
        (record,) = [record for record in records if record["name"] == name]
        ratio = record["times_faster"] = times[BASELINE] / times[name]
        record["speed"] = f"{ratio:,.{0 if ratio >= 10 else 1}f} times as fast as the {BASELINE}"


def add_quality(records: list[dict], quality: dict[str, list[str]]) -> None:
    """Write a model's measured quality into its record, if it drew with its own settings, as it was measured."""
    for record in records:
        if not record.get("options"):
            record["quality"] = quality.get(record.get("model_sha256", ""), [])


def compare(
    models: Models,
    chosen: object,
    prompt: object,
    seed: object,
    count: object,
    cancelled: threading.Event,
    noise: Noise | None = None,
    settings: Settings = OWN_SETTINGS,
) -> Iterator[tuple[list[dict], str]]:
    """Draw one prompt with each chosen model in turn, until another thread sets `cancelled`; `noise` as for `draw`.

    Yields:
        One record a model (figures, status, latency, images as data URIs and times faster than the teacher once
        done), and the pipelines' warnings about the prompt, one a line; each time a model starts, and at the end.

    Raises:
        ValueError: bad input, named with the accepted.
    """
    names = models.choose(chosen)
    first = models.get(names[0])
    prompt, seed, count = check_prompt(prompt, first.pipeline.tokenizer), check_seed(seed), check_count(count)
    options = {name: settings.options(models.get(name)) for name in names if models.is_loaded(name)}
    records = [
        {
            "name": name,
            "prompt": prompt,
            "seed": seed,
            "status": "waiting",
            "time": "waiting",
            "latency_ms": None,
            "batch_size": count,
            "images": [],
            **(_figures(models.get(name), options[name]) if name in options else {"figures": []}),
        }
        for name in names
    ]
    notes: dict[str, None] = dict.fromkeys(first.pipeline.prompt_warnings(prompt))
    for record in records:
        record["status"] = "running"
        record["time"] = "running …" if models.is_loaded(record["name"]) else "loading …"
        yield json.loads(json.dumps(records)), "\n".join(notes)  # a copy: records go on changing
        try:
            model = models.get(record["name"])
            record |= _figures(model, settings.options(model))
        except ValueError as error:  # it was not yet loaded when it was chosen: it is broken, or takes other steps
            record |= {"status": "failed", "time": str(error)}
            continue
        notes |= dict.fromkeys(model.pipeline.prompt_warnings(prompt))
        drawing = draw(model, prompt, seed, count, cancelled, noise, **record["options"])
        if drawing.problem is None:
            record |= {
                "status": "done",
                "time": f"{drawing.latency_ms:,.0f} ms for {count} image{'s' if count > 1 else ''}",
                "latency_ms": drawing.latency_ms,
                "images": [png_uri(image) for image in drawing.images],
            }
        else:
            record |= {"status": "failed", "time": drawing.problem}
    add_speeds(records)
    yield records, "\n".join(notes)
