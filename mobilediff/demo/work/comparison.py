"""Draw one prompt from one noise with several models in turn, the cheapest first."""

import json
import threading
from collections.abc import Iterator

from mobilediff.demo.work.drawing import Noise, draw, png_uri
from mobilediff.demo.work.inputs import check_count, check_prompt, check_seed
from mobilediff.demo.work.models import Model, Models


def _figures(model: Model) -> dict:
    return {
        "model_sha256": model.sha256,
        "nfe": model.nfe,
        "params": model.params,
        "macs": model.macs,
        "figures": [f"NFE {model.nfe}", f"{model.params / 1e6:.3g} M params", f"{model.macs / 1e9:.3g} GMACs"],
    }


def compare(
    models: Models,
    chosen: object,
    prompt: object,
    seed: object,
    count: object,
    cancelled: threading.Event,
    noise: Noise | None = None,
) -> Iterator[tuple[list[dict], str]]:
    """Draw one prompt with each chosen model in turn, until another thread sets `cancelled`; `noise` as for `draw`.

    Yields:
        One record a model (figures, status, latency and images as data URIs once done), and the pipelines' warnings
        about the prompt, one a line; each time a model starts, and at the end.

    Raises:
        ValueError: bad input, named with the accepted.
    """
    names = models.choose(chosen)
    first = models.get(names[0])
    prompt, seed, count = check_prompt(prompt, first.pipeline.tokenizer), check_seed(seed), check_count(count)
    records = [
        {
            "name": name,
            "status": "waiting",
            "time": "waiting",
            "latency_ms": None,
            "batch_size": count,
            "images": [],
            **(_figures(models.get(name)) if models.is_loaded(name) else {"figures": []}),
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
        except ValueError as error:  # it is broken, and was not yet loaded when it was chosen
            record |= {"status": "failed", "time": str(error)}
            continue
        notes |= dict.fromkeys(model.pipeline.prompt_warnings(prompt))
        drawing = draw(model, prompt, seed, count, cancelled, noise)
        record |= _figures(model)
        if drawing.problem is None:
            record |= {
                "status": "done",
                "time": f"{drawing.latency_ms:,.0f} ms for {count} image{'s' if count > 1 else ''}",
                "latency_ms": drawing.latency_ms,
                "images": [png_uri(image) for image in drawing.images],
            }
        else:
            record |= {"status": "failed", "time": drawing.problem}
    yield records, "\n".join(notes)
