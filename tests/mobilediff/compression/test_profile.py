"""The command of the profile on a tiny checkpoint: its table, file and picture, and what is refused."""

import pytest
from PIL import Image

from mobilediff import timing
from mobilediff.compression import profile
from mobilediff.compression.layers import Layer
from mobilediff.compression.profiled import LayerTime, Peaks, RuntimeProfile, read_profile


@pytest.fixture
def command(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "COPIED_BYTES", 2**12)
    model = ["--model", str(checkpoints / "student-1step"), "--output", str(tmp_path / "run")]
    return [*model, "--threads", "1", "--rounds", "3"]


def test_the_command_prints_writes_and_draws_the_profile(command, tmp_path, capsys):
    profile.main(command)
    record = read_profile(tmp_path / "run" / "profile.json")
    assert record.model == "student-1step" and list(record.runtimes) == ["pytorch"]
    assert record.protocol["threads"] == 1 and {"device_name", "versions", "rounds"} <= set(record.protocol)
    runtime = record.runtimes["pytorch"]
    names = {layer.name for layer in runtime.layers}
    assert {"network.unet.conv_in", "network.unet.mid_block.attentions.0.attn1.to_q", "decoder"} <= names
    printed = capsys.readouterr().out
    assert printed.startswith(f"pytorch: image {runtime.image_ms:.2f} ms, arithmetic floor ")
    assert f"all layers together {runtime.total.median_ms:.2f} ms, a profiled image" in printed
    assert f"matrix product {record.peaks.gflops:.1f} GFLOP/s" in printed
    with Image.open(tmp_path / "run" / "profile.png") as image:
        image.load()


def test_the_headline_says_whether_the_aim_is_reached():
    peaks = Peaks(gflops=50, gigabytes_per_second=10)
    layer = Layer(name="a", operator="b", kind="linear", macs=25 * 10**6, bytes=10**6)
    layers = [LayerTime.of(layer, peaks, 2.0)]
    said = []
    for image_ms in (4.0, 4.2):
        runtime = RuntimeProfile(image_ms=image_ms, image_p90_ms=5, profiled_image_ms=6, layers=layers)
        said.append(profile.headline("onnxruntime", runtime))
    expected = "onnxruntime: image 4.00 ms, arithmetic floor 1.00 ms, 4.0 times (aim 4: reached)"
    assert said[0].splitlines()[0] == expected and "4.2 times (aim 4: missed)" in said[1]
    assert said[0].splitlines()[1] == "bytes floor 0.10 ms; all layers together 2.00 ms, a profiled image 6.00 ms"


def test_layers_faster_than_their_floor_leave_the_aim_open():
    layer = Layer(name="a", operator="b", kind="linear", macs=25 * 10**6, bytes=10**6)
    layers = [LayerTime.of(layer, Peaks(gflops=50, gigabytes_per_second=10), 0.9)]
    runtime = RuntimeProfile(image_ms=2, image_p90_ms=5, profiled_image_ms=6, layers=layers)
    assert "(aim 4: unknown, as the layers are faster than the floor" in profile.headline("pytorch", runtime)


def test_the_table_has_kinds_and_the_slowest_layers():
    peaks = Peaks(gflops=50, gigabytes_per_second=10)
    layers = [
        LayerTime.of(Layer(name=f"layer{index}", operator="add", kind="other", macs=0, bytes=10**6), peaks, index)
        for index in range(20)
    ]
    layers.append(LayerTime.of(Layer(name="view", operator="t", kind="reshape or copy", macs=0, bytes=0), peaks, 0.5))
    runtime = RuntimeProfile(image_ms=1, image_p90_ms=1, profiled_image_ms=1, layers=layers)
    kinds, slowest = profile.table(runtime).split("\n\nslowest layers\n")
    rows = [line.split() for line in kinds.splitlines()]
    assert rows[1] == ["reshape", "or", "copy", "1", "0.00", "0.00", "0.000", "0.000", "0.500"]
    assert rows[2] == ["other", "20", "0.00", "20.00", "0.000", "2.000", "190.000", "95.0"]
    assert rows[3][0] == "all" and rows[3][1] == "21"
    names = [line.split()[0] for line in slowest.splitlines()[1:]]
    assert names == [f"layer{index}" for index in range(19, 4, -1)]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--threads 0", "threads is 0; accepted is 1 to 1024"),
        ("--rounds 2", "rounds is 2; accepted is 3 or more"),
        ("--max-seconds 0", "max_seconds is 0.0; accepted is a number above 0"),
    ],
)
def test_bad_options_are_refused_before_anything_is_loaded(option, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        profile.main(["--model", "nowhere", "--output", str(tmp_path / "run"), *option.split()])


def test_an_unknown_runtime_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        profile.main(["--model", "nowhere", "--output", str(tmp_path / "run"), "--runtimes", "tflite"])
    assert "invalid choice: 'tflite'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("teacher", "the network is a UNet2DConditionModel; accepted is a MobileUNet"),
        ("student", "guidance_distilled is False"),
        ("student-8step", r"num_inference_steps is 1, this scheduler accepts \[8\]"),
    ],
)
def test_a_checkpoint_of_several_steps_is_refused(kind, message, command, checkpoints):
    with pytest.raises(ValueError, match=message):
        profile.main([*command, "--model", str(checkpoints / kind)])
