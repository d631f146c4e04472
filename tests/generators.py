"""Seeded sources of noise."""

import torch


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def generators(*seeds: int) -> list[torch.Generator]:
    return [generator(seed) for seed in seeds]
