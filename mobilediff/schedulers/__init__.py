"""Schedulers of the distilled students; teacher and student use diffusers' own `DDIMScheduler`."""

from mobilediff.schedulers.distilled_ddim import DistilledDDIMScheduler
from mobilediff.schedulers.ufogen import UFOGenScheduler

__all__ = ["DistilledDDIMScheduler", "UFOGenScheduler"]
