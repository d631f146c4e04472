"""Read the report's file once for all tabs."""

import logging
from functools import lru_cache
from pathlib import Path

from eval.reporting.tables import ordered
from eval.schema import Record, read_results

logger = logging.getLogger(__name__)


@lru_cache
def reported_records(file: Path) -> dict[str, Record]:
    """Read the report's records that have figures, in the order of its tables.

    Returns:
        None, and a line in the log, if the file is missing, damaged or empty.
    """
    try:
        records = read_results(file).records
    except (OSError, ValueError) as error:
        logger.warning("%s", error)
        return {}
    if not (names := ordered(records)):
        logger.warning("%s holds no figures", file)
    return {name: records[name] for name in names}


def reported_qualities(records: dict[str, Record]) -> dict[str, list[str]]:
    """Write distance and class accuracy of each measured checkpoint, by its `model_sha256`.

    The report samples each checkpoint with its own settings, so the figures hold for no others.

    Returns:
        Sentences without a full stop.
    """
    qualities = {}
    for record in records.values():
        distance = record.frechet_distance
        if record.model_sha256 is None or distance is None:
            continue
        qualities[record.model_sha256] = [f"Fréchet distance {distance.frechet_distance_judge:.2f}"]
        if distance.class_accuracy is not None:
            qualities[record.model_sha256].append(f"class accuracy {distance.class_accuracy:.1%}")
    return qualities
