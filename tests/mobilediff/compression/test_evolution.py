"""The value of an action and the order of steps, on a network of four blocks whose figures are made up."""

import pytest

from mobilediff.compression.evolution import Evolution, EvolutionLog, Quality, Size, read_evolution
from mobilediff.files import write_json

BLOCKS = ["a", "b", "c", "d"]
MS = {"a": 4.0, "b": 2.0, "c": 1.0, "d": 1.0}
# What a block's removal costs in CLIP score: per millisecond a loses 0.5, b 2, c 1, d gains 0.5.
LOSS = {"a": 2.0, "b": 4.0, "c": 1.0, "d": -0.5}


class Network:
    """Figures that add up over the blocks; counts what is measured, and fails where told."""

    def __init__(self, fail_after: int | None = None, free: str = ""):
        self.evaluated, self.fail_after, self.free, self.saved = [], fail_after, free, []

    def predicted_ms(self, removed) -> float:
        return 1.0 + sum(0 if block == self.free else MS[block] for block in BLOCKS if block not in removed)

    def measured_ms(self, removed) -> float:
        return 2 * self.predicted_ms(removed)

    def quality(self, removed) -> Quality:
        if len(self.evaluated) == self.fail_after:
            raise KeyboardInterrupt
        self.evaluated.append(list(removed))
        lost = sum(LOSS[block] for block in removed)
        return Quality(clip_score=30 - lost, frechet_distance=10 + 2 * lost)

    def evolution(self, *targets_ms: float, log=None, measure="clip_score", group_size=1) -> Evolution:
        log = log or EvolutionLog(protocol={}, blocks=BLOCKS, noise=Quality(clip_score=0.1, frechet_distance=0.2))
        calls = self.predicted_ms, self.measured_ms, self.quality, self.saved.append
        return Evolution(log, targets_ms, measure, group_size, *calls)


def actions(log: EvolutionLog) -> list[tuple[str, list[str]]]:
    return [(step.action, step.blocks) for step in log.steps]


def test_the_value_is_the_change_in_quality_over_the_change_in_latency():
    run = Network().evolution(5.0)
    values = {one.block: one.value for one in run.weigh([], [[block] for block in BLOCKS], BLOCKS)}
    # removing b: quality -4, latency -2 ms: 2 a millisecond; d gives quality back
    assert values == {"a": 0.5, "b": 2.0, "c": 1.0, "d": -0.5}
    assert [one.value for one in run.weigh(["b"], [[]], ["b"])] == [2.0]  # and adding it: +4 over +2 ms
    distance = Network().evolution(5.0, measure="frechet_distance")
    assert [one.value for one in distance.weigh([], [["b"]], ["b"])] == [4.0]  # the distance rises by 8


def test_blocks_of_the_least_value_go_until_the_target_is_met_and_what_fits_comes_back():
    log = Network().evolution(6.0).run()
    # 9 ms; without d 8, without a as well 4; then 2 ms of room: d would lose quality, a does not fit
    assert actions(log) == [("start", []), ("remove", ["d"]), ("remove", ["a"])]
    assert [step.predicted_ms for step in log.steps] == [9.0, 8.0, 4.0]
    assert [step.measured_ms for step in log.steps] == [18.0, 16.0, 8.0]
    assert log.sizes == [Size(target_ms=6.0, step=2)] and log.steps[-1].removed_blocks == ["a", "d"]
    assert log.steps[-1].quality == Quality(clip_score=28.5, frechet_distance=13.0)
    assert [one.block for one in log.steps[1].candidates] == BLOCKS


def test_a_group_goes_at_once_but_no_further_than_the_target():
    log = Network().evolution(4.5, group_size=3).run()
    assert actions(log) == [("start", []), ("remove", ["d", "a"])]
    log = Network().evolution(3.5, group_size=3).run()
    # 9 without d, a and c is 3; b does not fit, and neither does any other within 0.5 ms
    assert actions(log) == [("start", []), ("remove", ["d", "a", "c"])]


def test_the_block_of_the_highest_value_comes_back_where_there_is_room():
    start = Network().evolution(9.0)
    removed = start.log.model_copy(update={"steps": [Network().evolution(9.0).run().steps[0].model_copy(
        update={"removed_blocks": ["a", "b", "c", "d"]})]})  # fmt: skip
    log = Network().evolution(5.0, log=removed).run()
    # 1 ms without blocks: b is worth 2 a millisecond, c 1, a 0.5; after b and c, a no longer fits, and d never pays
    assert actions(log)[1:] == [("add", ["b"]), ("add", ["c"])]
    assert log.steps[-1].removed_blocks == ["a", "d"]


def test_several_targets_are_sizes_of_one_path():
    log = Network().evolution(3.5, 9.5, 6.0).run()
    # at 9 ms the whole network is within 9.5; the path of 6 ms goes on without c, of value 1, to 3 ms
    assert actions(log) == [("start", []), ("remove", ["d"]), ("remove", ["a"]), ("remove", ["c"])]
    assert log.sizes == [Size(target_ms=9.5, step=0), Size(target_ms=6.0, step=2), Size(target_ms=3.5, step=3)]
    assert [log.step_of(size).removed_blocks for size in log.sizes] == [[], ["a", "d"], ["a", "c", "d"]]


def test_a_block_that_takes_no_time_is_not_moved():
    log = Network(free="d").evolution(7.0).run()
    assert actions(log) == [("start", []), ("remove", ["a"])]
    assert {one.block: one.value for one in log.steps[1].candidates}["d"] is None


def test_a_target_below_what_is_left_without_blocks_is_refused():
    with pytest.raises(ValueError, match="target_ms is 0.5; accepted is 1.000 or more"):
        Network().evolution(0.5)


@pytest.mark.parametrize("fail_after", range(8))
def test_an_interrupted_run_goes_on_without_measuring_anything_twice(tmp_path, fail_after):
    whole = Network()
    expected = whole.evolution(6.0, 3.5).run()
    assert len(whole.evaluated) == len({tuple(one) for one in whole.evaluated})
    interrupted = Network(fail_after)
    with pytest.raises(KeyboardInterrupt):
        interrupted.evolution(6.0, 3.5).run()
    log = None
    if interrupted.saved:
        write_json(tmp_path / "log.json", interrupted.saved[-1].model_dump(mode="json", by_alias=True))
        log = read_evolution(tmp_path / "log.json")
    resumed = Network()
    assert resumed.evolution(6.0, 3.5, log=log).run() == expected
    assert interrupted.evaluated + resumed.evaluated == whole.evaluated


def test_another_file_is_refused(tmp_path):
    write_json(tmp_path / "log.json", {"schema": "mobilediff.evolution/1"})
    with pytest.raises(ValueError, match="log.json is no evolution's log: schema: Input should be"):
        read_evolution(tmp_path / "log.json")
