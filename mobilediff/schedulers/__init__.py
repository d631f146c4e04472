"""Sample with the distilled students; teacher and student use diffusers' own schedulers."""

from mobilediff.schedulers.distilled_ddim import DistilledDDIMScheduler
from mobilediff.schedulers.ufogen import UFOGenScheduler

__all__ = ["DistilledDDIMScheduler", "UFOGenScheduler"]
