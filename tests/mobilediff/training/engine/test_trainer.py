"""The loop: resuming, refusing, logging, averaging, limits."""

import json
import os
import signal

import pytest
import torch
from safetensors.torch import load_file

from mobilediff.training.engine.options import RunLimits, TrainingOptions
from mobilediff.training.engine.state import load_state, saved_states
from mobilediff.training.engine.trainer import Trainer
from tests.mobilediff.training.engine.regression import Regression

EXPORTS = ("export", "export-ema-0.2", "export-ema-0.35")


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True, fused=True)


@pytest.mark.parametrize("optimizer", [None, sgd])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, optimizer):
    whole = Regression(tmp_path / "whole", optimizer=optimizer)
    assert whole.fit()
    assert not Regression(tmp_path / "parts", stop_after=3, optimizer=optimizer).fit()
    rest = Regression(tmp_path / "parts", optimizer=optimizer)
    assert rest.fit()
    assert len(rest.visited) == 5 * 5
    ours, _ = load_state(tmp_path / "parts")
    expected, _ = load_state(tmp_path / "whole")
    assert set(ours) == set(expected)
    for name, value in expected.items():
        assert torch.equal(ours[name], value), name


def test_a_run_is_not_resumed_under_other_options(tmp_path):
    Regression(tmp_path, stop_after=3).fit()
    with pytest.raises(ValueError, match="learning_rate was 0.0003 and is now 0.1"):
        Regression(tmp_path, learning_rate=0.1).fit()
    longer = Regression(tmp_path, steps=9)
    assert longer.fit()
    assert longer.trainer.step == 9


def test_what_a_run_cached_before_its_first_state_is_not_used_under_other_options(tmp_path):
    Regression(tmp_path)
    with pytest.raises(ValueError, match="batch_size was 5 and is now 6"):
        Regression(tmp_path, batch_size=6)


def test_a_run_is_not_resumed_on_another_number_of_processes(tmp_path):
    Regression(tmp_path, stop_after=3).fit()
    (state,) = saved_states(tmp_path)
    scalars = json.loads((state / "scalars.json").read_text()) | {"num_processes": 2}
    (state / "scalars.json").write_text(json.dumps(scalars))
    with pytest.raises(ValueError, match="begun on 2 processes and is now on 1"):
        Regression(tmp_path).fit()


def test_a_diverged_run_keeps_its_last_good_state(tmp_path):
    Regression(tmp_path, stop_after=3).fit()
    diverged = Regression(tmp_path)
    diverged.inputs = diverged.inputs * float("nan")
    with pytest.raises(FloatingPointError, match="is not finite at step 8"):
        diverged.fit()
    assert [state.name for state in saved_states(tmp_path)] == ["state-00000003"]


def test_records_after_the_saved_state_are_dropped(tmp_path):
    Regression(tmp_path, stop_after=3).fit()
    with (tmp_path / "stats.jsonl").open("a") as stream:
        stream.write(json.dumps({"step": 4, "loss": 1.0}) + "\n")
    Regression(tmp_path).fit()
    steps = [json.loads(line)["step"] for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 9))


def test_a_value_that_is_not_in_every_step_is_averaged_over_those_it_is_in(tmp_path):
    class Rare(Regression):
        def step(self, batch, draws):
            values = super().step(batch, draws)
            return values | ({"rare": torch.tensor(6.0)} if draws.index % 2 else {})

    Rare(tmp_path, log_every=8).fit()
    assert json.loads((tmp_path / "stats.jsonl").read_text().splitlines()[-1])["rare"] == 6.0


def test_figures_are_logged_every_so_many_steps(tmp_path):
    class Measured(Regression):
        def validate(self):
            self.trainer.log_image("noise", torch.rand(3, 4, 4))
            return {"figure": float(self.trainer.step)}

    Measured(tmp_path, sample_every=3).fit()
    records = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert [(record["step"], record["figure"]) for record in records if "figure" in record] == [(3, 3.0), (6, 6.0)]


def test_a_dry_run_starts_anew(tmp_path):
    Regression(tmp_path).fit()
    options = TrainingOptions(output=str(tmp_path))
    Trainer(options, RunLimits(dry_run=True), data_size=12)
    assert load_state(tmp_path) is None


def test_each_image_is_visited_once_an_epoch(tmp_path):
    run = Regression(tmp_path)
    run.fit()
    assert sorted(run.visited[:12]) == list(range(12))
    assert sorted(run.visited[12:24]) == list(range(12))


def test_the_learning_rate_warms_up_holds_and_decays_to_zero(tmp_path):
    options = TrainingOptions(output=str(tmp_path), steps=100, warmup_steps=10, decay_fraction=0.5)
    trainer = Trainer(options, RunLimits(), data_size=1)
    factors = [trainer.learning_rate_factor(step) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[9] == factors[50] == 1.0
    assert factors[75] == pytest.approx(0.5)
    assert factors[100] == 0.0


def test_averages_of_several_lengths_are_exported_and_resumed(tmp_path):
    def fit(folder, **changes):
        Regression(folder, ema_decay=0.05, further_ema_decays=(0.2, 0.35), **changes).fit()
        return [load_file(folder / name / "weights.safetensors")["weight"] for name in EXPORTS]

    whole = fit(tmp_path / "whole")
    fit(tmp_path / "parts", stop_after=4)
    for tensor, resumed in zip(whole, fit(tmp_path / "parts"), strict=True):
        torch.testing.assert_close(resumed, tensor, rtol=0, atol=0)
    assert not torch.equal(whole[0], whole[1]) and not torch.equal(whole[1], whole[2])
    for bad in ((1.0,), (0.0,), (0.5,)):
        with pytest.raises(ValueError, match="ema_decay and further_ema_decays"):
            TrainingOptions(output="a", ema_decay=0.5, further_ema_decays=bad)


def test_a_time_limit_stops_and_saves(tmp_path):
    assert not Regression(tmp_path, limits=RunLimits(max_minutes=0.0)).fit()
    assert load_state(tmp_path)[1]["step"] == 0


def test_a_sigterm_stops_and_saves_and_the_handler_before_is_back(tmp_path):
    class Terminated(Regression):
        def step(self, batch, draws):
            values = super().step(batch, draws)
            if draws.index == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return values

    class Failing(Regression):
        def step(self, batch, draws):
            raise RuntimeError("halfway")

    received = []
    before = signal.signal(signal.SIGTERM, lambda *_: received.append("before"))
    try:
        handler = signal.getsignal(signal.SIGTERM)
        assert not Terminated(tmp_path / "terminated").fit()
        assert load_state(tmp_path / "terminated")[1]["step"] == 3
        assert signal.getsignal(signal.SIGTERM) is handler and not received
        with pytest.raises(RuntimeError, match="halfway"):
            Failing(tmp_path / "failing").fit()
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
