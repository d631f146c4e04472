"""Write the tables of control, inpainting and LoRAs from the results of their commands."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from eval.reporting.tables import markdown_table
from eval.schema import ControlResult, InpaintResult, Judged, LoraFigures, LoraResult, Repainted, check_result
from mobilediff.files import read_json

T = TypeVar("T", ControlResult, InpaintResult, LoraResult)
DownstreamResult = ControlResult | InpaintResult | LoraResult
MASKS = {"box": "box", "stroke": "stroke", "half": "half plane", "all": "all three"}


def read_downstream(files: Sequence[str | Path]) -> dict[str, DownstreamResult]:
    """Read results that eval.control, eval.inpaint and eval.lora kept by --json, by the files' names.

    Raises:
        ValueError: naming the file that is no such result.
    """
    results = {}
    for file in files:
        content = read_json(file)
        command = content.get("command") if isinstance(content, dict) else None
        if command not in ("eval.control", "eval.inpaint", "eval.lora"):
            raise ValueError(
                f"{file}: its command is {command}; accepted are results of eval.control, eval.inpaint and eval.lora"
            )
        results[Path(file).stem] = check_result(command, content)
    return results


def _of(results: Mapping[str, DownstreamResult], kind: type[T]) -> dict[str, T]:
    """Choose the results of one command, which measure equally many images.

    Raises:
        ValueError: there is none, or the numbers of images differ.
    """
    chosen = {name: result for name, result in results.items() if isinstance(result, kind)}
    counts = sorted({result.n for result in chosen.values()})
    if len(counts) != 1:
        raise ValueError(f"results of {kind.__name__} with n of {counts}; accepted are one or more, of one n")
    return chosen


def control_table(results: Mapping[str, DownstreamResult]) -> str:
    """Compare agreement and quality by what is given, a block of rows each model.

    Raises:
        ValueError: as in `_of`.
    """
    chosen, rows = _of(results, ControlResult), []
    for model, result in chosen.items():
        base = result.uncontrolled.frechet_distance_judge
        ways = {
            "nothing (chance)": result.uncontrolled,
            "edges": result.edges,
            "8 x 8 colours": result.colors,
            "edges and colours": result.edges_and_colors,
        }
        for name, way in ways.items():
            time = result.milliseconds.uncontrolled if way is result.uncontrolled else result.milliseconds.controlled
            distance = way.frechet_distance_judge
            rows.append(
                [f"{model}, {name}", f"{way.edge_f1:.3f}", f"{way.color_error:.1f}"]
                + [f"{way.class_accuracy:.1%}", f"{distance:.2f}", f"{distance / base:.2f}", f"{time:.1f}"]
            )
    first = next(iter(chosen.values()))
    ceiling = first.ceiling
    rows.append(["test images, encoded and decoded (ceiling)", f"{ceiling.edge_f1:.3f}", f"{ceiling.color_error:.1f}"])
    rows[-1] += ["", "", "", ""]
    titles = [
        "given",
        "edge F1",
        "colour error",
        "class accuracy",
        "Fréchet distance",
        "of uncontrolled",
        "image (ms)",
    ]
    return "\n\n".join(
        [
            markdown_table(titles, rows),
            f"The first {first.n:,} test images; colour error in 8-bit levels; "
            "Fréchet distance by this project's classifier, not FID.",
        ]
    )


def inpaint_table(results: Mapping[str, DownstreamResult]) -> str:
    """Compare the ways to repaint by kind of mask: distance, class accuracy and error.

    Raises:
        ValueError: as in `_of`.
    """
    chosen = _of(results, InpaintResult)
    first = next(iter(chosen.values()))
    shares = {kind: f"{part.share:.1%}" for kind, part in first.masks.items()}
    rows = [
        [f"{model}, network calls: {result.samples.nfe:g}"]
        + [_repainted(part.model) for part in result.masks.values()]
        + [f"{result.image.median_ms:.1f}"]
        for model, result in chosen.items()
    ]
    kinds = first.masks.values()
    rows += [
        ["nearest kept pixels", *(_repainted(kind.neighbours) for kind in kinds), ""],
        ["mean colour", *(_repainted(kind.mean_colour) for kind in kinds), ""],
        ["the images themselves", *[_judged(first.real)] * len(kinds), ""],
    ]
    titles = ["repainted by", *(f"{MASKS[kind]}, {share}" for kind, share in shares.items()), "image (ms)"]
    kept = min(part.model.kept for result in chosen.values() for part in result.masks.values())
    return "\n\n".join(
        [
            markdown_table(titles, rows),
            f"The first {first.n:,} test images: Fréchet distance by this project's classifier (not FID) / class "
            f"accuracy / error of repainted bytes. {kept:.1%} of the models' results keep every kept byte.",
        ]
    )


def _judged(figures: Judged) -> str:
    return f"{figures.frechet_distance_judge:.2f} / {figures.class_accuracy:.1%}"


def _repainted(figures: Repainted) -> str:
    return f"{_judged(figures)} / {figures.error:.0f}"


def lora_table(results: Mapping[str, DownstreamResult]) -> str:
    """Compare pictures without and with each LoRA, and with a second one beside it.

    Raises:
        ValueError: as in `_of`.
    """
    chosen, rows = _of(results, LoraResult), []
    first = next(iter(chosen.values()))
    for name, result in chosen.items():
        sets = {"plain": result.plain, "lora": result.lora, "together": result.together, "filtered": result.filtered}
        distances, accuracies, errors = (
            " / ".join(_number(figures, key, form) for figures in sets.values()).replace("- / - / - / -", "-")
            for key, form in (("kernel_distance", "{:.3f}"), ("class_accuracy", "{:.1%}"), ("pair_error", "{:.3f}"))
        )
        times = " / ".join(f"{result.milliseconds[way]:.1f}" for way in ("plain", "lora", "fused"))
        size = f"{result.lora_bytes / 1e6:.2f}"
        rows.append([name, size, distances, accuracies, errors, times])
    titles = ["LoRA", "MB", "kernel distance", "class accuracy", "error of pairs", "image (ms)"]
    return "\n\n".join(
        [
            markdown_table(titles, rows),
            f"{first.n:,} pictures of the same seeds: without / with the LoRA / with a second one beside it / the "
            "plain pictures under the style's filter. Kernel distance of this project's classifier's features to "
            "held-out images of the style; error of pairs as a fraction of the range, against the plain picture under "
            "the filter; milliseconds without / with / with the LoRA fused.",
        ]
    )


def _number(figures: LoraFigures | None, key: str, form: str) -> str:
    value = None if figures is None else getattr(figures, key)
    return "-" if value is None else form.format(value)


PARTS = {"control": control_table, "inpaint": inpaint_table, "lora": lora_table}  # between markers of a page
