"""Evolve a network's architecture by adding and removing blocks (SnapFusion, arXiv 2306.00980, algorithm 1).

    value of an action    change in quality / change in latency, the latency from the table
    latency above target  remove the group of blocks of the lowest value
    latency within it     add the block of the highest value that still fits, as long as quality rises

Of several targets the highest comes first, and the evolution goes on from its network to the next: so one run finds
networks of several sizes that share the supernet's weights.

A block that is added is one that was removed: the supernet has trained weights for it, so what it adds is measured.
The paper copies a block instead, and trains on.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt

from mobilediff.compression.records import Model, read_record

LAYOUT = "mobilediff.evolution/2"
Measure = Literal["clip_score", "frechet_distance"]


class Quality(Model):
    """Figures of a fixed set of samples; as a noise, the standard deviation of each over several sets.

    Attributes:
        clip_score: 100 x cosine of image and prompt, better when higher.
        frechet_distance: to CIFAR-10, better when lower.
    """

    clip_score: float
    frechet_distance: float

    def score(self, measure: Measure) -> float:
        """Return the figure that decides, higher when better."""
        return self.clip_score if measure == "clip_score" else -self.frechet_distance


class Candidate(Model):
    """An action on one block, from the network that a step starts with.

    Attributes:
        block: that would be removed or added.
        predicted_ms, quality: of the network after it.
        value: change in quality over change in latency; None of an action that does not change the latency.
    """

    block: str
    predicted_ms: float
    quality: Quality
    value: float | None


class Step(Model):
    """A network on the way.

    Attributes:
        action: "start", "remove" or "add".
        blocks: that the action moved.
        removed_blocks: that the network lacks now, in the supernet's order.
        predicted_ms: from the table.
        measured_ms: of the whole network.
        quality: of the fixed set.
        candidates: all actions that were weighed.
    """

    action: Literal["start", "remove", "add"]
    blocks: list[str]
    removed_blocks: list[str]
    predicted_ms: float
    measured_ms: float
    quality: Quality
    candidates: list[Candidate]


class Evaluation(Model):
    """A network's quality, kept so that a resumed run does not measure it again."""

    removed_blocks: list[str]
    quality: Quality


class Size(Model):
    """A target that was reached.

    Attributes:
        target_ms: predicted latency to stay within.
        step: number of the step whose network it is, the first 0.
    """

    target_ms: float
    step: NonNegativeInt


class EvolutionLog(Model):
    """A whole run, step by step.

    Attributes:
        layout: of the file.
        command: that wrote it.
        protocol: model, table, targets and settings; a run resumes under equal ones alone.
        blocks: of the supernet.
        noise: standard deviation of the supernet's figures over sets of samples from other seeds.
        evaluations: every network whose quality was measured.
        steps: from the supernet on.
        sizes: targets that were reached, the highest first.
    """

    layout: Literal["mobilediff.evolution/2"] = Field(default=LAYOUT, alias="schema")
    command: Literal["mobilediff.compression.evolve"] = "mobilediff.compression.evolve"
    protocol: dict
    blocks: list[str]
    noise: Quality
    evaluations: list[Evaluation] = []
    steps: list[Step] = []
    sizes: list[Size] = []

    def step_of(self, size: Size) -> Step:
        """Return the step whose network a size is."""
        return self.steps[size.step]


def read_evolution(file: str | Path) -> EvolutionLog:
    """Read a run's log; errors as in `read_record`."""
    return read_record(file, EvolutionLog, "evolution's log")


