"""Read the measured quality of models from the report's file, by the hash of their weights and settings."""

from pathlib import Path

from eval.schema import read_results


def load_quality(file: Path) -> dict[str, list[str]]:
    """Write distance and class accuracy of each measured checkpoint, by its `model_sha256`.

    The report samples each checkpoint with its own settings, so the figures hold for no others.

    Returns:
        Sentences without a full stop; none where the file is not there.

    Raises:
        ValueError: the file holds no results.
    """
    if not file.is_file():
        return {}
    quality = {}
    for record in read_results(file).records.values():
        distance = record.frechet_distance
        if record.model_sha256 is None or distance is None:
            continue
        quality[record.model_sha256] = [f"Fréchet distance {distance.frechet_distance_judge:.2f}"]
        if distance.class_accuracy is not None:
            quality[record.model_sha256].append(f"class accuracy {distance.class_accuracy:.1%}")
    return quality
