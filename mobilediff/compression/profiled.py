"""Record the time of each layer of a checkpoint's image, beside the floors that the machine's peaks set.

arithmetic floor = 2 MACs / peak,    bytes floor = bytes / bandwidth
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat

from mobilediff.compression.latency import Runtime
from mobilediff.compression.layers import KINDS, Kind, Layer
from mobilediff.compression.records import Model, read_record

LAYOUT = "mobilediff.profile/1"


class Peaks(Model):
    """The best rates of a machine.

    Attributes:
        gflops: of a product of square float32 matrices, GFLOP/s.
        gigabytes_per_second: of a copy in memory, read and written bytes together.
    """

    gflops: PositiveFloat
    gigabytes_per_second: PositiveFloat


class LayerTime(Layer):
    """A layer with its time.

    Attributes:
        arithmetic_floor_ms, bytes_floor_ms: by the machine's peaks.
        median_ms: of the profiled calls.
    """

    arithmetic_floor_ms: NonNegativeFloat
    bytes_floor_ms: NonNegativeFloat
    median_ms: NonNegativeFloat

    @classmethod
    def of(cls, layer: Layer, peaks: Peaks, median_ms: float) -> Self:
        """Add a layer's time and floors."""
        return cls(
            **layer.model_dump(),
            arithmetic_floor_ms=2 * layer.macs / peaks.gflops / 1e6,
            bytes_floor_ms=layer.bytes / peaks.gigabytes_per_second / 1e6,
            median_ms=median_ms,
        )


class Total(Model):
    """Sums over layers.

    Attributes:
        layers: how many.
        macs, bytes, arithmetic_floor_ms, bytes_floor_ms, median_ms: as of `LayerTime`.
    """

    layers: int
    macs: int
    bytes: int
    arithmetic_floor_ms: float
    bytes_floor_ms: float
    median_ms: float

    @classmethod
    def of(cls, layers: Sequence[LayerTime]) -> Self:
        """Add up layers."""
        sums = {name: sum(getattr(layer, name) for layer in layers) for name in cls.model_fields if name != "layers"}
        return cls(layers=len(layers), **sums)


class RuntimeProfile(Model):
    """The times of one runtime.

    Attributes:
        image_ms, image_p90_ms: of a whole image without profiling.
        profiled_image_ms: median of a whole image while its layers are timed.
        layers: in the order they run.
    """

    image_ms: PositiveFloat
    image_p90_ms: PositiveFloat
    profiled_image_ms: PositiveFloat
    layers: list[LayerTime]

    @property
    def total(self) -> Total:
        """Return the sums over all layers."""
        return Total.of(self.layers)

    @property
    def times_arithmetic_floor(self) -> float:
        """Return the time of an image without profiling over its arithmetic floor."""
        return self.image_ms / self.total.arithmetic_floor_ms

    def by_kind(self) -> dict[Kind, Total]:
        """Add up the layers of each kind that there is."""
        kinds = {kind: [layer for layer in self.layers if layer.kind == kind] for kind in KINDS}
        return {kind: Total.of(layers) for kind, layers in kinds.items() if layers}


class Profile(Model):
    """The layers of a checkpoint's image on one machine.

    Attributes:
        layout: of the file.
        command: that measured it.
        model: name of the checkpoint.
        model_sha256: of its folder.
        protocol: rounds, device, threads, versions.
        peaks: of the machine, with these threads.
        runtimes: times by runtime.
    """

    layout: Literal["mobilediff.profile/1"] = Field(default=LAYOUT, alias="schema")
    command: Literal["mobilediff.compression.profile"] = "mobilediff.compression.profile"
    model: str
    model_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    protocol: dict
    peaks: Peaks
    runtimes: dict[Runtime, RuntimeProfile]


def read_profile(file: str | Path) -> Profile:
    """Read a profile that `python -m mobilediff.compression.profile` wrote; errors as in `read_record`."""
    return read_record(file, Profile, "profile")