class Evolution:
    """Take steps from a supernet to a network within each of some latencies.

    Args:
        log: to go on from; without steps the run begins.
        targets_ms: predicted latencies to reach.
        measure: figure that decides.
        group_size: blocks removed at once, fewer where fewer reach the target.
        predicted_ms: of the supernet without these blocks, from the table.
        measured_ms: the same, timed.
        quality: the same, of the fixed set.
        save: keeps the log, called after every measurement.

    Raises:
        ValueError: no network reaches the lowest target.
    """

    def __init__(
        self,
        log: EvolutionLog,
        targets_ms: Sequence[float],
        measure: Measure,
        group_size: int,
        predicted_ms: Callable[[Collection[str]], float],
        measured_ms: Callable[[Collection[str]], float],
        quality: Callable[[Collection[str]], Quality],
        save: Callable[[EvolutionLog], object],
    ):
        self.log, self.targets_ms, self.group_size = log, sorted(targets_ms, reverse=True), group_size
        self.measure: Measure = measure
        self._predicted_ms, self._measured_ms, self._measured_quality = predicted_ms, measured_ms, quality
        self._save = save
        least, lowest = predicted_ms(log.blocks), min(targets_ms)
        if least > lowest:
            raise ValueError(
                f"target_ms is {lowest}; accepted is {least:.3f} or more, the predicted latency without any block"
            )
        self._known = {tuple(one.removed_blocks): one.quality for one in log.evaluations}

    def run(self) -> EvolutionLog:
        """Take all steps that are left; returns the finished log."""
        if not self.log.steps:
            self._take("start", [], [], [])
        for target_ms in self.targets_ms[len(self.log.sizes) :]:
            while self._moved(self.log.steps[-1].removed_blocks, target_ms):
                pass
            size = Size(target_ms=target_ms, step=len(self.log.steps) - 1)
            self._update(sizes=[*self.log.sizes, size])
        return self.log

    def _moved(self, removed: list[str], target_ms: float) -> bool:
        """Take a step towards a target, if one is left; returns whether it was."""
        if self._predicted_ms(removed) > target_ms:
            self._remove(removed, target_ms)
            return True
        return self._added(removed, target_ms)

    def _remove(self, removed: list[str], target_ms: float) -> None:
        present = [block for block in self.log.blocks if block not in removed]
        candidates = self.weigh(removed, [[*removed, block] for block in present], present)
        values = {one.block: one.value for one in candidates if one.value is not None}
        group = []
        for block in sorted(values, key=values.__getitem__)[: self.group_size]:
            group.append(block)
            if self._predicted_ms([*removed, *group]) <= target_ms:
                break
        self._take("remove", group, [*removed, *group], candidates)

    def _added(self, removed: list[str], target_ms: float) -> bool:
        networks = {block: [one for one in removed if one != block] for block in removed}
        fitting = [block for block in removed if self._predicted_ms(networks[block]) <= target_ms]
        candidates = self.weigh(removed, [networks[block] for block in fitting], fitting)
        values = {one.block: one.value for one in candidates if one.value is not None}
        best = max(values, key=values.__getitem__, default=None)
        if best is None or values[best] <= 0:
            return False
        self._take("add", [best], networks[best], candidates)
        return True

    def weigh(self, removed: list[str], networks: Sequence[list[str]], blocks: Sequence[str]) -> list[Candidate]:
        """Weigh actions on one block each.

        Args:
            removed: blocks that the present network lacks.
            networks: what it would lack after each action.
            blocks: that each action moves.

        Returns:
            The actions, each with its value.
        """
        now_ms, now = self._predicted_ms(removed), self.quality(removed).score(self.measure)
        candidates = []
        for network, block in zip(networks, blocks, strict=True):
            then_ms, quality = self._predicted_ms(network), self.quality(network)
            change = then_ms - now_ms
            value = (quality.score(self.measure) - now) / change if change else None
            candidates.append(Candidate(block=block, predicted_ms=then_ms, quality=quality, value=value))
        return candidates

    def quality(self, removed: Collection[str]) -> Quality:
        """Measure a network's quality once, and keep it in the log."""
        ordered = self._ordered(removed)
        if tuple(ordered) not in self._known:
            quality = self._known[tuple(ordered)] = self._measured_quality(ordered)
            evaluations = [*self.log.evaluations, Evaluation(removed_blocks=ordered, quality=quality)]
            self._update(evaluations=evaluations)
        return self._known[tuple(ordered)]

    def _take(self, action: str, blocks: list[str], removed: Collection[str], candidates: list[Candidate]) -> None:
        ordered = self._ordered(removed)
        step = Step(
            action=action,  # pyright: ignore[reportArgumentType] - one of the three
            blocks=blocks,
            removed_blocks=ordered,
            predicted_ms=self._predicted_ms(ordered),
            measured_ms=self._measured_ms(ordered),
            quality=self.quality(ordered),
            candidates=candidates,
        )
        self._update(steps=[*self.log.steps, step])

    def _ordered(self, removed: Collection[str]) -> list[str]:
        return [block for block in self.log.blocks if block in removed]

    def _update(self, **changes) -> None:
        self.log = self.log.model_copy(update=changes)
        self._save(self.log)
