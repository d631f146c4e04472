"""Stage `classifier`."""

import pytest
import torch

from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.training.classifier import Classifier, ClassifierOptions, whiten_stem
from tests.mobilediff.training.runs import read_records, run, tiny_options


def test_the_export_names_classes_and_nouns(tmp_path, data_folder):
    network = {"block_out_channels": [8, 8]}
    values = tiny_options(tmp_path / "judge", data_folder, ema_decay=0.0, sample_every=3, network=network)
    assert run(Classifier, ClassifierOptions, values)
    assert ImageEncoder.from_pretrained(tmp_path / "judge" / "export").config.num_nouns == 396
    assert {"test_class_accuracy", "test_noun_accuracy"} <= set(read_records(tmp_path / "judge")[-1])


def test_whitened_stem_decorrelates_patches():
    encoder = ImageEncoder(stem_channels=24, stem_kernel_size=2, block_out_channels=(8,))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(64, 3, 32, 32, generator=generator).cumsum(-1)
    whiten_stem(encoder, images, epsilon=1e-6)
    responses = encoder.conv_stem(images)[:, :12].permute(1, 0, 2, 3).flatten(1)
    torch.testing.assert_close(responses @ responses.T / responses.shape[1], torch.eye(12), atol=1e-2, rtol=0)
    with pytest.raises(ValueError, match="24 channels, not 8"):
        whiten_stem(ImageEncoder(stem_channels=8, stem_kernel_size=2), images)
