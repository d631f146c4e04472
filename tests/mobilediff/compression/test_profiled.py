"""Floors from given peaks, sums by kind, and a file that reads back."""

import json

import pytest

from mobilediff.compression.layers import Kind, Layer
from mobilediff.compression.profiled import LayerTime, Peaks, Profile, RuntimeProfile, read_profile

PEAKS = Peaks(gflops=50, gigabytes_per_second=10)


def layer(kind: Kind, macs: int, moved: int, median_ms: float) -> LayerTime:
    return LayerTime.of(Layer(name="a", operator="b", kind=kind, macs=macs, bytes=moved), PEAKS, median_ms)


@pytest.fixture
def profile():
    layers = [layer("linear", 10**7, 10**6, 1.5), layer("other", 0, 2 * 10**6, 0.25), layer("linear", 10**7, 0, 0.5)]
    runtime = RuntimeProfile(image_ms=2.4, image_p90_ms=3, profiled_image_ms=2.5, layers=layers)
    return Profile(model="m", model_sha256="0" * 64, protocol={}, peaks=PEAKS, runtimes={"pytorch": runtime})


def test_floors_are_work_over_the_peaks():
    one = layer("linear", 10**7, 10**6, 1.5)
    # 2e7 operations at 50e9 a second; 1e6 bytes at 10e9 a second
    assert one.arithmetic_floor_ms == pytest.approx(0.4) and one.bytes_floor_ms == pytest.approx(0.1)
    assert one.median_ms == 1.5


def test_layers_add_up_by_kind_and_in_all(profile):
    runtime = profile.runtimes["pytorch"]
    sums = {kind: (total.layers, total.macs, total.median_ms) for kind, total in runtime.by_kind().items()}
    assert sums == {"linear": (2, 2 * 10**7, 2.0), "other": (1, 0, 0.25)}
    total = runtime.total
    assert (total.layers, total.bytes, total.median_ms) == (3, 3 * 10**6, 2.25)
    assert total.arithmetic_floor_ms == pytest.approx(0.8) and total.bytes_floor_ms == pytest.approx(0.3)
    assert runtime.times_arithmetic_floor == pytest.approx(3)


def test_a_profile_reads_back_what_was_written(profile, tmp_path):
    file, content = tmp_path / "profile.json", profile.model_dump(mode="json", by_alias=True)
    assert content["schema"] == "mobilediff.profile/1"
    file.write_text(json.dumps(content))
    assert read_profile(file) == profile
    file.write_text(json.dumps(content | {"peaks": {"gflops": 0, "gigabytes_per_second": 1}}))
    with pytest.raises(ValueError, match="is no profile: peaks.gflops"):
        read_profile(file)
