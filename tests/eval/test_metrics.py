"""Distances, accuracies and scores against closed forms and against torch-fidelity; bad images refused by name."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch_fidelity.fidelity
from PIL import Image
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file

import eval.cli.extractors
import eval.cli.inputs
import eval.clip_score
import eval.extractors.clip
import eval.extractors.inception
import eval.extractors.judge
import eval.extractors.statistics
import eval.measures.clip_score
from eval.accuracy import main as accuracy
from eval.clip_score import main as clip_score_command
from eval.extractors.base import Extractor, extract_features
from eval.extractors.choose import choose_extractor
from eval.extractors.clip import ClipModel, normalized_images
from eval.extractors.features import FeatureSet
from eval.extractors.inception import inception_extractor, load_inception_weights
from eval.extractors.pixels import shrinking, shrunk
from eval.extractors.statistics import load_reference, reference_file
from eval.fid import main as fid
from eval.measures.accuracy import measure_accuracy
from eval.measures.clip_score import clip_score, measure_clip_score
from eval.measures.frechet import distance_label, measure_frechet_distance
from eval.metrics.accuracy import accuracies, top_k_accuracy
from eval.metrics.bootstrap import frechet_interval
from eval.metrics.frechet import Statistics, feature_statistics, frechet_distance
from eval.protocol import tensor_sha256
from eval.quality import main as quality
from eval.samples.images import ImageSet, read_images, resized
from eval.schema import Record
from mobilediff.captions import CLASS_NAMES
from mobilediff.images import resize_images
from mobilediff.models.image_encoder import ImageEncoder
from tests.eval.stand_ins import FEATURES, random_images, write_png_folder
from tests.tiny import PROJECTION_DIM, tiny_text_encoder, tiny_tokenizer


def test_distance_of_a_set_to_itself_is_zero(judge):
    features = extract_features(judge, random_images(300).images, ("features",))["features"]
    assert features.dtype == torch.float64
    statistics = feature_statistics(features)
    assert frechet_distance(statistics, statistics) == pytest.approx(0, abs=1e-9 * statistics.sigma.trace())


@pytest.mark.parametrize("rank", [0, 5, 64])
def test_rounding_takes_no_distance_below_zero(rank):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(600, rank, generator=generator) @ torch.randn(rank, 64, generator=generator) + 1
    statistics = feature_statistics(features)
    assert 0 <= frechet_distance(statistics, statistics) < 1e-3
    assert 0 <= frechet_interval(features, statistics, 40)["estimate"] < 1e-3


@pytest.mark.parametrize("value", [0, 255, None])
def test_one_image_over_and_over_has_the_closed_form_of_a_point(judge, tmp_path, value):
    image = random_images(1).images if value is None else torch.full((1, 3, 32, 32), value, dtype=torch.uint8)
    file, result = tmp_path / "set.npz", tmp_path / "result.json"
    np.savez(file, images=image.expand(600, -1, -1, -1).permute(0, 2, 3, 1).numpy(), class_labels=np.arange(600) % 9)
    fid(["--images", str(file), "--extractor", "judge", "--json", str(result)])
    content = json.loads(result.read_text(), parse_constant=lambda name: pytest.fail(name))
    train = load_reference(reference_file(judge, "train"), judge)
    point = extract_features(judge, image.expand(2, -1, -1, -1), (judge.layer,))[judge.layer][0].numpy()
    expected = ((point - train.mu) ** 2).sum() + train.sigma.trace()
    assert content["frechet_distance_judge"] == pytest.approx(expected)
    interval = content["intervals"]["frechet_distance_judge"]
    assert interval["low"] == pytest.approx(expected) and interval["high"] == pytest.approx(expected)
    assert len(content["class_accuracy_by_class"]) == 9  # one class is missing

    quality(["--images", str(file), "--extractor", "judge", "--json", str(result)])
    content = json.loads(result.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert content["classifier_score_mean"] == pytest.approx(1) and content["kernel_distance_mean"] > 0
    assert content["recall"] == 0 and "seed_distance" not in content


def test_a_set_is_at_no_distance_of_itself_and_its_interval_starts_at_zero(judge, tmp_path):
    folder, result = str(write_png_folder(tmp_path / "set", random_images(40).images)), tmp_path / "result.json"
    fid(["--images", folder, "--reference", folder, "--extractor", "judge", "--json", str(result)])
    content = json.loads(result.read_text())
    assert 0 <= content["frechet_distance_judge"] < 1e-6
    assert content["intervals"]["frechet_distance_judge"]["low"] >= 0


def test_fewer_images_than_a_figure_needs_are_one_sentence(judge, tmp_path):
    folder = str(write_png_folder(tmp_path / "set", random_images(FEATURES).images))
    with pytest.raises(ValueError, match=f"^{FEATURES} images are too few: .* at least {FEATURES + 1}$"):
        fid(["--images", folder, "--extractor", "judge"])
    with pytest.raises(ValueError, match=f"^{FEATURES} logit rows are too few: at least 10 are needed$"):
        quality(["--images", folder, "--extractor", "judge"])


def test_distance_of_two_gaussians_is_the_closed_form():
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    first, second = rng.uniform(0.5, 3, 6), rng.uniform(0.5, 3, 6)
    mu = rng.standard_normal((2, 6))
    # Covariances that commute: tr (S1 S2)^(1/2) is the sum of the roots of the products of their eigenvalues.
    expected = ((mu[0] - mu[1]) ** 2).sum() + ((np.sqrt(first) - np.sqrt(second)) ** 2).sum()
    statistics = [Statistics(m, basis @ np.diag(s) @ basis.T, 0, {}) for m, s in zip(mu, (first, second), strict=True)]
    assert frechet_distance(*statistics) == pytest.approx(expected, rel=1e-10)


def test_distance_equals_torch_fidelity_on_the_same_folders(judge, tmp_path):
    sets = [random_images(60, 3), ImageSet(random_images(70, 4).images // 2)]
    folders = [write_png_folder(tmp_path / str(index), one.images) for index, one in enumerate(sets)]
    options = {"feature_extractor": judge.name, "feature_extractor_weights_path": str(judge.weights), "cuda": False}
    options |= {"cache": False, "save_cpu_ram": True, "verbose": False, "fid": True}
    theirs = torch_fidelity.calculate_metrics(input1=str(folders[0]), input2=str(folders[1]), **options)
    theirs = theirs["frechet_inception_distance"]
    read = [extract_features(judge, read_images(folder).images, ("features",))["features"] for folder in folders]
    ours = frechet_distance(*(feature_statistics(features) for features in read))
    assert theirs > 0.01 and ours == pytest.approx(theirs, rel=1e-6)


def test_the_command_gives_the_distance_of_torch_fidelitys_command(judge, tmp_path, monkeypatch, capsys):
    sets = [random_images(60, 3), ImageSet(random_images(70, 4).images // 2)]
    folders = [str(write_png_folder(tmp_path / str(index), one.images)) for index, one in enumerate(sets)]
    fid(["--images", folders[0], "--reference", folders[1], "--extractor", "judge", "--json", str(tmp_path / "ours")])
    ours = json.loads((tmp_path / "ours").read_text())["frechet_distance_judge"]
    command = ["fidelity", "--cpu", "--json", "--silent", "--fid", "--save-cpu-ram"]
    command += ["--input1", folders[0], "--input2", folders[1], "--feature-extractor", judge.name]
    command += ["--feature-extractor-weights-path", str(judge.weights), "--no-cache"]
    monkeypatch.setattr(sys, "argv", command)
    capsys.readouterr()
    torch_fidelity.fidelity.main()
    theirs = json.loads(capsys.readouterr().out)["frechet_inception_distance"]
    assert theirs > 0.01 and ours == pytest.approx(theirs, rel=1e-6)


def test_result_states_its_protocol_floor_and_accuracy(judge):
    images = random_images(100, 5)
    result = measure_frechet_distance(FeatureSet(images), judge, "test")
    assert set(result) >= {"frechet_distance_judge", "floor", "n", "class_accuracy", "protocol", "samples"}
    assert "frechet_inception_distance" not in result and result["n"] == 100
    assert result["protocol"]["extractor"] == "mobilediff-judge"
    assert result["protocol"]["extractor_sha256"] == judge.sha256
    assert {"reference", "reference_sha256", "resize", "device", "threads", "versions"} <= set(result["protocol"])
    train, test = (load_reference(reference_file(judge, split), judge) for split in ("train", "test"))
    assert result["floor"] == pytest.approx(frechet_distance(test, train))
    features = extract_features(judge, images.images, ("features", "class_logits"), batch_size=7)
    assert result["frechet_distance_judge"] == pytest.approx(
        frechet_distance(feature_statistics(features["features"]), test), rel=1e-6
    )
    hits = features["class_logits"].argmax(1) == images.class_labels
    assert result["class_accuracy"] == pytest.approx(hits.double().mean().item())


def test_darker_images_are_farther_away(judge):
    images = random_images(200, 6).images
    distances = [
        measure_frechet_distance(FeatureSet(ImageSet(images // factor)), judge)["frechet_distance_judge"]
        for factor in (1, 2, 4)
    ]
    assert distances == sorted(distances) and distances[0] < distances[1] / 5


@pytest.mark.parametrize("n", [1, 2, FEATURES])
def test_too_few_images_are_refused(judge, n):
    with pytest.raises(ValueError, match=f"{n} images are too few: the covariance of 8 features needs at least 9"):
        measure_frechet_distance(FeatureSet(random_images(n)), judge)


def test_stale_reference_statistics_are_an_error(judge):
    other = Extractor(judge.name, judge.weights, "f" * 64, judge.layer, judge.result_key, judge.resize)
    with pytest.raises(ValueError, match="is stale.*python -m eval.reference"):
        load_reference(reference_file(judge, "train"), other)
    file = reference_file(judge, "train")
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ValueError, match="train.safetensors is corrupt or truncated"):
        load_reference(file, judge)


def test_top_k_accuracy_and_unknown_nouns():
    logits = torch.tensor([[3.0, 2, 1], [1, 2, 3], [1, 3, 2]])
    assert top_k_accuracy(logits, torch.tensor([0, 1, 0])) == pytest.approx(1 / 3)
    assert top_k_accuracy(logits, torch.tensor([0, 1, 0]), 2) == pytest.approx(2 / 3)
    images = ImageSet(random_images(3).images, torch.tensor([0, 2, 1]), torch.tensor([5, -1, 395]))
    noun_logits = torch.zeros(3, 396)
    noun_logits[0, 5], noun_logits[2, 7], noun_logits[2, 395] = 1, 2, 1
    result = accuracies(
        {"class_logits": logits, "noun_logits": noun_logits}, images.class_labels, images.noun_ids, CLASS_NAMES
    )
    assert result["class_accuracy"] == 1
    assert (result["noun_top1"], result["noun_top5"], result["noun_n"]) == (0.5, 1, 2)


def test_names_of_distances():
    published, other = (
        Extractor("mobilediff-inception-v3-compat", None, sha256, "2048", "frechet_inception_distance", "")
        for sha256 in ("6726825d" + 56 * "0", 64 * "a")
    )
    assert "FID" not in distance_label(other, 50000) and "weights aaaaaaaaaaaa" in distance_label(other, 50000)
    inception = published
    assert [distance_label(inception, n) for n in (50000, 10000, 2500)] == ["FID", "FID@10k", "FID@2500"]
    assert "FID" not in distance_label(
        Extractor("mobilediff-judge", None, "", "features", "frechet_distance_judge", ""), 50000
    )


def test_without_inception_weights_one_line_says_what_is_used(judge, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(
        eval.extractors.inception, "URL_INCEPTION_V3", "http://127.0.0.1:9/weights-inception-2015-12-05-6726825d.pth"
    )
    assert choose_extractor("auto").name == "mobilediff-judge"
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "mobilediff-judge is used" in line and "not FID" in line
    with pytest.raises(FileNotFoundError, match="--extractor-weights FILE"):
        choose_extractor("inception")
    with pytest.raises(FileNotFoundError, match="missing.pth"):
        choose_extractor("auto", tmp_path / "missing.pth")


def test_a_download_of_something_else_is_no_inception(judge, monkeypatch, tmp_path, capsys):
    def download(url, target, hash_prefix):
        raise RuntimeError('invalid hash value (expected "6726825d", got "0")')

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    assert choose_extractor("auto").name == "mobilediff-judge"
    with pytest.raises(FileNotFoundError, match="invalid hash value"):
        choose_extractor("inception")


def test_cached_statistics_of_other_images_are_an_error(judge, monkeypatch, tmp_path):
    other = Extractor("other", judge.weights, judge.sha256, judge.layer, judge.result_key, judge.resize)
    cached = eval.extractors.statistics.reference_file(other, "train")
    statistics = load_reference(reference_file(judge, "train"), judge)
    metadata = statistics.metadata | other.protocol()
    eval.extractors.statistics.save_reference(replace(statistics, metadata=metadata), cached)
    others = ImageSet(torch.empty(0), protocol={"images_sha256": "1"})
    monkeypatch.setattr(eval.extractors.statistics, "real_images", lambda data, split: others)
    assert eval.extractors.statistics.reference_statistics(other, "train").n == 200
    with pytest.raises(ValueError, match="is of other images than elsewhere, CIFAR-10 train"):
        eval.extractors.statistics.reference_statistics(other, "train", "elsewhere")


def test_damaged_weights_of_judge_and_clip_are_named(judge, tmp_path):
    folder = tmp_path / "clip"
    tokenizer = tiny_tokenizer()
    ImageEncoder(block_out_channels=(8,), num_classes=None, projection_dim=PROJECTION_DIM).save_pretrained(
        folder / "image_encoder"
    )
    tiny_text_encoder(tokenizer).save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    eval.extractors.clip.bundled_clip(folder)
    for root, load in ((judge.weights, eval.extractors.judge.load_judge), (folder, eval.extractors.clip.bundled_clip)):
        file = next(path for path in root.rglob("*.safetensors") if "image_encoder" not in path.parts)
        whole = file.read_bytes()
        tensors = load_tensors(whole)  # not load_file, which maps the file that is cut below
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match=f"{file.parent.name} cannot be loaded"):
            load(root)
        tensors.pop(sorted(tensors)[0])
        save_file(tensors, file, metadata={"format": "pt"})
        with pytest.raises(ValueError, match=f"{file.parent.name} lack"):
            load(root)


def random_weight(name: str, value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Values in the shape of a tensor of Inception's, such that signals keep their size on their way through."""
    if value.ndim > 1:  # convolutions, and the last layer
        return torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5
    scale = name.endswith(("bn.weight", "running_var"))
    return (torch.ones if scale else torch.zeros)(value.shape, dtype=value.dtype)


