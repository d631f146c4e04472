"""Predict a network's latency from a table of its parts' times (SnapFusion, arXiv 2306.00980, section 4.1).

The table holds the median time of each kind, width and resolution, measured once a machine and runtime. A call of a
runtime costs something without any work, which the network pays once and each part alone as well:

    T(network) = c + sum over the parts p of max(T(p) - c, 0),    c the time of a call that does nothing
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from mobilediff.compression.parts import Kind, Part
from mobilediff.compression.records import Model, read_record

Runtime = Literal["pytorch", "onnxruntime"]
LAYOUT = "mobilediff.latency-table/1"


class PartTime(Model):
    """The measured time of a part.

    Attributes:
        kind, width, resolution: as of `Part`.
        median_ms, p90_ms: of the timed runs.
        runs: timed.
    """

    kind: Kind
    width: PositiveInt
    resolution: tuple[PositiveInt, PositiveInt]
    median_ms: PositiveFloat
    p90_ms: PositiveFloat
    runs: PositiveInt


class NetworkCheck(Model):
    """A whole network's measured time beside the predicted one.

    Attributes:
        removed_blocks: that the network lacks.
        predicted_ms, measured_ms: medians.
        error_percent: 100 * (predicted - measured) / measured.
    """

    removed_blocks: list[str]
    predicted_ms: NonNegativeFloat
    measured_ms: PositiveFloat
    error_percent: float


class RuntimeTable(Model):
    """The times of one runtime.

    Attributes:
        call_ms: of a call that does nothing.
        parts: by `Part.key`.
        networks: whole networks, to see how far the sum is from what it predicts.
    """

    call_ms: NonNegativeFloat
    parts: dict[str, PartTime]
    networks: list[NetworkCheck] = []

    def part_ms(self, part: Part) -> float:
        """Return the milliseconds that a part adds to a network.

        Raises:
            ValueError: the table lacks the part; names it.
        """
        if part.key not in self.parts:
            raise ValueError(
                f"the latency table has no {part.key!r}, which {part.name} needs; accepted are tables of a network "
                "with these parts: python -m mobilediff.compression.latency_table"
            )
        return max(self.parts[part.key].median_ms - self.call_ms, 0.0)

    def network_ms(self, parts: Sequence[Part]) -> float:
        """Predict the milliseconds of a network from its parts; errors as in `part_ms`."""
        return self.call_ms + sum(map(self.part_ms, parts))


class LatencyTable(Model):
    """The times of a network's parts on one machine.

    Attributes:
        layout: of the file.
        command: that measured it.
        model: name of the checkpoint whose parts they are.
        model_sha256: of its folder.
        batch_size: samples of a call.
        dtype: of weights and activations.
        protocol: rounds, device, threads, versions.
        runtimes: times by runtime.
    """

    layout: Literal["mobilediff.latency-table/1"] = Field(alias="schema")
    command: Literal["mobilediff.compression.latency_table"]
    model: str
    model_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    batch_size: PositiveInt
    dtype: Literal["fp32"]
    protocol: dict
    runtimes: dict[Runtime, RuntimeTable]

    def of(self, runtime: str) -> RuntimeTable:
        """Return the times of a runtime.

        Raises:
            ValueError: it was not measured; names those that were.
        """
        if runtime not in self.runtimes:
            raise ValueError(f"runtime is {runtime!r}; accepted are those of the table: {', '.join(self.runtimes)}")
        return self.runtimes[runtime]  # pyright: ignore[reportArgumentType] - it is one of them


def read_latency_table(file: str | Path) -> LatencyTable:
    """Read a table that `python -m mobilediff.compression.latency_table` wrote; errors as in `read_record`."""
    return read_record(file, LatencyTable, "latency table")
