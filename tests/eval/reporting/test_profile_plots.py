"""The picture of a profile has a panel a runtime and bars for each kind and floor."""

import matplotlib.pyplot as plt
import pytest
from PIL import Image

from eval.reporting import profile_plots
from mobilediff.compression.layers import Layer
from mobilediff.compression.profiled import LayerTime, Peaks, Profile, RuntimeProfile


def test_each_kind_of_a_runtime_has_a_bar_beside_its_floors(tmp_path, monkeypatch):
    peaks = Peaks(gflops=50, gigabytes_per_second=10)
    linear = LayerTime.of(Layer(name="a", operator="mm", kind="linear", macs=25 * 10**6, bytes=10**6), peaks, 3.0)
    add = LayerTime.of(Layer(name="b", operator="add", kind="other", macs=0, bytes=10**6), peaks, 0.5)
    images = {"image_ms": 4, "image_p90_ms": 4, "profiled_image_ms": 4}
    runtimes = {
        "pytorch": RuntimeProfile(**images, layers=[linear, add]),
        "onnxruntime": RuntimeProfile(**images, layers=[linear]),
    }
    profile = Profile(model="m", model_sha256="0" * 64, protocol={}, peaks=peaks, runtimes=runtimes)  # pyright: ignore[reportArgumentType]
    drawn, save = [], profile_plots.save_figure

    def save_figure(figure: plt.Figure, file):
        for axes in figure.axes:
            drawn.append([bar.get_width() for bars in axes.containers for bar in bars])
        save(figure, file)

    monkeypatch.setattr(profile_plots, "save_figure", save_figure)
    profile_plots.draw_profile(profile, tmp_path / "profile.png")
    # measured, arithmetic floor and bytes floor, linear before other
    assert drawn == [pytest.approx([3, 0.5, 1, 0, 0.1, 0.1]), pytest.approx([3, 0, 1, 0, 0.1, 0])]
    with Image.open(tmp_path / "profile.png") as image:
        image.load()
        assert image.mode == "P"
