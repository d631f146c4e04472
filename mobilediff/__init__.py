"""Draw CIFAR-10 images from text with small diffusion models, from teacher to one step."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mobilediff.models.mobile_unet import MobileUNet
    from mobilediff.pipeline import MobileDiffusionPipeline
    from mobilediff.schedulers import DistilledDDIMScheduler, UFOGenScheduler

__version__ = "0.1.0"
__all__ = ["DistilledDDIMScheduler", "MobileDiffusionPipeline", "MobileUNet", "UFOGenScheduler", "__version__"]

# Imported at first use: diffusers and transformers take seconds, which captions and data do without.
_MODULES = {
    "DistilledDDIMScheduler": "mobilediff.schedulers.distilled_ddim",
    "MobileDiffusionPipeline": "mobilediff.pipeline",
    "MobileUNet": "mobilediff.models.mobile_unet",
    "UFOGenScheduler": "mobilediff.schedulers.ufogen",
}


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
