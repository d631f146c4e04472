"""The table of the nouns' text embeddings, so that a page needs the text encoder for free text alone.

The text encoder's attention is causal, so captions that begin alike have the same first hidden states: the table holds
every different row once. `nouns.safetensors` has

    index          int16 [N, L]       the row of each noun's token
    rows           [U, D]             the different hidden states
    pooled         [N, P]
    rows_scale, pooled_scale          float32 [U], [N], only where rows and pooled are int8: value = scale x integer
"""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from mobilediff.captions import caption
from mobilediff.ondevice.manifest import MANIFEST, TableDtype
from mobilediff.pipeline import MobileDiffusionPipeline
from mobilediff.sampling.prompts import encode_text

NOUN_TABLE = "nouns.safetensors"


def _quantize(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Round each row to 8 bits, symmetrically: int8 [N, D] and scales [N]."""
    scale = values.abs().amax(dim=1) / 127
    return (values / scale[:, None]).round().to(torch.int8), scale


@torch.no_grad()
def write_noun_table(pipeline: MobileDiffusionPipeline, file: Path, dtype: TableDtype) -> None:
    """Encode the checkpoint's nouns in its template, each by itself as the pipeline does, and write their table.

    Args:
        dtype: "float32" or "int8" of rows and pooled.
    """
    prompts = [caption(noun, pipeline.config.class_template) for noun in pipeline.config.nouns]
    encoded = [encode_text(pipeline.tokenizer, pipeline.text_encoder, [prompt]) for prompt in prompts]
    hidden_states = torch.cat([hidden for hidden, _ in encoded])
    rows, index = torch.unique(hidden_states.flatten(0, 1), dim=0, return_inverse=True)
    tensors = {
        "index": index.view(hidden_states.shape[:2]).to(torch.int16),
        "rows": rows,
        "pooled": torch.cat([pooled for _, pooled in encoded]),
    }
    if dtype == "int8":
        for name in ("rows", "pooled"):
            tensors[name], tensors[f"{name}_scale"] = _quantize(tensors[name])
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)


def read_noun_table(file: Path, dtype: TableDtype) -> tuple[np.ndarray, np.ndarray]:
    """Read the hidden states [N, L, D] and pooled embeddings [N, P] of all nouns, float32.

    Raises:
        ValueError: the table has other tensors, is of another dtype, or holds NaN or infinity.
    """
    tensors = load_file(file)
    stated = {"index", "rows", "pooled"} | ({"rows_scale", "pooled_scale"} if dtype == "int8" else set())
    if set(tensors) != stated:
        raise ValueError(f"it holds {', '.join(sorted(tensors))}; a table in {dtype} {', '.join(sorted(stated))}")
    if (found := str(tensors["rows"].dtype).removeprefix("torch.")) != dtype:
        raise ValueError(f"its rows are {found}, {MANIFEST} states {dtype}")
    for name in ("rows", "pooled"):
        if f"{name}_scale" in tensors:
            tensors[name] = tensors[name].float() * tensors[f"{name}_scale"][:, None]
        if not tensors[name].isfinite().all():
            raise ValueError(f"its {name} are not finite")
    return tensors["rows"][tensors["index"].long()].numpy(), tensors["pooled"].numpy()
