"""The command line of a row asks eval.report for the samples and timings that the row has."""

import shlex
from pathlib import Path

import pytest

from eval.report import parse_arguments
from eval.reporting.commands import report_command
from eval.reporting.tables import SCALE
from eval.schema import Record, read_results

ROOT = Path(__file__).parents[3]
RECORDS = read_results(ROOT / "docs" / "results.json").records


def arguments(records: dict[str, Record], name: str):
    command = shlex.split(report_command(records, name))
    assert command[:3] == ["python", "-m", "eval.report"]
    return parse_arguments(command[3:])


@pytest.mark.parametrize("name", RECORDS)
def test_the_command_asks_for_what_the_row_has(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    args, record = arguments(RECORDS, name), RECORDS[name]
    assert args.no_insert and args.results != "docs/results.json"
    measured = {"distance": record.frechet_distance, "nouns": record.nouns, "latency": record.latency}
    measured |= {"size": record.size, "throughput": record.throughput, "clip": record.clip, "quality": record.quality}
    measured |= {"outside": record.outside}
    assert set(args.only) == {section for section, content in measured.items() if content}
    if name in SCALE:
        assert list(args.models) == ["student"]
        return
    if record.peer is not None:
        assert args.peers == [name]
        return
    assert args.models == {name: Path("checkpoints") / name if record.shipped else Path("FOLDER")}
    if record.frechet_distance:
        samples = record.frechet_distance.samples
        assert args.n == {"class": {name: samples.n}, "noun": {name: record.nouns.n}}
        assert (args.dtype, args.compile) == (samples.dtype, samples.compiled)
    if record.outside:
        assert args.n_outside == record.outside.n
    if record.throughput:
        assert args.batch_sizes == [batch.protocol.batch_size for batch in record.throughput.batches]


def test_numbers_of_samples_and_threads_are_the_rows_own(monkeypatch):
    monkeypatch.chdir(ROOT)
    kept = RECORDS["student-1step"]
    fewer = {"frechet_distance": kept.frechet_distance.model_copy(update={"n": 2000})}
    fewer["nouns"] = kept.nouns.model_copy(update={"n": 300})
    protocol = kept.latency.protocol.model_copy(update={"threads": 7})
    fewer["latency"] = kept.latency.model_copy(update={"protocol": protocol})
    args = arguments({"student-1step": kept.model_copy(update=fewer)}, "student-1step")
    assert args.n == {"class": {"student-1step": 2000}, "noun": {"student-1step": 300}}
    assert args.threads == 7


def test_a_peer_is_timed_as_one_and_a_name_with_spaces_is_quoted(monkeypatch):
    monkeypatch.chdir(ROOT)
    timed = {"size": RECORDS["teacher"].size, "latency": RECORDS["teacher"].latency}
    args = arguments({"ddpm-cifar10-ddim-50": Record(peer="google/ddpm-cifar10-32", **timed)}, "ddpm-cifar10-ddim-50")
    assert args.peers == ["ddpm-cifar10-ddim-50"] and args.only == ["size", "latency"]
    args = arguments({"my model": Record(model="my model", **timed)}, "my model")
    assert args.models == {"my model": Path("FOLDER")}
