"""LoRA adapters of the network: added, saved, loaded, swapped and removed by diffusers' own methods."""

from pathlib import Path

import peft
import torch
from peft.utils import get_peft_model_state_dict

from tests.checkpoints.drawing import draw
from tests.tiny import tiny_pipeline

WEIGHTS = "pytorch_lora_weights.safetensors"


def with_adapter(seed: int):
    """A pipeline whose network has a random adapter; scaled by lora_alpha / r = 2."""
    pipeline = tiny_pipeline("student-1step")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = peft.LoraConfig(r=2, lora_alpha=4, target_modules=["to_q", "to_v"], init_lora_weights=False)
        pipeline.unet.add_adapter(config)
    return pipeline


def saved(pipeline, folder: Path) -> Path:
    metadata = pipeline.unet.peft_config["default"].to_dict()
    layers = get_peft_model_state_dict(pipeline.unet)
    pipeline.save_lora_weights(folder, unet_lora_layers=layers, unet_lora_adapter_metadata=metadata)
    return folder


def test_adapters_are_loaded_swapped_and_removed(tmp_path):
    first, second = with_adapter(seed=1), with_adapter(seed=2)
    folders = [saved(first, tmp_path / "first"), saved(second, tmp_path / "second")]
    plain, with_first, with_second = draw(tiny_pipeline("student-1step")), draw(first), draw(second)
    assert not torch.allclose(with_first, plain, atol=1e-3) and not torch.allclose(with_first, with_second, atol=1e-3)

    pipeline = tiny_pipeline("student-1step")
    for name, folder in zip(("a", "b"), folders, strict=True):
        pipeline.load_lora_weights(folder, weight_name=WEIGHTS, adapter_name=name)
    for name, expected in (("a", with_first), ("b", with_second)):
        pipeline.set_adapters(name)
        torch.testing.assert_close(draw(pipeline), expected, rtol=0, atol=1e-4)
    pipeline.disable_lora()
    torch.testing.assert_close(draw(pipeline), plain, rtol=0, atol=1e-4)
    pipeline.enable_lora()
    pipeline.unload_lora_weights()
    assert torch.equal(draw(pipeline), plain)

    pipeline.load_lora_weights(folders[0], weight_name=WEIGHTS, adapter_name="a")
    pipeline.load_lora_weights(folders[1], weight_name=WEIGHTS, adapter_name="a", hotswap=True)
    torch.testing.assert_close(draw(pipeline), with_second, rtol=0, atol=1e-4)


def test_an_adapter_of_the_text_encoder_changes_the_embeddings(tmp_path):
    """By the product of its matrices; what the pipeline kept of the prompt is not taken."""
    pipeline, changed, layers = tiny_pipeline("student-1step"), tiny_pipeline("student-1step"), {}
    generator = torch.Generator().manual_seed(0)
    for name, module in changed.text_encoder.named_modules():
        if name.endswith("q_proj"):
            down = torch.randn(2, module.in_features, generator=generator)
            up = torch.randn(module.out_features, 2, generator=generator)
            layers |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
            with torch.no_grad():
                module.weight.add_(up @ down)
    pipeline.save_lora_weights(tmp_path, text_encoder_lora_layers=layers)
    plain, expected = draw(pipeline), draw(changed)
    pipeline.load_lora_weights(tmp_path, weight_name=WEIGHTS)
    assert not torch.allclose(expected, plain, atol=1e-3)
    torch.testing.assert_close(draw(pipeline), expected, rtol=0, atol=1e-4)
    pipeline.unload_lora_weights()
    assert torch.equal(draw(pipeline), plain)
