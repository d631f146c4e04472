"""The contract of a model: what diffusers and torch users do with any of them, for every model of the package."""

import copy
import json
import pickle

import pytest
import torch
from diffusers.models.modeling_utils import ModelMixin

from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.models.mobile_unet import MobileUNet
from tests.tiny import HIDDEN_SIZE, LATENT_CHANNELS, LATENT_SIZE, PROJECTION_DIM, tiny_unet

BATCH = 2


def encoder() -> ImageEncoder:
    widths = {"stem_channels": 4, "block_out_channels": (6, 8), "layers_per_block": 2}
    return ImageEncoder(**widths, residual=True, num_classes=10, num_nouns=7, projection_dim=5)


def inputs_of(model: ModelMixin) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    dtype = model.dtype
    if isinstance(model, ImageEncoder):
        return {"images": torch.rand(BATCH, 3, 16, 16, generator=generator).to(dtype) * 2 - 1}
    return {
        "sample": torch.randn(BATCH, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE, generator=generator).to(dtype),
        "timestep": torch.tensor([10, 900]),
        "encoder_hidden_states": torch.randn(BATCH, 6, HIDDEN_SIZE, generator=generator).to(dtype),
        "class_labels": torch.randn(BATCH, PROJECTION_DIM, generator=generator).to(dtype),
    }


def flat(output: tuple) -> list[torch.Tensor]:
    return [tensor for one in output for tensor in (one if isinstance(one, tuple) else (one,))]


@torch.no_grad()
def outputs_of(model: ModelMixin, **arguments) -> list[torch.Tensor]:
    return flat(model.eval()(**inputs_of(model), return_dict=False, **arguments))


def public_config(model: ModelMixin) -> dict:
    return {name: value for name, value in json.loads(model.to_json_string()).items() if not name.startswith("_")}


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.fixture(params=["student", "student-1step-pruned", "encoder"])
def model(request) -> ModelMixin:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = encoder() if request.param == "encoder" else tiny_unet(request.param)
    assert isinstance(model, (ImageEncoder, MobileUNet))
    return model.eval()


class TestModelContract:
    def test_equal_inputs_give_equal_outputs(self, model):
        first = outputs_of(model)
        assert equal(first, outputs_of(model)) and all(torch.isfinite(tensor).all() for tensor in first)

    def test_return_dict_false_gives_the_same_in_a_tuple(self, model):
        with torch.no_grad():
            named = model(**inputs_of(model))
        assert equal(flat(named.to_tuple()), outputs_of(model))

    def test_save_and_load_keep_config_and_outputs(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        loaded = type(model).from_pretrained(tmp_path)
        assert public_config(loaded) == public_config(model) and not loaded.training
        assert equal(outputs_of(loaded), outputs_of(model))

    def test_weights_in_several_files_are_the_same(self, model, tmp_path):
        model.save_pretrained(tmp_path, max_shard_size="5KB")
        assert len(list(tmp_path.glob("*.safetensors"))) > 1
        assert equal(outputs_of(type(model).from_pretrained(tmp_path)), outputs_of(model))

    def test_the_precision_is_chosen_at_loading(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        loaded = type(model).from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.bfloat16}
        for near, exact in zip(outputs_of(loaded), outputs_of(model), strict=True):
            assert torch.nn.functional.cosine_similarity(near.float().flatten(), exact.flatten(), dim=0) > 0.99

    def test_the_config_makes_a_model_of_the_same_weights(self, model, tmp_path):
        model.save_config(tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        new = type(model).from_config(config)
        shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
        assert {name: tensor.shape for name, tensor in new.state_dict().items()} == shapes
        new.load_state_dict(model.state_dict())
        assert equal(outputs_of(new), outputs_of(model))

    @pytest.mark.parametrize("way", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
    def test_a_copy_computes_the_same_and_is_of_its_own(self, model, way):
        before, twin = outputs_of(model), way(model)
        assert equal(outputs_of(twin), before)
        with torch.no_grad():
            next(twin.parameters()).add_(1)
        assert equal(outputs_of(model), before) and not equal(outputs_of(twin), before)

    def test_gradients_reach_every_parameter(self, model):
        sum(tensor.square().mean() for tensor in flat(model.train()(**inputs_of(model), return_dict=False))).backward()
        missing = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        assert not missing and all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())

    def test_channels_last_computes_the_same(self, model):
        before = outputs_of(model)
        for one, other in zip(outputs_of(model.to(memory_format=torch.channels_last)), before, strict=True):
            assert torch.allclose(one, other, atol=1e-5)
