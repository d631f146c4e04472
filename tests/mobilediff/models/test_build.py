"""Networks from a config, with or without given weights."""

import json

import pytest
import torch

from mobilediff.models.build import build_network
from tests.tiny import tiny_unet


def test_a_network_starts_from_given_weights_of_its_config_alone(tmp_path):
    trained = tiny_unet("teacher")
    trained.save_pretrained(tmp_path / "unet")
    config = {**trained.config, "_class_name": type(trained).__name__}
    latents = torch.zeros(2, config["in_channels"], config["sample_size"], config["sample_size"])
    (tmp_path / "network.json").write_text(json.dumps(config))
    network = build_network(str(tmp_path / "network.json"), latents, str(tmp_path / "unet"))
    assert network.training
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in network.state_dict().items())
    wider = [2 * channels for channels in config["block_out_channels"]]
    (tmp_path / "wider.json").write_text(json.dumps({**config, "block_out_channels": wider}))
    with pytest.raises(ValueError, match="unet are of another network than .*wider.json"):
        build_network(str(tmp_path / "wider.json"), latents, str(tmp_path / "unet"))
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        build_network(str(tmp_path / "network.json"), latents, "nowhere")
