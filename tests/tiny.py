"""Tiny pipelines with random weights, of every kind that the project has; their configs differ, nothing else."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from mobilediff.captions import CLASS_NAMES, load_nouns
from mobilediff.downstream.control import MobileDiffusionControlPipeline
from mobilediff.export import export_pipeline
from mobilediff.models.mobile_controlnet import MobileControlNet
from mobilediff.models.mobile_unet import MobileUNet
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.schedulers import DistilledDDIMScheduler, UFOGenScheduler

KINDS = ("teacher", "student", "student-8step", "student-1step", "student-1step-pruned")

LATENT_CHANNELS = 4
LATENT_SIZE = 16
HIDDEN_SIZE = 16
PROJECTION_DIM = 12
MAX_TOKENS = 24  # the longest noun in its prompt has 19


def tiny_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer that merges each word of the class names and nouns from left to right.

    Made by hand because training one gives other token ids in every run.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<|startoftext|>", "<|endoftext|>", *alphabet, *(character + "</w>" for character in alphabet)]
    merges = []
    for word in " ".join(("a photo of an", *CLASS_NAMES, *load_nouns())).replace("-", " ").split():
        left, *rest = [*word[:-1], word[-1] + "</w>"]
        for right in rest:
            merges.append((left, right))
            left += right
            tokens.append(left)
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=list(dict.fromkeys(merges)), model_max_length=MAX_TOKENS)


def tiny_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN_SIZE,
        intermediate_size=32,
        projection_dim=PROJECTION_DIM,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=MAX_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        # With CLIP's own 0.02 the rows of so small a model hardly differ, and every prompt gives the same image.
        initializer_factor=20.0,
    )
    return CLIPTextModelWithProjection(config)


def tiny_vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        block_out_channels=(8, 8),
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        sample_size=32,
        mid_block_add_attention=False,
        scaling_factor=1.0,
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 0.5, 1.0, 2.0],
    )


def tiny_unet(kind: str) -> UNet2DConditionModel | MobileUNet:
    """The teacher's stock network, or a student's; the pruned one has widths of its own in single layers."""
    shape = {
        "sample_size": LATENT_SIZE,
        "in_channels": LATENT_CHANNELS,
        "out_channels": LATENT_CHANNELS,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "cross_attention_dim": HIDDEN_SIZE,
        "attention_head_dim": 8,
        "norm_num_groups": 8,
        "projection_class_embeddings_input_dim": PROJECTION_DIM,
    }
    if kind == "teacher":
        return UNet2DConditionModel(
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            class_embed_type="simple_projection",
            **shape,
        )
    widths = {}
    if kind == "student-1step-pruned":
        widths = {
            "resnet_hidden_channels": {"down_blocks.1.resnets.0": 16},
            "ff_hidden_dims": {"mid_block.attentions.0.ff": 20},
        }
    return MobileUNet(block_attention=("none", "both"), separable=(False, True), **shape, **widths)


def tiny_scheduler(kind: str) -> DDIMScheduler | DistilledDDIMScheduler | UFOGenScheduler:
    if kind in ("teacher", "student"):
        return DDIMScheduler(
            beta_schedule="squaredcos_cap_v2",
            clip_sample=False,
            prediction_type="v_prediction",
            timestep_spacing="trailing",
        )
    if kind == "student-8step":
        return DistilledDDIMScheduler(distilled_num_inference_steps=[8])
    return UFOGenScheduler(distilled_num_inference_steps=[1, 2, 4])


def tiny_pipeline(kind: str = "student", seed: int = 0) -> MobileDiffusionPipeline:
    """A pipeline of one of `KINDS`, the same weights for the same seed, progress bar off."""
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}, accepted: {', '.join(KINDS)}")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer()
        pipeline = MobileDiffusionPipeline(
            vae=tiny_vae().eval(),
            text_encoder=tiny_text_encoder(tokenizer).eval(),
            tokenizer=tokenizer,
            unet=tiny_unet(kind).eval(),
            scheduler=tiny_scheduler(kind),
            nouns=load_nouns(),
            default_num_inference_steps={"student-8step": 8, "teacher": 50, "student": 50}.get(kind, 1),
            default_guidance_scale=3.0,
            guidance_distilled=kind not in ("teacher", "student"),
        )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def tiny_control(kind: str = "student-1step") -> MobileDiffusionControlPipeline:
    """A tiny pipeline with a control network whose last layers are not zero, progress bar off."""
    pipeline = tiny_pipeline(kind)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = MobileControlNet.from_unet(pipeline.unet)
        for layer in (*network.controlnet_down_blocks, network.controlnet_mid_block):
            torch.nn.init.normal_(layer.weight)
    control = MobileDiffusionControlPipeline.from_pipe(pipeline, controlnet=network.eval())
    control.set_progress_bar_config(disable=True)
    return control


def tiny_checkpoint(folder: str | Path, kind: str = "student", seed: int = 0) -> Path:
    """Export a tiny pipeline to `folder`, as a real checkpoint is, and return the folder."""
    return export_pipeline(tiny_pipeline(kind, seed), folder)


def tiny_sketching(folder: Path) -> Path:
    """Add to a folder of checkpoints the control model, two LoRAs that fit it, and one of another network."""
    export_pipeline(tiny_control(), folder / "student-1step-control")
    loras = {"pencil": "student-1step", "palette": "student-1step", "foreign": "teacher"}
    for seed, (name, kind) in enumerate(loras.items()):
        pipeline = tiny_pipeline(kind)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            config = LoraConfig(r=2, lora_alpha=4, target_modules=["to_q", "to_v"], init_lora_weights=False)
            pipeline.unet.add_adapter(config)
        layers = get_peft_model_state_dict(pipeline.unet)
        index = pipeline.unet.peft_config["default"].to_dict()
        pipeline.save_lora_weights(folder / "loras" / name, unet_lora_layers=layers, unet_lora_adapter_metadata=index)
    return folder
