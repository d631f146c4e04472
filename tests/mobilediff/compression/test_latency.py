"""The sum of a table's parts, its file, and what is refused."""

import json

import pytest
import torch
from pydantic import ValidationError

from mobilediff.compression.latency import LAYOUT, LatencyTable, PartTime, RuntimeTable, read_latency_table
from mobilediff.compression.parts import Part


def part(kind: str, width: int) -> Part:
    return Part(f"{kind} of {width}", kind, width, (8, 8), "plain", torch.nn.Identity(), ())


def table(call_ms: float, **times: float) -> RuntimeTable:
    parts = {}
    for name, median in times.items():
        kind, width = name.split("_")
        one = part(kind, int(width))
        timing = {"median_ms": median, "p90_ms": median, "runs": 3}
        parts[one.key] = PartTime(kind=one.kind, width=one.width, resolution=one.resolution, **timing)
    return RuntimeTable(call_ms=call_ms, parts=parts)


def content(**changes) -> dict:
    whole = {"schema": LAYOUT, "command": "mobilediff.compression.latency_table", "model": "a", "batch_size": 1}
    whole |= {"model_sha256": "0" * 64, "dtype": "fp32", "protocol": {"threads": 1}}
    return whole | {"runtimes": {"pytorch": table(0.5, resnet_16=2.0).model_dump(mode="json")}} | changes


def test_a_network_is_one_empty_call_and_its_parts_without_theirs():
    times = table(0.5, stem_4=1.0, resnet_16=2.0, head_4=0.25)
    stem, resnet, head = part("stem", 4), part("resnet", 16), part("head", 4)
    assert times.network_ms([]) == 0.5
    assert times.network_ms([stem]) == 1.0
    # 0.5 + (1.0 - 0.5) + 2 * (2.0 - 0.5), and nothing for a part faster than an empty call
    assert times.network_ms([stem, resnet, resnet, head]) == 4.0


def test_a_part_that_was_not_measured_is_named():
    with pytest.raises(ValueError, match="no 'resnet 32 @ 8x8: plain', which resnet of 32 needs"):
        table(0.0, resnet_16=1.0).network_ms([part("resnet", 32)])


def test_a_table_reads_back_what_was_written(tmp_path):
    file = tmp_path / "table.json"
    written = LatencyTable.model_validate(content())
    file.write_text(json.dumps(written.model_dump(mode="json", by_alias=True)))
    assert read_latency_table(file) == written
    assert read_latency_table(file).of("pytorch").parts["resnet 16 @ 8x8: plain"].resolution == (8, 8)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"schema": "other/1"}, "schema: Input should be"),
        ({"more": 1}, "more: Extra inputs"),
        ({"batch_size": 0}, "batch_size: Input should be greater than 0"),
        ({"runtimes": {"tflite": {}}}, "runtimes.tflite"),
    ],
)
def test_another_file_is_refused(tmp_path, changes, named):
    file = tmp_path / "table.json"
    file.write_text(json.dumps(content(**changes)))
    with pytest.raises(ValueError, match=f"table.json is no latency table: {named}"):
        read_latency_table(file)


def test_a_runtime_that_was_not_measured_is_named():
    with pytest.raises(ValueError, match="runtime is 'onnxruntime'; accepted are those of the table: pytorch"):
        LatencyTable.model_validate(content()).of("onnxruntime")


def test_times_are_finite_and_above_zero():
    for median in (0.0, float("inf")):
        with pytest.raises(ValidationError):
            table(0.0, resnet_16=median)
