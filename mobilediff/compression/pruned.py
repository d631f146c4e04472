"""Record what pruned networks measure, by ratio, and how much a network depends on each of its layers."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from mobilediff.compression.evolution import Quality
from mobilediff.compression.latency import Runtime
from mobilediff.compression.pruning import Method
from mobilediff.compression.records import Model, read_record

CURVE_LAYOUT = "mobilediff.pruning-curve/1"
SENSITIVITY_LAYOUT = "mobilediff.sensitivity/1"
Ratio = Annotated[float, Field(gt=0, lt=1)]


class TurnTime(Model):
    """The time of a network's call and of the unpruned one's, which took turns with it.

    Attributes:
        median_ms, unpruned_ms: medians.
    """

    median_ms: PositiveFloat
    unpruned_ms: PositiveFloat

    @property
    def relative(self) -> float:
        """Return the time as a fraction of the unpruned network's."""
        return self.median_ms / self.unpruned_ms


class PruningPoint(Model):
    """A pruned network and what it measures.

    Attributes:
        method: that pruned it; None of the unpruned network.
        pruning_ratio: fraction of each layer's weights, of each block's inner channels or of the blocks; 0 of the
            unpruned network.
        repair_steps: of the stage `prune` afterwards, 0 without.
        removed_blocks: by the method "blocks".
        params: of the network, zeros among them.
        nonzero_params: those that are not 0.
        macs: of a call for one sample, those with zeros among them.
        weights_bytes: of its safetensors file, float16.
        gzip_bytes: of that file compressed.
        quality: of the fixed set.
        latency: of a call, by runtime that was timed.
    """

    method: Method | None
    pruning_ratio: Annotated[float, Field(ge=0, lt=1)]
    repair_steps: NonNegativeInt
    removed_blocks: list[str]
    params: PositiveInt
    nonzero_params: PositiveInt
    macs: PositiveInt
    weights_bytes: PositiveInt
    gzip_bytes: PositiveInt
    quality: Quality
    latency: dict[Runtime, TurnTime] = {}

    @property
    def key(self) -> tuple[Method | None, float, int]:
        """Return what tells the point from the others of a curve."""
        return self.method, self.pruning_ratio, self.repair_steps


class PruningCurve(Model):
    """All points that were measured of one checkpoint under one protocol.

    Attributes:
        layout: of the file.
        command: that wrote it.
        protocol: model and settings; further points are measured under equal ones alone. Settings of the latency and
            of the repair are there once either was asked for.
        noise: standard deviation of the unpruned network's figures over sets of samples from other seeds.
        block_errors: relative error of the latents without each single block; the blocks of the smallest go first.
        points: the unpruned network first.
    """

    layout: Literal["mobilediff.pruning-curve/1"] = Field(default=CURVE_LAYOUT, alias="schema")
    command: Literal["mobilediff.compression.curve"] = "mobilediff.compression.curve"
    protocol: dict
    noise: Quality
    block_errors: dict[str, NonNegativeFloat]
    points: list[PruningPoint] = []

    def at(self, key: tuple[Method | None, float, int]) -> PruningPoint | None:
        """Return the point of a key, None where it was not measured."""
        return next((one for one in self.points if one.key == key), None)

    def with_point(self, point: PruningPoint) -> Self:
        """Copy the curve with a point at its end, or in the place of the one of its key."""
        points = {one.key: one for one in self.points} | {point.key: point}
        return self.model_copy(update={"points": list(points.values())})

    def runtimes(self) -> list[Runtime]:
        """List the runtimes in which any point was timed."""
        return list(dict.fromkeys(runtime for one in self.points for runtime in one.latency))

    def line(self, method: Method, repair_steps: int) -> list[PruningPoint]:
        """List the points of a method and number of repair steps, by ratio."""
        points = [one for one in self.points if (one.method, one.repair_steps) == (method, repair_steps)]
        return sorted(points, key=lambda one: one.pruning_ratio)


class LayerError(Model):
    """The error of the latents when one layer alone is pruned.

    Attributes:
        layer: module name.
        pruning_ratio: fraction of its weights that is 0.
        error: relative, see `FixedLatents`.
    """

    layer: str
    pruning_ratio: Ratio
    error: NonNegativeFloat


class Sensitivity(Model):
    """The errors of a checkpoint's layers.

    Attributes:
        layout: of the file.
        command: that wrote it.
        protocol: model and settings; further errors are measured under equal ones alone.
        layers: weights of each convolution and linear layer, in the network's order.
        errors: in the order measured.
    """

    layout: Literal["mobilediff.sensitivity/1"] = Field(default=SENSITIVITY_LAYOUT, alias="schema")
    command: Literal["mobilediff.compression.sensitivity"] = "mobilediff.compression.sensitivity"
    protocol: dict
    layers: dict[str, PositiveInt]
    errors: list[LayerError] = []

    def ratios(self) -> list[float]:
        """List the ratios that were measured, from the lowest on."""
        return sorted({one.pruning_ratio for one in self.errors})

    def of(self, pruning_ratio: float) -> dict[str, float]:
        """Return the errors at a ratio, by layer."""
        return {one.layer: one.error for one in self.errors if one.pruning_ratio == pruning_ratio}


def read_curve(file: str | Path) -> PruningCurve:
    """Read a curve's record; errors as in `read_record`."""
    return read_record(file, PruningCurve, "pruning curve")


def read_sensitivity(file: str | Path) -> Sensitivity:
    """Read a sensitivity's record; errors as in `read_record`."""
    return read_record(file, Sensitivity, "record of sensitivities")
