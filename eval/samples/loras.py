"""Load checkpoints with LoRAs."""

from mobilediff.checkpoints import load_pipeline
from mobilediff.pipeline import MobileDiffusionPipeline


def with_loras(model: str, folders: list[str]) -> MobileDiffusionPipeline:
    """Load a checkpoint and its LoRAs, each at weight 1."""
    pipeline = load_pipeline(model)
    pipeline.set_progress_bar_config(disable=True)
    names = [f"lora_{index}" for index in range(len(folders))]
    for name, folder in zip(names, folders, strict=True):
        pipeline.load_lora_weights(folder, adapter_name=name)
    if names:
        pipeline.set_adapters(names)
    return pipeline
