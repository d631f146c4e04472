"""DINOv2 and CLIP as extractors, on tiny networks: what goes in and comes out, what is refused, what it is called."""

import json

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import Dinov2Config, Dinov2Model

import eval.extractors.dinov2
from eval.extractors.base import extract_features
from eval.extractors.choose import choose_extractor
from eval.extractors.dinov2 import IMAGENET_MEAN, IMAGENET_STD, dinov2_inputs
from eval.extractors.features import FeatureSet
from eval.extractors.open_clip import load_open_clip
from eval.measures.frechet import distance_label, measure_frechet_distance
from eval.protocol import file_sha256
from tests.eval.stand_ins import random_images, write_png_folder

TINY_CLIP = {
    "embed_dim": 6,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 8, "head_width": 4, "patch_size": 8},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=8, num_hidden_layers=2, num_attention_heads=2, image_size=56, patch_size=28, initializer_range=0.5
    )
    folder = tmp_path_factory.mktemp("dinov2")
    Dinov2Model(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def clip_weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    (folder / "tiny-clip.json").write_text(json.dumps(TINY_CLIP))
    (folder / "tiny-clip-quickgelu.json").write_text(json.dumps(TINY_CLIP | {"quick_gelu": True}))
    open_clip.add_model_config(folder)
    torch.manual_seed(0)
    save_file(open_clip.create_model("tiny-clip").state_dict(), folder / "weights.safetensors")
    return folder / "weights.safetensors"


@pytest.mark.parametrize("size", [32, 300])
def test_dinov2_gets_what_pillow_would_make_of_the_image(size):
    image = torch.randint(0, 256, (1, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    picture = Image.fromarray(image[0].permute(1, 2, 0).numpy()).resize((224, 224), Image.BICUBIC)
    expected = (np.asarray(picture) / 255 - IMAGENET_MEAN) / IMAGENET_STD
    difference = np.abs(dinov2_inputs(image)[0].permute(1, 2, 0).numpy() - expected) * IMAGENET_STD * 255
    assert difference.max() < 2.1 and difference.mean() < 0.01  # Pillow's weights are of fixed point


def test_dinov2_gives_its_class_token_and_a_distance_of_its_own_name(dinov2, judge, tmp_path):
    extractor = choose_extractor("dinov2", dinov2)
    images = random_images(12)
    features = extract_features(extractor, images.images, (extractor.layer,), batch_size=5)[extractor.layer]
    with torch.no_grad():
        expected = Dinov2Model.from_pretrained(dinov2).eval()(dinov2_inputs(images.images)).pooler_output
    assert features.std() > 0.1
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    folder = str(write_png_folder(tmp_path / "real", random_images(12, 1).images))
    result = measure_frechet_distance(FeatureSet(images), extractor, folder)
    assert result["frechet_distance_dinov2"] > 0 and not any("inception" in key for key in result)
    assert result["protocol"]["extractor"] == "transformers-dinov2" and "224x224" in result["protocol"]["resize"]
    assert result["protocol"]["extractor_sha256"] == file_sha256(dinov2 / "model.safetensors")
    assert "FID" not in distance_label(extractor, 50000) and "class_accuracy" in result


def test_dinov2_comes_from_the_hub_where_no_folder_is_named(dinov2, monkeypatch):
    asked = []

    def download(name, file):
        asked.append((name, file))
        return str(dinov2 / file)

    monkeypatch.setattr(eval.extractors.dinov2, "hf_hub_download", download)
    assert choose_extractor("dinov2").weights == dinov2
    assert asked == [("facebook/dinov2-base", "config.json"), ("facebook/dinov2-base", "model.safetensors")]

    def offline(name, file):
        raise OSError("no network")

    monkeypatch.setattr(eval.extractors.dinov2, "hf_hub_download", offline)
    with pytest.raises(
        FileNotFoundError, match="no network.*huggingface.co/facebook/dinov2-base.*--extractor-weights"
    ):
        choose_extractor("dinov2")


def test_a_dinov2_that_is_pickled_cut_or_not_whole_is_refused(dinov2, tmp_path):
    Dinov2Model.from_pretrained(dinov2).save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    tensors, content = load_file(dinov2 / "model.safetensors"), weights.read_bytes()
    images = random_images(2).images
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="cannot be loaded"):
        extract_features(choose_extractor("dinov2", tmp_path), images, ("class_token",))
    tensors.pop("layernorm.weight")
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lack layernorm.weight"):
        extract_features(choose_extractor("dinov2", tmp_path), images, ("class_token",))
    weights.unlink()
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="has no model.safetensors"):
        choose_extractor("dinov2", tmp_path)


def test_clip_gives_its_image_embedding_and_a_distance_of_its_own_name(clip_weights, judge, tmp_path):
    extractor = choose_extractor("clip", clip_weights, "tiny-clip")
    images = random_images(12)
    features = extract_features(extractor, images.images, (extractor.layer,), batch_size=5)[extractor.layer]
    network = open_clip.create_model("tiny-clip").eval()
    network.load_state_dict(load_file(clip_weights))
    mean, std = (
        torch.tensor(values)[:, None, None] for values in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    with torch.no_grad():
        expected = network.encode_image((images.images / 255 - mean) / std)  # of 32x32 already
    assert features.shape == (12, 6) and features.std() > 0.01
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    folder = str(write_png_folder(tmp_path / "real", random_images(12, 1).images))
    result = measure_frechet_distance(FeatureSet(images), extractor, folder)
    assert result["frechet_distance_clip"] > 0 and result["protocol"]["clip_model"] == "tiny-clip"
    other = choose_extractor("clip", clip_weights, "tiny-clip-quickgelu")
    # the same weights in another architecture have a cache of their own
    measure_frechet_distance(FeatureSet(images), other, folder)
    assert extractor.sha256 == other.sha256


def test_clip_weights_are_refused_by_name_and_no_pickle_is_run(clip_weights, tmp_path, monkeypatch, capsys):
    with pytest.raises(ValueError, match="--extractor clip needs --clip-model ARCHITECTURE:TAG"):
        choose_extractor("clip", clip_weights)
    with pytest.raises(FileNotFoundError, match="missing.safetensors does not exist"):
        choose_extractor("clip", tmp_path / "missing.safetensors", "tiny-clip")
    with pytest.raises(ValueError, match="tiny-clip:TAG with a file"):
        choose_extractor("clip", None, "tiny-clip:nobody")

    class Harmful:
        def __reduce__(self):
            return (print, ("code ran",))

    torch.save({"visual.proj": Harmful()}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match="weights.pt is no whole file of tiny-clip's weights"):
        choose_extractor("clip", tmp_path / "weights.pt", "tiny-clip")
    assert "code ran" not in capsys.readouterr().out

    def offline(*args, **options):
        raise RuntimeError("no network")

    monkeypatch.setattr(open_clip, "create_model_and_transforms", offline)
    with pytest.raises(FileNotFoundError, match="no network.*laion/CLIP-ViT-B-32.*--extractor-weights FILE"):
        choose_extractor("clip", None, "ViT-B-32:laion2b_s34b_b79k")


def test_clip_weights_of_another_activation_are_refused():
    with pytest.raises(ValueError, match="another activation.*-quickgelu"):
        load_open_clip("ViT-B-32:openai")


def test_options_of_another_extractor_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--clip-model is an option of --extractor clip"):
        choose_extractor("dinov2", tmp_path, "ViT-B-32:openai")
    with pytest.raises(ValueError, match="judge is bundled: it takes no --extractor-weights"):
        choose_extractor("judge", tmp_path)
