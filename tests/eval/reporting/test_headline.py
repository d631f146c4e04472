"""The claim and the headline table say what the records hold, and refuse records that lack a figure."""

from pathlib import Path

import pytest

from eval.reporting.headline import claim, headline
from eval.reporting.tables import REAL
from eval.schema import Interval, JudgeDistance, OutsideDistance, OutsideProtocol, Record, read_results

KEPT = read_results(Path(__file__).parents[3] / "docs" / "results.json").records["teacher"]


def distance(n: int, class_accuracy: float) -> JudgeDistance:
    low_high = {"frechet_distance_judge": (2.75, 2.99), "class_accuracy": (0.92, 0.934)}
    intervals = {
        key: Interval(low=low, high=high, confidence=0.95, resamples=9) for key, (low, high) in low_high.items()
    }
    figures = {"frechet_distance_judge": 2.87, "class_accuracy": class_accuracy, "floor": 0.17, "n": n}
    return KEPT.frechet_distance.model_copy(update=figures | {"intervals": intervals})


def outside(n: int, distance: float) -> OutsideDistance:
    protocol = KEPT.frechet_distance.protocol.model_dump() | {"extractor": "other", "judge_sha256": "0" * 64}
    figures = {"frechet_distance_efficientnet": distance, "frechet_distance_judge": distance / 10}
    intervals = {key: Interval(low=0, high=2 * value, confidence=0.95, resamples=9) for key, value in figures.items()}
    samples, protocol = KEPT.frechet_distance.samples, OutsideProtocol(**protocol)
    return OutsideDistance(n=n, intervals=intervals, protocol=protocol, samples=samples, **figures)


def record(milliseconds: float, times_faster: float, steps: int, n: int = 10_000, **row) -> Record:
    size = {"nfe": steps, "num_inference_steps": steps, "weights_bytes": 8_147_334, "macs_image": 10 * steps}
    processor = {"threads": 2, "device_name": "Intel(R) Xeon(R) Processor"}
    latency = {
        "image": KEPT.latency.image.model_copy(update={"median_ms": milliseconds}),
        "times_faster": times_faster,
        "protocol": KEPT.latency.protocol.model_copy(update=processor),
    }
    sections = {
        "size": KEPT.size.model_copy(update=size),
        "latency": KEPT.latency.model_copy(update=latency),
        "frechet_distance": distance(n, 0.927),
    }
    return KEPT.model_copy(update=sections | row)


@pytest.fixture
def records():
    real = Record(figures={"cost": {}, "quality": {"n": "10,000"}}, frechet_distance=distance(10_000, 0.921))
    return {"student-1step": record(8.04, 76.3, 1), "teacher": record(613.0, 1.0, 25), REAL: real}


def test_the_claim_has_the_figures_of_the_records(records):
    assert claim(records).replace("\n", " ") == (
        "mobilediff draws a 32 x 32 picture from a prompt in one step: 8.1 MB of weights, 8.0 ms on 2 threads (Intel "
        "Xeon Processor), 76 times faster than its teacher in 25 steps, all of it trained on CIFAR-10 alone."
    )


def test_the_headline_has_six_columns_for_each_shipped_model(records):
    records["elsewhere"] = record(1.0, 2.0, 2, shipped=False)
    records["peer"] = record(1.0, 2.0, 2, shipped=None, peer="x")
    lines = headline(records).splitlines()
    assert lines[0].count("|") == 8 and lines[0].startswith("| checkpoint | ")
    assert lines[2] == "| teacher | 25 | 8.1 | 613.0 | 1.0 | 2.87 (2.75 to 2.99) | 92.7% (92.0% to 93.4%) |"
    assert lines[3].startswith("| student-1step | 1 | 8.1 | 8.0 | 76.3 | ") and lines[4] == ""
    assert "the test images have 0.17" in lines[9] and "of the test images 92.1%" in lines[10]


def test_both_extractors_distances_of_one_n_are_columns_of_the_headline(records):
    assert "judge (n" not in headline(records)
    records["student-1step"] = record(8.04, 76.3, 1, outside=outside(2000, 40.0))
    records["student"] = record(199.1, 3.1, 24, outside=outside(1500, 30.0))
    records[REAL] = records[REAL].model_copy(update={"outside": outside(2000, 10.0)})
    records["teacher"] = record(613.0, 1.0, 25, outside=outside(2000, 20.0))
    lines = headline(records).splitlines()
    titles = "Fréchet distance, outside (n = 2,000) | Fréchet distance, judge (n = 2,000)"
    assert lines[0].endswith(f"| class accuracy | {titles} |")
    assert lines[2].endswith("% to 93.4%) | 20.00 (0.00 to 40.00) | 2.00 (0.00 to 4.00) |")
    assert lines[3].startswith("| student |") and lines[3].endswith("93.4%) |  |  |")  # another n is no cell
    outside_line, judge_line = lines[12:14]
    assert "of other, trained on ImageNet" in outside_line and outside_line.endswith("test images have 10.00.")
    assert "both say so" in judge_line and judge_line.endswith("test images have 1.00.")
    assert "distance" not in claim(records)


def test_the_headline_names_each_row_of_other_n(records):
    assert headline(records).splitlines()[-1].startswith("10,000 samples a row. ")
    records["student"] = record(199.1, 3.1, 24)
    records["teacher"] = record(613.0, 1.0, 25, n=5_000)
    assert headline(records).splitlines()[-1].startswith("10,000 samples a row but teacher 5,000: ")


@pytest.mark.parametrize("section", ["size", "latency", "frechet_distance"])
def test_what_was_not_measured_is_refused(records, section):
    records["student-1step"] = record(8.04, 76.3, 1, **{section: None})
    with pytest.raises(ValueError, match=f"student-1step has no {section}"):
        headline(records)


def test_a_speed_up_needs_times_of_one_run(records):
    alone = KEPT.latency.model_copy(update={"times_faster": None})
    records["student-1step"] = record(8.04, 76.3, 1, latency=alone)
    for part in (claim, headline):
        with pytest.raises(ValueError, match="student-1step was not timed beside the teacher"):
            part(records)
