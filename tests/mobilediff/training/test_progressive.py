"""Stage `progressive`."""

import torch

from mobilediff.diffusion import diffuse, trailing_timesteps
from mobilediff.training.progressive import distillation_target
from tests.mobilediff.training.denoisers import SaysSample, velocity_to


def test_the_target_is_where_the_teachers_steps_lead():
    """A teacher that always sees one sample leads to it, in as many steps as it takes."""
    caption_ids = torch.arange(4)
    timesteps = trailing_timesteps(32, torch.device("cpu"))
    z = diffuse(torch.randn(4, 2, 8, 8), timesteps[caption_ids * 8], torch.Generator().manual_seed(0))
    for steps in (1, 2, 8):
        teacher = SaysSample(0.5)
        target = distillation_target(
            lambda noisy, t, teacher=teacher: teacher(noisy, t, caption_ids),
            z,
            [timesteps[caption_ids * 8 + place] for place in range(steps + 1)],
        )
        assert len(teacher.batches) == steps
        torch.testing.assert_close(target, torch.full_like(target, 0.5), rtol=1e-3, atol=1e-3)
    x = torch.randn(4, 2, 8, 8)  # a step of a teacher that is right leads to what it predicts
    target = distillation_target(
        lambda noisy, t: velocity_to(x, noisy, t),
        z,
        [timesteps[caption_ids * 8], timesteps[caption_ids * 8 + 1]],
    )
    torch.testing.assert_close(target, x, rtol=1e-3, atol=1e-3)
