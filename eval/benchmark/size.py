"""Count parameters, multiply-accumulates and bytes of a checkpoint."""

import gzip
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from eval.benchmark.peers import Peer
from mobilediff.files import files_below
from mobilediff.models.latent_decoder import LatentDecoder
from mobilediff.models.macs import count_params_and_macs
from mobilediff.ondevice.manifest import read_manifest
from mobilediff.sampling.prompts import encode_text

PROMPT = "a photo of a fire truck"


def network_inputs(model, batch_size: int = 1) -> dict[str, torch.Tensor]:
    """Build the arguments of one network call of a pipeline or peer.

    Args:
        model: the pipeline or peer.
        batch_size: samples of the call, B.

    Returns:
        `sample` [B, C, H, W], `timestep` [B], `encoder_hidden_states` [B, L, D] and `class_labels` [B, P]; of a peer
        those that it takes.
    """
    if isinstance(model, Peer):
        return model.network_inputs(batch_size)
    config = model.unet.config
    height, width = (config.sample_size,) * 2 if isinstance(config.sample_size, int) else config.sample_size
    hidden_states, pooled = encode_text(model.tokenizer, model.text_encoder, [PROMPT] * batch_size)
    return {
        "sample": torch.zeros(batch_size, config.in_channels, height, width, device=model.device),
        "timestep": torch.full((batch_size,), 500, device=model.device),
        "encoder_hidden_states": hidden_states,
        "class_labels": pooled,
    }


@torch.no_grad()
def measure_size(pipeline, folder: str | Path) -> dict:
    """Count parameters, multiply-accumulates and bytes, which do not depend on the machine.

    Returns:
        `params_unet`, `params_vae_decoder`, `params_text_encoder` and their sum `params_total`; `macs_network_call`
        (one sample, unguided), `macs_vae_decoder`, `macs_text_encoder` (one prompt) and `macs_image` (NFE x network +
        decoder + one prompt, two when guided); `nfe`, `num_inference_steps`, `guidance_scale`; `weights_bytes` of the
        checkpoint's safetensors files.
    """
    inputs = network_inputs(pipeline)
    tokens = torch.zeros(1, pipeline.tokenizer.model_max_length, dtype=torch.int64, device=pipeline.device)
    params, macs = {}, {}
    params["unet"], macs["network_call"] = count_params_and_macs(pipeline.unet, inputs)
    decoder = LatentDecoder(pipeline.vae)
    params["vae_decoder"], macs["vae_decoder"] = count_params_and_macs(decoder, {"latents": inputs["sample"]})
    params["text_encoder"], macs["text_encoder"] = count_params_and_macs(pipeline.text_encoder, {"input_ids": tokens})
    params["total"] = sum(params.values())
    steps, nfe = pipeline.config.default_num_inference_steps, pipeline.nfe()
    prompts = 2 if nfe > steps else 1
    macs["image"] = nfe * macs["network_call"] + macs["vae_decoder"] + prompts * macs["text_encoder"]
    return {
        **{f"params_{name}": value for name, value in params.items()},
        **{f"macs_{name}": value for name, value in macs.items()},
        "nfe": nfe,
        "num_inference_steps": steps,
        "guidance_scale": pipeline.config.default_guidance_scale if nfe > steps else 1.0,
        "weights_bytes": sum(file.stat().st_size for file in files_below(folder) if file.suffix == ".safetensors"),
    }


def file_sizes(network: nn.Module) -> dict[str, int]:
    """Count the bytes of a network's safetensors file as an export writes it, in float16, plain and compressed.

    Returns:
        `weights_bytes`, and `gzip_bytes` of the same file through gzip at its highest level.
    """
    tensors = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    content = save(tensors, metadata={"format": "pt"})
    return {"weights_bytes": len(content), "gzip_bytes": len(gzip.compress(content, mtime=0))}


def exported_size(folder: str | Path) -> dict:
    """Count the bytes of an export; errors as in `read_manifest`.

    Returns:
        `checkpoint` and `checkpoint_sha256` that was exported, `format`, `precision`, `num_inference_steps`, and
        `download_bytes`: of graphs, noun table and tokenizer.
    """
    manifest = read_manifest(folder)
    return {
        "checkpoint": manifest.model,
        "checkpoint_sha256": manifest.model_sha256,
        "format": manifest.format,
        "precision": manifest.precision,
        "num_inference_steps": manifest.num_inference_steps,
        "download_bytes": manifest.bytes,
    }
