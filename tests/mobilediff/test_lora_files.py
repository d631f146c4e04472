"""A LoRA that does not fit is refused by name, and nothing of it is loaded."""

import json
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.checkpoints.drawing import draw
from tests.mobilediff.test_lora import WEIGHTS, saved, with_adapter
from tests.tiny import tiny_pipeline

LAYER = "unet.mid_block.attentions.0.attn2.to_q"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved(with_adapter(seed=1), tmp_path_factory.mktemp("lora"))


def changed(folder, target, change):
    """A copy of the LoRA, whose tensors and metadata `change` alters."""
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(folder / WEIGHTS)
    change(tensors, metadata)
    save_file(tensors, target / WEIGHTS, metadata)


def another_layer(tensors, metadata):
    for key in [key for key in tensors if key.startswith(LAYER)]:
        tensors[key.replace("attentions.0", "attentions.7")] = tensors.pop(key)


def another_width(tensors, metadata):
    tensors[f"{LAYER}.lora_A.weight"] = torch.zeros(2, 999)


def another_rank(tensors, metadata):
    for matrix, dim in (("A", 0), ("B", 1)):
        key = f"{LAYER}.lora_{matrix}.weight"
        tensors[key] = torch.cat([tensors[key]] * 2, dim).contiguous()


def with_index(**changes):
    """A fault that changes the index, and is named after the changes."""

    def fault(tensors, metadata):
        index = json.loads(metadata["lora_adapter_metadata"]) | {f"unet.{key}": one for key, one in changes.items()}
        metadata["lora_adapter_metadata"] = json.dumps(index)

    fault.__name__ = "_".join(f"{key}_{one}" for key, one in changes.items())
    return fault


def cut_index(tensors, metadata):
    metadata["lora_adapter_metadata"] = metadata["lora_adapter_metadata"][:20]


def listed_index(tensors, metadata):
    metadata["lora_adapter_metadata"] = "[1]"


def one_matrix(tensors, metadata):
    del tensors[f"{LAYER}.lora_B.weight"]


def not_finite(tensors, metadata):
    tensors[f"{LAYER}.lora_B.weight"][0, 0] = float("nan")


def no_matrix(tensors, metadata):
    tensors[f"{LAYER}.dora_scale"] = torch.zeros(2)
    tensors["lora.other"] = torch.zeros(2)


FAULTS = {
    another_layer: "no layer mid_block.attentions.7.attn2.to_q",
    another_width: f"matrices of {LAYER[5:]} are [2, 999]",
    another_rank: f"has rank 4 at {LAYER[5:]}, but its index says 2",
    with_index(r=3): "its index says 3",
    with_index(r="two"): "its index says two",
    with_index(lora_alpha=float("nan")): "lora_alpha of its index is nan; accepted is a finite number",
    with_index(lora_alpha="two"): "lora_alpha of its index is 'two'",
    with_index(alpha_pattern={"to_q": float("inf")}): "to_q of its index is inf",
    with_index(rank_pattern=[1]): "rank_pattern of its index is [1]; accepted is an object",
    with_index(colour=1): "has an index that is no LoRA's",
    cut_index: "is damaged, incomplete or no safetensors file",
    listed_index: "has a list as its index; accepted is an object",
    one_matrix: f"lacks lora_B of {LAYER[5:]}",
    not_finite: "NaN",
    no_matrix: "has lora.other",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_lora_that_does_not_fit_changes_nothing(fault, folder, tmp_path):
    pipeline = tiny_pipeline("student-1step")
    plain, modules = draw(pipeline), [name for name, _ in pipeline.unet.named_modules()]
    changed(folder, tmp_path, fault)
    with pytest.raises(ValueError, match=re.escape(FAULTS[fault])):
        pipeline.load_lora_weights(tmp_path, adapter_name="a")
    assert [name for name, _ in pipeline.unet.named_modules()] == modules
    assert torch.equal(draw(pipeline), plain)
    pipeline.load_lora_weights(folder, adapter_name="a")  # the name is not taken
    assert not torch.equal(draw(pipeline), plain)


def test_a_cut_file_a_pickle_and_an_empty_folder_are_refused(folder, tmp_path):
    pipeline = tiny_pipeline("student-1step")
    with pytest.raises(FileNotFoundError, match=f"{tmp_path} holds no"):
        pipeline.load_lora_weights(tmp_path)
    content = (folder / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="is damaged, incomplete"):
        pipeline.load_lora_weights(tmp_path)
    torch.save({}, tmp_path / "lora.bin")
    for arguments in ((tmp_path / "lora.bin",), (tmp_path,)):
        name = None if len(arguments[0].suffix) else "lora.bin"
        with pytest.raises(ValueError, match="lora.bin may hold pickled code"):
            pipeline.load_lora_weights(*arguments, weight_name=name)
    (tmp_path / "second.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=f"{WEIGHTS}, second.safetensors; give the weight_name"):
        pipeline.load_lora_weights(tmp_path)
    for name in (tmp_path / "third.safetensors", "checkpoints/loras/crayon"):
        with pytest.raises(FileNotFoundError, match=f"{name} does not exist"):
            pipeline.load_lora_weights(name)
    pipeline.load_lora_weights(tmp_path / "second.safetensors")


def test_a_lora_is_computed_in_the_precision_of_the_network(folder, tmp_path, capfd):
    pipeline, halved = tiny_pipeline("student-1step"), tiny_pipeline("student-1step")
    changed(folder, tmp_path, lambda tensors, _: tensors.update({key: one.half() for key, one in tensors.items()}))
    pipeline.load_lora_weights(folder)
    halved.load_lora_weights(tmp_path)
    assert {parameter.dtype for parameter in halved.unet.parameters()} == {torch.float32}
    torch.testing.assert_close(draw(halved), draw(pipeline), rtol=0, atol=1e-2)
    assert "LoRA" not in capfd.readouterr().err


def test_a_second_lora_is_loaded_in_silence(folder, capfd, recwarn):
    pipeline = tiny_pipeline("student-1step")
    for name in ("a", "b"):
        pipeline.load_lora_weights(folder, adapter_name=name)
    assert not recwarn.list and capfd.readouterr().err == ""


def test_names_of_adapters(folder):
    pipeline = tiny_pipeline("student-1step")
    for name in ("", "a.b", "keys", 3):
        with pytest.raises(ValueError, match=f"adapter_name is {name!r}; accepted"):
            pipeline.load_lora_weights(folder, adapter_name=name)
    pipeline.load_lora_weights(folder, adapter_name="a")
    drawn = draw(pipeline)
    with pytest.raises(ValueError, match="adapter_name is 'a', which is taken; loaded are a"):
        pipeline.load_lora_weights(folder, adapter_name="a")
    assert torch.equal(draw(pipeline), drawn)


def test_fused_weights_draw_as_the_adapter_and_come_back(folder):
    pipeline = tiny_pipeline("student-1step")
    plain = draw(pipeline)
    pipeline.load_lora_weights(folder, adapter_name="a")
    loaded = draw(pipeline)
    pipeline.fuse_lora()
    torch.testing.assert_close(draw(pipeline), loaded, rtol=0, atol=1e-4)
    pipeline.unfuse_lora()
    pipeline.set_adapters("a", 0.0)
    torch.testing.assert_close(draw(pipeline), plain, rtol=0, atol=1e-4)
    pipeline.set_adapters("a", 1.0)
    torch.testing.assert_close(draw(pipeline), loaded, rtol=0, atol=1e-4)
