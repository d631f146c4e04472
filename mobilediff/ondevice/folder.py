"""A checkpoint's graphs, noun table, tokenizer, manifest and README, written as one folder."""

import json
from importlib.metadata import version
from pathlib import Path

from mobilediff.files import atomic_folder, replaceable_folder, write_json
from mobilediff.ondevice.calibration import calibration_inputs
from mobilediff.ondevice.difference import measure_parity
from mobilediff.ondevice.exported import TOKENIZER, ExportedPipeline
from mobilediff.ondevice.formats import check_precision, check_text_widths, load_format
from mobilediff.ondevice.graphs import Graph, build_graphs, check_control, check_exportable, is_fused, schedule
from mobilediff.ondevice.manifest import (
    MANIFEST,
    Format,
    GraphEntry,
    Manifest,
    Nouns,
    Plan,
    Precision,
    TableDtype,
    Tensor,
    describe_file,
)
from mobilediff.ondevice.nouns import NOUN_TABLE, write_noun_table
from mobilediff.ondevice.readme import readme
from mobilediff.pipeline import MobileDiffusionPipeline

README = "README.md"
PARITY_IMAGES = 8
# Rounding the table to 8 bits moves a picture less than fp16 may.
TABLE_DTYPE: dict[Precision, TableDtype] = {"fp32": "float32", "fp16": "int8", "int8": "int8"}


def check_output(folder: str | Path) -> None:
    """Refuse an output folder that holds something else than an export or cannot be written.

    Raises:
        FileExistsError: it holds something else, or something beside an export, such as a clone's `.git`.
        OSError: as in `replaceable_folder`.
    """
    folder = replaceable_folder(folder)
    if not folder.exists():
        return
    entries = {entry.name for entry in folder.iterdir()}
    if foreign := entries - exported_names(folder):
        raise FileExistsError(
            f"{folder} holds {sorted(foreign)[0]}, which is of no exported folder; take another folder"
        )


def exported_names(folder: Path) -> set[str]:
    """List the names that an export wrote into a folder, none where there is no manifest of one."""
    try:
        graphs = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["graphs"]
        return {MANIFEST, NOUN_TABLE, TOKENIZER, README, *(graph["path"] for graph in graphs)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def write_exported(
    pipeline: MobileDiffusionPipeline,
    name: str,
    sha256: str,
    folder: str | Path,
    format: Format,
    precision: Precision,
    batch_size: int = 1,
    num_inference_steps: int | None = None,
    threads: int = 2,
) -> Manifest:
    """Convert a checkpoint, measure the pictures of the result, and write the folder once it is complete.

    Args:
        pipeline: in float32 on the CPU.
        name: of the checkpoint.
        sha256: of its files.
        folder: an export there is replaced.
        format: "onnx", "litert" or "executorch".
        precision: of that format.
        batch_size: that the graphs are fixed to.
        num_inference_steps: defaults to the checkpoint's own.
        threads: of the runtime, while it is measured.

    Raises:
        ValueError: as in `check_precision`, `check_exportable`, `check_control`, `check_text_widths` and `schedule`,
            before any work.
        OSError: as in `check_output`.
    """
    check_output(folder)
    check_precision(format, precision)
    check_exportable(pipeline, batch_size)
    check_control(pipeline, format)
    check_text_widths(format, precision, pipeline.text_encoder.config)
    num_steps = pipeline.config.default_num_inference_steps if num_inference_steps is None else num_inference_steps
    steps, fused, converter = schedule(pipeline, num_steps), is_fused(pipeline), load_format(format)
    graphs = build_graphs(pipeline, steps, batch_size)
    calibration = calibration_inputs(pipeline, graphs, steps, fused) if precision == "int8" else {}
    with atomic_folder(folder) as new:
        entries, layer_errors = [], []
        for graph in graphs:
            path = f"{graph.name}{converter.SUFFIX}"
            layer_errors += converter.convert(graph, new / path, precision, calibration.get(graph.name, []))
            entries.append(graph_entry(graph, path, converter.operators(new / path)))
        write_noun_table(pipeline, new / NOUN_TABLE, TABLE_DTYPE[precision])
        _write_tokenizer(pipeline, new / TOKENIZER)
        nouns = Nouns(
            path=NOUN_TABLE,
            template=pipeline.config.class_template,
            dtype=TABLE_DTYPE[precision],
            names=list(pipeline.config.nouns),
        )
        plan = Plan(
            model=name,
            format=format,
            precision=precision,
            batch_size=batch_size,
            num_inference_steps=num_steps,
            steps=steps,
            fused=fused,
            max_tokens=pipeline.tokenizer.model_max_length,
            graphs=entries,
            nouns=nouns,
        )
        parity = measure_parity(pipeline, ExportedPipeline(new, plan, threads), PARITY_IMAGES)
        paths = sorted(path.relative_to(new).as_posix() for path in new.rglob("*") if path.is_file())
        manifest = Manifest(
            **plan.model_dump(),
            model_sha256=sha256,
            files=[describe_file(new, path) for path in paths],
            layer_errors=layer_errors,
            parity=parity,
            versions={library: version(library) for library in converter.LIBRARIES},
        )
        write_json(new / MANIFEST, manifest.model_dump())
        (new / README).write_text(readme(manifest), encoding="utf-8")
    return manifest


def _write_tokenizer(pipeline: MobileDiffusionPipeline, folder: Path) -> None:
    """Write the tokenizer without the white space that is a third of its vocabulary's file."""
    pipeline.tokenizer.save_pretrained(folder)
    for file in folder.glob("*.json"):
        content = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps(content, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def graph_entry(graph: Graph, path: str, operators: dict[str, int]) -> GraphEntry:
    """Describe a graph's inputs and outputs, which one run of its module gives.

    Args:
        path: of its file, from the folder.
        operators: of that file, by number of nodes.
    """
    outputs = graph.module(*graph.inputs.values())
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    named = [*graph.inputs.items(), *zip(graph.outputs, outputs, strict=True)]
    tensors = [
        Tensor.model_validate(
            {"name": name, "dtype": str(value.dtype).removeprefix("torch."), "shape": list(value.shape)}
        )
        for name, value in named
    ]
    count = len(graph.inputs)
    return GraphEntry(name=graph.name, path=path, inputs=tensors[:count], outputs=tensors[count:], operators=operators)
