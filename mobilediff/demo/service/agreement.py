"""Say whether measured figures agree with the shipped ones within their intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

from eval.reporting.compare import Change, compare_section
from eval.schema import Latency, LatencyResult, Record, check_result

FIGURES = {
    "frechet_distance_judge": "Fréchet distance",
    "class_accuracy": "class accuracy",
    "noun_top1": "noun accuracy, top 1",
    "noun_top5": "noun accuracy, top 5",
    "clip_score": "CLIP score",
    "precision": "precision",
    "recall": "recall",
    "coverage": "coverage",
    "seed_distance": "seed distance",
    "image (ms)": "ms an image",
}
NO_RECORD = "The shipped results hold no figures of these very weights, so there is nothing to compare with."


def shipped_record(records: Mapping[str, Record], sha256s: Sequence[str | None]) -> Record | None:
    """Find the record of weights by their hash, the first of `sha256s` that has one."""
    by_sha256 = {record.model_sha256: record for record in records.values() if record.model_sha256}
    return next((by_sha256[one] for one in sha256s if one in by_sha256), None)


def compare_with_shipped(record: Record, name: str, results: Sequence[dict]) -> list[Change]:
    """Compare the figures of commands' results with a shipped record of the same model.

    Args:
        record: of the model.
        name: of the model in the timings.
        results: JSON of the commands.
    """
    changes = []
    for content in results:
        result: Any = check_result(content["command"], content)
        names = set(FIGURES) - ({"class_accuracy"} if _of_nouns(result) else set())  # which is that of class prompts
        for section, shipped, measured in _pairs(record, name, result):
            if shipped is not None:
                changes += [one for one in compare_section(name, section, shipped, measured) if _key(one) in names]
    return changes


def _of_nouns(result: Any) -> bool:
    return result.command == "eval.accuracy" and result.samples.model_dump()["prompts"] == "noun"


def _pairs(record: Record, name: str, result: Any) -> list[tuple[str, Any, Any]]:
    """Pair a result with the shipped section of the same samples' kind, under the section whose conditions apply."""
    if isinstance(result, LatencyResult):
        batch = result.batches[0]
        timings = {part: timing for part, timing in batch.models[name] if timing}
        if "network_call" not in timings:
            return []
        return [("latency", record.latency, Latency(**timings, protocol=batch.protocol))]
    if result.command == "eval.accuracy":  # no distance is in it, so the reference is no condition
        return [("nouns", record.nouns if _of_nouns(result) else record.frechet_distance, result)]
    section = {"eval.fid": "frechet_distance", "eval.clip_score": "clip", "eval.quality": "quality"}[result.command]
    return [(section, getattr(record, section), result)]


def _key(change: Change) -> str:
    return change.figure.partition(" ")[2]


def _listed(changes: Sequence[Change], values: bool = True) -> str:
    return ", ".join(
        f"{FIGURES[_key(one)]} ({one.after:.4g}, shipped {one.before:.4g})" if values else FIGURES[_key(one)]
        for one in changes
    )


def agreement(record: Record | None, name: str, results: Sequence[dict]) -> list[str]:
    """Write sentences on the agreement of a model's results with its shipped record; arguments as above."""
    if record is None:
        return [NO_RECORD]
    changes = compare_with_shipped(record, name, results)
    by_verdict = {verdict: [one for one in changes if one.verdict == verdict] for verdict in ("within", "moved")}
    sentences = []
    if by_verdict["within"]:
        sentences.append(f"Agrees with the shipped figures within the intervals: {_listed(by_verdict['within'])}.")
    if by_verdict["moved"]:
        sentences.append(f"Differs from the shipped figures beyond the intervals: {_listed(by_verdict['moved'])}.")
    if without := [one for one in changes if one.verdict == "no interval"]:
        sentences.append(f"Without intervals to judge by: {_listed(without)}.")
    sizes = [one for one in changes if one.verdict.startswith("not comparable") and _of_size(one)]
    if sizes:
        sentences.append(
            f"Not compared, as they depend on the number of samples, which is another one there: "
            f"{_listed(sizes, values=False)}. A Fréchet distance is the larger the fewer the samples are."
        )
    for verdict in dict.fromkeys(one.verdict for one in changes if one.verdict.startswith("not comparable")):
        others = [one for one in changes if one.verdict == verdict and one not in sizes]
        if others:
            reason = verdict.removeprefix("not comparable: ").replace("_", " ")
            sentences.append(f"Not compared, because of {reason}: {_listed(others, values=False)}.")
    return sentences or ["The shipped results hold none of these figures."]


def _of_size(change: Change) -> bool:
    return set(change.verdict.removeprefix("not comparable: another ").split(", ")) <= {"n", "reference_n"}
