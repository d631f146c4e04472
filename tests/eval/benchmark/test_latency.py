"""Latency on tiny checkpoints and peers: turns, counts, what is refused. No speed is asserted."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel

import eval.benchmark.latency
import eval.latency
import eval.reporting.records
from eval.benchmark.latency import PARTS, interleave, measure_latency, peak_memory, speed_ups, timed_parts
from eval.benchmark.mobilegen import MobileGenUNet
from eval.benchmark.peers import PEERS, Peer, PeerConfig, load_peers
from eval.benchmark.size import network_inputs
from eval.latency import main, named_models
from mobilediff.models.macs import count_params_and_macs
from mobilediff.threads import WAIT_POLICY, wait_policy
from mobilediff.timing import summary
from tests.tiny import tiny_pipeline

CPU = torch.device("cpu")
MEGABYTE = 2**20
TINY = {"sample_size": 8, "block_out_channels": (8,), "layers_per_block": 1, "norm_num_groups": 4}
TINY_DDPM = TINY | {"down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)}
TINY_SD = TINY | {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
TINY_SD |= {"cross_attention_dim": 8, "attention_head_dim": 2}


@pytest.fixture
def tiny_peers(monkeypatch):
    """Every peer with a tiny network of its class, and 2 steps where it has steps."""
    for name, config in PEERS.items():
        tiny = {UNet2DModel: TINY_DDPM, UNet2DConditionModel: TINY_SD, MobileGenUNet: {"sample_size": 8}}
        steps = config.num_inference_steps and 2
        monkeypatch.setitem(PEERS, name, replace(config, config=tiny[config.network_class], num_inference_steps=steps))


def tiny_peer(steps: int | None = 2) -> Peer:
    config = PeerConfig("tiny", UNet2DModel, TINY_DDPM, steps)
    return Peer(config, config.build())


def test_calls_take_turns_and_the_second_of_two_is_timed(monkeypatch):
    log = []

    def logged_seconds(call, device):
        call()
        log[-1] = log[-1].upper()
        return 0.001

    monkeypatch.setattr(eval.benchmark.latency, "seconds", logged_seconds)
    times = interleave({"a": lambda: log.append("a"), "b": lambda: log.append("b")}, CPU, 3, 60)
    warm_up, rounds = log[:4], log[4:]
    assert [name.lower() for name in warm_up] == ["a", "a", "b", "b"]
    assert rounds == ["a", "A", "b", "B"] * 3 and {len(runs) for runs in times.values()} == {3}
    log.clear()
    calls = {"a": lambda: log.append("a"), "b": lambda: log.append("b")}
    interleave(calls, CPU, 3, 60, before={"b": lambda: log.append("c")})
    assert log[4:] == ["a", "A", "c", "B"] * 3


def test_a_slow_call_has_one_warm_up_and_three_runs(monkeypatch):
    log, duration = [], {"slow": 100.0, "middling": 8.0, "quick": 0.1}

    def fake_seconds(call, device):
        call()
        return duration[log[-1]]

    monkeypatch.setattr(eval.benchmark.latency, "seconds", fake_seconds)
    calls = {name: lambda name=name: log.append(name) for name in duration}
    times = interleave(calls, CPU, rounds=20, max_seconds=30)
    assert {name: len(runs) for name, runs in times.items()} == {"slow": 3, "middling": 4, "quick": 20}
    assert {name: log.count(name) for name in duration} == {"slow": 1 + 3, "middling": 2 + 2 * 4, "quick": 2 + 2 * 20}


def test_models_take_turns_at_each_part():
    log = []

    class LoggedPeer(Peer):
        def timed_parts(self, batch_size):
            name = self.config.source
            return {part: lambda part=part: log.append((part, name)) for part in super().timed_parts(batch_size)}

    config = PeerConfig("one", UNet2DModel, TINY_DDPM, 2)
    peers = {name: LoggedPeer(replace(config, source=name), config.build()) for name in ("one", "two")}
    measure_latency(peers, threads=1, rounds=3)
    turn = [(part, name) for part in ("network_call", "image") for name in peers for _ in range(2)]
    assert log == turn * 4  # the warm-up and three rounds


def test_latency_is_of_every_part_with_the_threads_put_back():
    before = torch.get_num_threads()
    pipelines = {"one": tiny_pipeline("student-1step"), "pruned": tiny_pipeline("student-1step-pruned")}
    measured = measure_latency(pipelines, threads=1, rounds=3)
    assert torch.get_num_threads() == before
    protocol = measured["protocol"]
    assert (protocol["wait_policy"], protocol["neighbours"]) == (wait_policy(), 0)
    assert (protocol["batch_size"], protocol["threads"], protocol["interleaved_with"]) == (1, 1, ["one", "pruned"])
    assert protocol["matrix_peak_fp32_gflops"] > 0 and protocol["matrix_peak_bf16_gflops"] > 0
    for parts in measured["models"].values():
        assert tuple(parts) == PARTS
        assert all(0 < part["median_ms"] <= part["p90_ms"] and part["runs"] == 3 for part in parts.values())
        assert not any("peak_memory_bytes" in part for part in parts.values())


def test_median_and_p90():
    assert summary([0.01 * i for i in range(1, 11)]) == pytest.approx({"median_ms": 55, "p90_ms": 90, "runs": 10})


def test_throughput_and_fraction_of_peak_follow_from_the_median():
    pipeline, batch_size = tiny_pipeline("student-1step"), 3
    measured = measure_latency({"one": pipeline}, threads=1, rounds=3, batch_size=batch_size)
    assert measured["protocol"]["batch_size"] == batch_size
    for part in measured["models"]["one"].values():
        assert part["images_per_second"] * part["median_ms"] / 1000 == pytest.approx(batch_size)
    call = measured["models"]["one"]["network_call"]
    macs = count_params_and_macs(pipeline.unet, network_inputs(pipeline, batch_size))[1]
    rate = 2 * macs / (call["median_ms"] / 1000)
    assert call["fraction_of_peak"] == pytest.approx(rate / 1e9 / measured["protocol"]["matrix_peak_fp32_gflops"])


@pytest.mark.parametrize("model", ["student-1step", "teacher", "peer"])
def test_a_call_at_a_batch_size_is_that_many_samples(model):
    many_steps = model == "teacher"
    model = tiny_peer() if model == "peer" else tiny_pipeline(model)
    once, thrice = (count_params_and_macs(model.unet, network_inputs(model, size))[1] for size in (1, 3))
    assert thrice == 3 * once
    parts = timed_parts(model, 3)
    assert len(parts["network_call"]().sample) == 3
    assert many_steps or len(parts["image"]().images) == 3


def test_peak_memory_is_what_a_call_holds_at_once():
    def call():
        first, second = (torch.empty(size * MEGABYTE, dtype=torch.uint8) for size in (10, 5))
        del first
        return second, torch.empty(7 * MEGABYTE, dtype=torch.uint8)

    assert peak_memory(call, CPU) == 15 * MEGABYTE
    weights = torch.zeros(20 * MEGABYTE, dtype=torch.uint8)
    assert peak_memory(weights.clone, CPU) == 20 * MEGABYTE  # the result alone
    assert peak_memory(lambda: None, CPU) == 0


def test_memory_grows_with_the_batch_and_holds_the_output():
    models = {"checkpoint": tiny_pipeline("student-1step"), "peer": tiny_peer()}
    small, large = (
        measure_latency(models, threads=1, rounds=3, batch_size=batch_size, memory=True)["models"]
        for batch_size in (1, 8)
    )
    for name, parts in large.items():
        for part, record in parts.items():
            assert record["peak_memory_bytes"] > small[name][part]["peak_memory_bytes"] > 0
    assert large["checkpoint"]["vae_decoder"]["peak_memory_bytes"] >= 8 * 3 * 32 * 32 * 4
    assert large["checkpoint"]["image"]["peak_memory_bytes"] >= 8 * 3 * 32 * 32 * 4
    assert large["peer"]["image"]["peak_memory_bytes"] >= 8 * 3 * 8 * 8 * 4


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("ddpm-cifar10-ddim-50", 35_746_307),
        ("ddpm-cifar10-ddim-100", 35_746_307),
        ("sd-1.5-unet", 859_520_964),
        ("bk-sdm-tiny-unet", 323_384_964),
        ("mobilegen-unet", 7_917_699 - 1_180_672),  # without the block that its forward leaves out
    ],
)
def test_peers_have_the_published_number_of_parameters(name, params):
    with torch.device("meta"):
        peer = Peer(PEERS[name], PEERS[name].build())
    size = peer.size()
    assert size["params_total"] == size["params_unet"] == params
    assert size["macs_network_call"] > 1e9
    if steps := PEERS[name].num_inference_steps:
        assert size["nfe"] == steps and size["macs_image"] == steps * size["macs_network_call"]
    else:
        assert list(peer.timed_parts(1)) == ["network_call"] and size.get("nfe") == PEERS[name].network_calls


def test_mobilegen_costs_the_published_operations_and_its_attention():
    with torch.device("meta"):
        macs = Peer(PEERS["mobilegen-unet"], PEERS["mobilegen-unet"].build()).size()["macs_network_call"]
    places = {128: (32**2, 16**2), 256: (16**2, 8**2), 64: (32**2, 64**2)}  # of the attentions, by channels
    attention = sum(4 * n * c**2 + 2 * n**2 * c for c, counts in places.items() for n in counts)
    # published are 21,134,376,960 for ten images by fvcore, which counts no attention but normalisations
    assert macs - attention == pytest.approx(2_113_437_696, rel=0.01)


def test_mobilegen_predicts_noise_of_the_images_shape_by_class_and_timestep():
    torch.manual_seed(0)
    network, sample = MobileGenUNet(sample_size=16).eval(), torch.randn(2, 3, 16, 16)

    @torch.no_grad()
    def predict(timestep, label):
        return network(sample, torch.tensor([timestep] * 2), torch.tensor([label] * 2))

    noise = predict(500, 1)
    assert noise.shape == sample.shape and torch.equal(noise, predict(500, 1))
    assert not torch.allclose(noise, predict(500, 2)) and not torch.allclose(noise, predict(400, 1))


@pytest.mark.parametrize("name", ["ddpm-cifar10-ddim-50", "ddpm-cifar10-ddim-100"])
def test_ddpm_calls_its_network_once_a_step(name):
    config = replace(PEERS[name], config=TINY_DDPM)
    peer, calls = Peer(config, config.build()), []
    peer.unet.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    images = peer.timed_parts(2)["image"]().images
    assert calls == [2] * int(name.rsplit("-", 1)[1]) and [image.size for image in images] == [(8, 8)] * 2


def test_peers_of_one_source_share_a_network(tiny_peers):
    peers = load_peers(list(PEERS))
    fifty, hundred, sd, tiny, _ = peers.values()
    assert fifty.unet is hundred.unet and isinstance(sd.unet, UNet2DConditionModel) and sd.unet is not tiny.unet
    with pytest.raises(ValueError, match="peer is 'sdxl'; accepted are ddpm-cifar10-ddim-50"):
        load_peers(["sdxl"])


def test_speed_ups_leave_out_what_makes_no_image():
    models = {"slow": {"image": {"median_ms": 30}}, "quick": {"image": {"median_ms": 10}}, "call": {}}
    assert speed_ups(models, "slow") == {"slow": 1, "quick": 3}
    for bad in ("none", "call"):
        with pytest.raises(ValueError, match=f"baseline is '{bad}'; measured are slow, quick"):
            speed_ups(models, bad)


@pytest.mark.slow
def test_the_command_measures_models_and_peers_at_every_batch_size(tiny_peers, checkpoints, tmp_path, capsys):
    checkpoint, base, file = checkpoints / "student-1step", "ddpm-cifar10-ddim-100", tmp_path / "result.json"
    arguments = ["--model", str(checkpoint), "--peers", "--baseline", base, "--batch-sizes", "2", "1", "2"]
    main([*arguments, "--rounds", "3", "--threads", "1", "--neighbours", "1", "--json", str(file)])
    result = json.loads(file.read_text())
    names = ["student-1step", *PEERS]
    assert list(result["models"]) == names and result["baseline"] == base
    for name, size in result["models"].items():
        assert size["weights"] == ("random" if name in PEERS else "checkpoint")
        assert size["weights_memory_bytes"] == 4 * size["params_total"]
    assert [batch["protocol"]["batch_size"] for batch in result["batches"]] == [2, 1]
    for batch in result["batches"]:
        assert batch["protocol"]["interleaved_with"] == list(batch["models"]) == names
        assert batch["protocol"]["neighbours"] == 1
        assert batch["times_faster"][base] == 1 and "sd-1.5-unet" not in batch["times_faster"]
        assert list(batch["models"]["sd-1.5-unet"]) == ["network_call"]
        assert list(batch["models"]["ddpm-cifar10-ddim-100"]) == ["network_call", "image"]
        for parts in batch["models"].values():
            assert parts["network_call"]["fraction_of_peak"] > 0
            assert all(part["peak_memory_bytes"] > 0 for part in parts.values())
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.startswith("model") and header.endswith(f"x {base}")
    assert [line.split()[:2] for line in lines[: 2 * len(names)]] == [[n, b] for b in ("2", "1") for n in names]
    assert max(map(len, lines[: 2 * len(names)])) == len(header)
    assert f"Threads: 1, OMP_WAIT_POLICY {wait_policy()}; busy processes beside: 1." in lines
    assert lines[-1] == f"Random weights: {', '.join(PEERS)}."


def test_a_baseline_is_a_name_or_a_folder(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    other.mkdir()
    assert named_models([str(one)], [], "one") == ({"one": one}, "one")
    assert named_models([str(one)], [], str(other)) == ({"one": one, "other": other}, "other")
    assert named_models([str(other)], [], str(other)) == ({"other": other}, "other")
    assert named_models([str(one)], ["ddpm-cifar10-ddim-50"], "ddpm-cifar10-ddim-50")[1] == "ddpm-cifar10-ddim-50"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch-sizes", "1", "65"], "batch_size is 65; accepted is 1 to 64"),
        (["--batch-sizes", "0"], "batch_size is 0; accepted is 1 to 64"),
        (["--threads", "0"], "threads is 0; accepted is 1 to 1024"),
        (["--neighbours", "-1"], "neighbours is -1; accepted is 0 to 64"),
        (["--neighbours", "65"], "neighbours is 65; accepted is 0 to 64"),
        (["--rounds", "2"], "rounds is 2; accepted is 3 or more"),
        (["--max-seconds", "0"], "max_seconds is 0.0"),
        (["--max-seconds", "nan"], "max_seconds is nan"),
        (["--max-seconds", "inf"], "max_seconds is inf"),
        (["--model", "a/teacher", "b/teacher"], "have one name"),
        (["--model", "a/sd-1.5-unet", "--peers"], "have one name"),
        (["--baseline", "teacher"], "baseline is 'teacher'; accepted are a checkpoint folder, any"),
        (["--peers", "sd-1.5-unet", "--baseline", "sd-1.5-unet"], "which makes no image"),
    ],
)
def test_bad_options_are_refused_before_anything_is_loaded(arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(eval.latency, "load_sampler", lambda *args: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=message):
        main(["--model", "any", *arguments])


def test_nothing_to_measure_is_refused(capsys):
    with pytest.raises(ValueError, match="nothing to measure; accepted are --model FOLDER and --peers"):
        main([])
    with pytest.raises(ValueError, match="no models"):
        measure_latency({})
    with pytest.raises(ValueError, match="batch_size is 65"):
        measure_latency({"peer": tiny_peer()}, batch_size=65)
    with pytest.raises(SystemExit):
        main(["--peers", "sdxl"])
    assert "invalid choice: 'sdxl' (choose from 'ddpm-cifar10-ddim-50'" in capsys.readouterr().err


def test_the_report_keeps_its_latency_until_the_run_is_another(checkpoints, tmp_path, monkeypatch):
    folder = checkpoints / "student-1step"
    monkeypatch.setattr(eval.reporting.records, "measure_latency", partial(measure_latency, rounds=3))
    report = eval.reporting.records.Report(tmp_path / "results.json", tmp_path, {"student-1step": folder}, {}, 2000)
    report.latency(threads=1)
    kept = report.record("student-1step")["latency"]
    assert tuple(kept) == (*PARTS, "protocol") and kept["protocol"]["batch_size"] == 1
    monkeypatch.setattr(eval.reporting.records, "measure_latency", lambda *args: pytest.fail("measured again"))
    report.latency(threads=1)
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        report.latency(threads=2)


@pytest.mark.parametrize("stated", [{"wait_policy": "ACTIVE"}, {"wait_policy": None}, {"neighbours": 2}])
def test_timings_under_other_conditions_are_measured_again(checkpoints, tmp_path, monkeypatch, stated):
    monkeypatch.setenv(WAIT_POLICY, "PASSIVE")
    file, folder = tmp_path / "results.json", checkpoints / "student-1step"
    report = partial(eval.reporting.records.Report, file, tmp_path, {"student-1step": folder}, {}, 2000)
    monkeypatch.setattr(eval.reporting.records, "measure_latency", partial(measure_latency, rounds=3))
    first = report()
    first.latency(threads=1)
    assert first.record("student-1step")["latency"]["protocol"]["wait_policy"] == "PASSIVE"
    results = json.loads(file.read_text())
    protocol = results["records"]["student-1step"]["latency"]["protocol"] | stated
    kept = {key: value for key, value in protocol.items() if value is not None}  # an old file lacks the entry
    results["records"]["student-1step"]["latency"]["protocol"] = kept
    file.write_text(json.dumps(results))
    monkeypatch.setattr(eval.reporting.records, "measure_latency", lambda *args: pytest.fail("measured again"))
    with pytest.raises(pytest.fail.Exception, match="measured again"):
        report().latency(threads=1)
