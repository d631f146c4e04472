"""Parts and networks handed to an injected timer: what is timed, and what is predicted from it."""

import pytest
import torch

from eval.benchmark.blocks import (
    EMPTY,
    check_runtimes,
    in_turns_with,
    measure_blocks,
    measure_runtime,
    prepared_by,
    random_removals,
)
from eval.benchmark.size import network_inputs
from mobilediff.compression.blocks import block_names, remove_blocks
from tests.tiny import tiny_pipeline

# Seconds of each kind of part, of an empty call, and of a network.
SECONDS = {"embedding": 3, "stem": 4, "resnet": 5, "transformer": 7, "downsampler": 2, "upsampler": 6, "head": 3}
SECONDS |= {"shortcut": 1.5, "a": 1, "network": 50}


def timer(calls, device, rounds, max_seconds, before):
    """Three runs of the kind's time; every call is made once."""
    assert all(isinstance(call(), torch.Tensor | list) for call in (*calls.values(), *before.values()))
    assert set(before) == {key for key in calls if key != EMPTY and not key.startswith("network")}
    return {key: [SECONDS[key.split()[0]] / 1000] * rounds for key in calls}


def test_parts_add_up_to_the_prediction_of_each_network():
    pipeline = tiny_pipeline("student-1step")
    removals = [[], ["mid_block.attentions.0"], ["down_blocks.0.resnets.0", "up_blocks.1.resnets.1"]]
    table = measure_runtime(pipeline, "pytorch", removals, 1, 3, 60, timer=timer)
    assert table.call_ms == 1
    assert {part.kind: part.median_ms for part in table.parts.values()} == {
        kind: value for kind, value in SECONDS.items() if kind not in ("a", "network")
    }
    # of each part its time without the empty call's: embedding, stem, 6 resnets, 4 transformers, the resamplers, head
    whole = 1 + 2 + 3 + 6 * 4 + 4 * 6 + 1 + 5 + 2
    # the identity in the place of a transformer and of the first ResNet block, a convolution in that of the last
    expected = [whole, whole - 6, whole - 4 - 4 + 0.5]
    assert [network.predicted_ms for network in table.networks] == pytest.approx(expected)
    assert [network.removed_blocks for network in table.networks] == removals
    errors = [100 * (value - 50) / 50 for value in expected]
    assert [network.error_percent for network in table.networks] == pytest.approx(errors)


def test_the_result_states_machine_threads_and_versions():
    pipeline, threads = tiny_pipeline("student"), torch.get_num_threads()
    result = measure_blocks(pipeline, ["pytorch"], 2, 1, 3, 60, timer=timer)
    assert result["protocol"]["threads"] == 1 and torch.get_num_threads() == threads
    assert {"device_name", "versions", "rounds"} <= set(result["protocol"])
    assert len(result["runtimes"]["pytorch"].networks) == 2 and result["dtype"] == "fp32"
    with pytest.raises(ValueError, match="the network is a UNet2DConditionModel; accepted is a MobileUNet"):
        measure_blocks(tiny_pipeline("teacher"), ["pytorch"], 2, 1, 3, 60, timer=timer)


def test_a_network_takes_turns_with_the_unpruned_one():
    pipeline, called = tiny_pipeline("student-1step"), []

    def counting(calls, device, rounds, max_seconds, before):
        called.append({key: call() for key, call in calls.items()})
        return {"network": [0.002] * rounds, "unpruned": [0.005, 0.004, 0.004]}

    smaller = remove_blocks(pipeline.unet, ["mid_block.attentions.0"])
    with in_turns_with(pipeline.unet, network_inputs(pipeline), 1, 3, 60, counting) as latency:
        time = latency(smaller, "pytorch")
        assert latency(pipeline.unet, "pytorch") == time
        assert torch.is_grad_enabled()
    assert time.median_ms == pytest.approx(2) and time.unpruned_ms == pytest.approx(4)
    assert time.relative == pytest.approx(0.5)
    assert not torch.equal(called[0]["network"], called[0]["unpruned"])
    assert torch.equal(called[1]["network"], called[1]["unpruned"])


def test_removals_spread_from_none_to_all_but_one():
    names = list("abcdefghij")
    removals = random_removals(names, 4)
    assert [len(removed) for removed in removals] == [0, 3, 6, 9]
    assert all(removed == sorted(removed) for removed in removals)
    assert removals == random_removals(names, 4) != random_removals(names, 4, seed=1)
    assert random_removals(names, 1) == [[]] and random_removals(names, 0) == []


def test_an_unknown_runtime_is_named():
    with pytest.raises(ValueError, match="runtime is 'tflite'; accepted are pytorch, onnxruntime"):
        check_runtimes(["pytorch", "tflite"], torch.device("cpu"))
    with pytest.raises(ValueError, match="the device is cuda, but onnxruntime runs on the CPU"):
        check_runtimes(["onnxruntime"], torch.device("cuda"))


@pytest.mark.slow
def test_onnxruntime_computes_what_pytorch_does():
    for library in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(library, reason="the extra ondevice is not installed: pip install '.[ondevice]'")
    unet = tiny_pipeline("student-1step").unet.eval().requires_grad_(False)
    block, temb = unet.get_submodule("down_blocks.1.resnets.0"), torch.randn(1, unet.config.block_out_channels[0] * 4)
    assert "down_blocks.1.resnets.0" in block_names(unet)
    feature_map = torch.randn(1, 16, 8, 8)
    with prepared_by("onnxruntime", 1) as prepare:
        (output,) = prepare(block, (feature_map, temb))()
    torch.testing.assert_close(torch.from_numpy(output), block(feature_map, temb), rtol=1e-4, atol=1e-5)