def test_inception_takes_a_weight_file_and_no_pickled_code(tmp_path, monkeypatch):
    base = eval.extractors.inception.FeatureExtractorInceptionV3
    with monkeypatch.context() as patch, torch.device("meta"):  # an untrained network, for its shapes
        patch.setattr("torch.load", lambda *args, **kwargs: {})
        patch.setattr(base, "load_state_dict", lambda self, weights: None)
        shapes = base("inception-v3-compat", ["2048"], feature_extractor_weights_path="any").state_dict()
    file = tmp_path / "weights.pth"
    generator = torch.Generator().manual_seed(0)
    weights = {name: random_weight(name, value, generator) for name, value in shapes.items()}
    torch.save(weights, file)
    save_file(weights, tmp_path / "weights.safetensors")
    images = random_images(2).images
    theirs = base("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(file))(images)[0]
    assert theirs.shape == (2, 2048) and theirs.std() > 0.01
    for one in (file, tmp_path / "weights.safetensors"):
        extractor = inception_extractor(one)
        features = extract_features(extractor, images, (extractor.layer,), progress=False)
        torch.testing.assert_close(features["2048"], theirs, check_dtype=False)
    assert extractor.result_key == "frechet_inception_distance" and "FID" not in distance_label(extractor, 10000)

    class Harmful:
        def __reduce__(self):
            return (print, ("code ran",))

    torch.save({"weights": Harmful()}, file)
    with pytest.raises(ValueError, match="weights.pth is no whole file of Inception weights"):
        load_inception_weights(file)


def clip_of_brightness() -> ClipModel:
    """Images embed as (mean, 1), texts as (their length, 1)."""

    def embed_images(images):
        return torch.stack([images.float().mean(dim=(1, 2, 3)) / 255, torch.ones(len(images))], dim=1)

    def embed_texts(texts):
        return torch.tensor([[float(len(text)), 1.0] for text in texts])

    return ClipModel("stand-in", "0", "none", embed_images, embed_texts)


def test_clip_score_is_the_mean_cosine_times_100():
    images = torch.stack([torch.zeros(3, 32, 32), torch.full((3, 32, 32), 255)]).to(torch.uint8)
    # (0, 1) and (1, 1): cosine 1/sqrt(2); (1, 1) and (1, 1): 1
    expected = 100 * (1 / 2**0.5 + 1) / 2
    assert clip_score(clip_of_brightness(), images, ["a", "b"]) == pytest.approx(expected)
    black = clip_of_brightness(), torch.zeros(600, 3, 32, 32, dtype=torch.uint8), ["a"] * 600
    assert clip_score(*black) == pytest.approx(100 / 2**0.5)
    with pytest.raises(ValueError, match="1 prompts for 2 images"):
        clip_score(clip_of_brightness(), images, ["a"])


def test_clip_score_stands_beside_that_of_real_images_or_is_refused(monkeypatch, tmp_path):
    images = random_images(4)
    images = ImageSet(images.images, images.class_labels, None, ["a cat"] * 4, {"template": "a {}"})
    monkeypatch.delenv("MOBILEDIFF_DATA", raising=False)
    monkeypatch.setattr(eval.measures.clip_score, "SHIPPED_REAL_SCORE", tmp_path / "clip_score.json")
    with pytest.raises(ValueError, match="--data DIR"):
        measure_clip_score(images, clip_of_brightness())
    shipped = {"clip_sha256": "0", "template": "a {}", "clip_score_real": 30.5, "real_n": 10000}
    shipped |= {"real_images": "CIFAR-10 test", "real_images_sha256": "1"}
    (tmp_path / "clip_score.json").write_text(json.dumps(shipped))
    result = measure_clip_score(images, clip_of_brightness())
    assert result["clip_score_real"] == 30.5 and result["protocol"]["template"] == "a {}"
    assert result["protocol"]["real_images_sha256"] == "1"
    assert result["clip_score"] == pytest.approx(100 * result["clip_cosine"])


def test_unknown_clip_models_are_refused():
    with pytest.raises(ValueError, match="open_clip has no 'ViT-Z'"):
        eval.extractors.clip.open_clip_model("ViT-Z:openai")
    with pytest.raises(ValueError, match="accepted are ViT-B-32:TAG with openai"):
        eval.extractors.clip.open_clip_model("ViT-B-32:nobody")


@pytest.fixture
def folder(tmp_path):
    return write_png_folder(tmp_path / "images", random_images(3).images)


def test_images_are_read_as_they_were_written(folder, tmp_path):
    assert bool((read_images(folder).images == random_images(3).images).all())
    np.savez(tmp_path / "set.npz", arr_0=random_images(3).images.permute(0, 2, 3, 1).numpy())
    assert bool((read_images(tmp_path / "set.npz").images == random_images(3).images).all())


def test_empty_and_missing_folders_are_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty holds no images"):
        read_images(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        read_images(tmp_path / "nowhere")


@pytest.mark.parametrize("keep", [10, 60, 2000])
def test_truncated_images_are_refused_by_name(folder, keep):
    file = folder / "000001.png"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match="000001.png is not a whole image"):
        read_images(folder)


def test_corrupted_images_are_refused_by_name(folder):
    content = bytearray((folder / "000001.png").read_bytes())
    content[100] ^= 0xFF
    (folder / "000001.png").write_bytes(content)
    with pytest.raises(ValueError, match="000001.png is not a whole image"):
        read_images(folder)


def test_mixed_sizes_and_modes_are_refused_by_name(folder):
    Image.new("RGB", (64, 32)).save(folder / "000002.png")
    with pytest.raises(ValueError, match="000002.png is 64x32 pixels but 000000.png is 32x32"):
        read_images(folder)
    Image.new("L", (32, 32)).save(folder / "000002.png")
    with pytest.raises(ValueError, match="000002.png has mode L"):
        read_images(folder)


def test_bad_npz_files_are_refused_by_name(tmp_path):
    file = tmp_path / "set.npz"
    for bad in (np.zeros((2, 32, 32, 3)), np.zeros((2, 32, 32), dtype=np.uint8), np.zeros((0, 8, 8, 3), np.uint8)):
        np.savez(file, images=bad)
        with pytest.raises(
            ValueError, match=f"set.npz: images is {bad.dtype} .*accepted is uint8, or float32 in 0..1"
        ):
            read_images(file)
    np.savez(file, pictures=np.zeros(2))
    with pytest.raises(ValueError, match="expected the images as 'images' or 'arr_0'"):
        read_images(file)
    np.savez(file, images=np.array([object()]))
    with pytest.raises(ValueError, match="plain arrays"):
        read_images(file)
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(ValueError, match="set.npz is not a whole npz"):
        read_images(file)


@pytest.mark.parametrize(("value", "named"), [(-1, "-1.0"), (1.5, "1.5"), (np.nan, "nan"), (np.inf, "inf")])
def test_floats_are_rounded_to_8_bits_and_refused_out_of_range(tmp_path, value, named):
    file, images = tmp_path / "set.npz", np.random.default_rng(0).random((3, 8, 8, 3), dtype=np.float32)
    np.savez(file, images=images)
    read = read_images(file)
    assert read.images.dtype == torch.uint8 and "8 bits" in read.protocol["rounded"]
    assert np.abs(read.images.permute(0, 2, 3, 1).numpy() / 255 - images).max() <= 0.5 / 255 + 1e-6
    images[1, 4, 4, 0] = value
    np.savez(file, images=images)
    with pytest.raises(ValueError, match=f"set.npz: images holds {named} in image 1; accepted of float32 is 0..1"):
        read_images(file)


@pytest.mark.parametrize("command", [fid, accuracy, clip_score_command])
def test_a_single_image_is_refused_by_every_metric_before_any_work(judge, tmp_path, command, monkeypatch):
    monkeypatch.setattr(eval.clip_score, "shipped_real_score", lambda clip: None)
    monkeypatch.setattr(eval.cli.extractors, "bundled_clip", lambda folder, device: None)
    monkeypatch.setattr(eval.cli.inputs, "sampler_from_arguments", lambda args: pytest.fail("loaded"))
    folder = str(write_png_folder(tmp_path / "images", random_images(1).images))
    options = ["--extractor", "judge"] if command is fid else []
    with pytest.raises(ValueError, match="images: 1 image is too few, at least 2"):
        command(["--images", folder, *options])
    with pytest.raises(ValueError, match="1 (images are|is) too few"):
        command(["--model", "any", "--n", "1", *options])


def test_images_are_resized_by_lanczos_and_say_so():
    images = replace(random_images(3), images=random_images(3).images[:, :, :16, :16])
    large = resized(images, 32)
    expected = Image.fromarray(images.images[2].permute(1, 2, 0).contiguous().numpy()).resize((32, 32), Image.LANCZOS)
    assert (large.images[2].permute(1, 2, 0).numpy() == np.asarray(expected)).all()
    assert large.protocol["resized"] == "Lanczos (Pillow), from 16x16" and large.class_labels is images.class_labels
    assert large.protocol["images_sha256"] == tensor_sha256(large.images)
    assert resized(images, 16) is images
    with pytest.raises(ValueError, match="16x8 pixels; --resize takes square images"):
        resized(replace(images, images=images.images[:, :, :8]), 32)
    with pytest.raises(ValueError, match="--resize 0"):
        resized(images, 0)


@pytest.mark.parametrize("size", [(24, 24), (64, 32)])
def test_smaller_images_and_oblongs_are_refused_by_the_judge(judge, size):
    with pytest.raises(ValueError, match=r"accepted is \[N, 3, 32, 32\]"):
        measure_frechet_distance(FeatureSet(ImageSet(torch.zeros(20, 3, *size, dtype=torch.uint8))), judge)


def test_larger_images_are_shrunk_to_what_the_judge_takes(judge):
    images = random_images(20)
    large = replace(images, images=resize_images(images.images, 64))
    small = resized(large, 32)
    for layer, features in FeatureSet(large).of(judge).items():
        assert torch.equal(features, FeatureSet(small).of(judge)[layer])
    of_large, of_small = (measure_frechet_distance(FeatureSet(one), judge, resamples=0) for one in (large, small))
    for figure in (judge.result_key, "class_accuracy", "n"):
        assert of_large[figure] == of_small[figure]
    said = {"image_size": "64x64", "resized": "Lanczos (Pillow), from 64x64"}
    assert of_large["protocol"] == of_small["protocol"] | said and "resized" not in of_small["protocol"]
    Record.model_validate({"frechet_distance": of_large})
    accuracy_of_large = measure_accuracy(FeatureSet(large), judge)
    assert accuracy_of_large["class_accuracy"] == of_small["class_accuracy"]
    assert accuracy_of_large["protocol"]["resized"] == said["resized"]


def test_only_squares_of_more_pixels_are_shrunk():
    ramp = torch.arange(64, dtype=torch.uint8).mul(4).expand(1, 3, 64, 64)  # brightness grows along a row
    expected = Image.fromarray(ramp[0].permute(1, 2, 0).contiguous().numpy()).resize((32, 32), Image.LANCZOS)
    small = shrunk(ramp, 32)
    assert torch.equal(small[0], torch.from_numpy(np.array(expected)).permute(2, 0, 1))
    # away from the borders a pixel is the mean of two neighbours, 4 apart: the filter is symmetric
    assert torch.equal(small[0, 0, 0, 4:28], torch.arange(4, 28, dtype=torch.uint8) * 8 + 2)
    for kept, size in ((ramp, 64), (ramp, None), (ramp, 100), (ramp[..., :48], 32)):
        assert shrunk(kept, size) is kept and shrinking(kept, size) == {}


def test_clip_sees_larger_images_shrunk():
    seen = []
    clip = replace(clip_of_brightness(), input_size=32)
    clip = replace(clip, embed_images=lambda images, embed=clip.embed_images: seen.append(images) or embed(images))
    large = resize_images(random_images(3).images, 64)
    normalized_images(clip, large, progress=False)
    assert torch.equal(seen[0], shrunk(large, 32))
    assert clip.protocol(large) == clip.protocol() | {"resized": "Lanczos (Pillow), from 64x64"}


def test_prompts_without_their_template_have_no_clip_score(tmp_path):
    images = random_images(3).images.permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "set.npz", images=images, prompts=np.array(["a cat", "a dog", "a frog"]))
    with pytest.raises(ValueError, match="no protocol says the template"):
        measure_clip_score(read_images(tmp_path / "set.npz"), clip_of_brightness())
    protocol = json.dumps({"model": "mine"})
    np.savez(tmp_path / "set.npz", images=images, class_labels=np.arange(3), protocol=np.array(protocol))
    with pytest.raises(ValueError, match="set.npz has a protocol that no result can state: .* lack device_name"):
        accuracy(["--images", str(tmp_path / "set.npz")])


BROKEN = {
    "page": b"<html>no</html>",
    "text": b"hello world",
    "stop": b"\x80\x02.",
    "cut": b"\x80\x02}q\x00(X",
    "empty": b"",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_in_inceptions_cache_is_named_with_what_to_do(tmp_path, monkeypatch, content):
    monkeypatch.setattr(eval.extractors.inception, "inception_cache", lambda: tmp_path / "weights.pth")
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(ValueError, match="weights.pth is no whole file .* delete it to have it downloaded again"):
        load_inception_weights(tmp_path / "weights.pth")


@pytest.mark.parametrize("content", [{"a": torch.zeros(1)}, [torch.zeros(1)], {"a": 3}], ids=["names", "list", "int"])
def test_tensors_of_another_network_are_no_inception(tmp_path, content):
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(ValueError, match="weights.pth (holds no weights of this Inception|is no whole file)"):
        extract_features(inception_extractor(tmp_path / "weights.pth"), random_images(2).images, ("2048",))
