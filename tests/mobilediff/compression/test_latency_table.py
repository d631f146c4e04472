"""The command of the latency table: options and output tried before work, and a file that reads back."""

import pytest

from eval.benchmark import blocks
from mobilediff.compression import latency_table
from mobilediff.compression.latency import read_latency_table


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--threads 0", "threads is 0; accepted is 1 to 1024"),
        ("--rounds 1", "rounds is 1; accepted is 3 or more"),
        ("--networks -1", "networks is -1; accepted is 0 or more"),
        ("--batch-size 0", "batch_size is 0; accepted is 1 to 64"),
    ],
)
def test_bad_options_are_refused_before_anything_is_loaded(option, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        latency_table.main(["--model", "nowhere", "--output", str(tmp_path / "table.json"), *option.split()])


def test_an_output_that_holds_something_else_is_kept(tmp_path, capsys):
    (tmp_path / "set.json").write_text("{}")
    with pytest.raises(SystemExit):
        latency_table.main(["--model", "nowhere", "--output", str(tmp_path / "set.json")])
    assert "holds something else" in capsys.readouterr().err


def test_the_command_prints_and_writes_the_table(checkpoints, tmp_path, monkeypatch, capsys):
    def timer(calls, device, rounds, max_seconds, before):
        return {key: [0.1 if key.startswith("network") else 0.01] * rounds for key in calls}

    measure = blocks.measure_blocks
    monkeypatch.setattr(latency_table, "measure_blocks", lambda *options: measure(*options, timer=timer))
    file = tmp_path / "table.json"
    command = ["--model", str(checkpoints / "student-1step"), "--output", str(file), "--networks", "2"]
    latency_table.main([*command, "--threads", "1", "--rounds", "3"])
    table = read_latency_table(file)
    assert table.model == "student-1step" and list(table.runtimes) == ["pytorch"]
    assert [network.measured_ms for network in table.of("pytorch").networks] == [100, 100]
    printed = capsys.readouterr().out
    assert "pytorch: within 10 %: 0 of 2" in printed and "stem 16 @ 16x16: in 4" in printed
