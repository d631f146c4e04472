"""Averages of a trained network, and the context of its forward passes."""

import pytest
import torch
from torch import nn

from mobilediff.training.engine.options import RunLimits, TrainingOptions
from mobilediff.training.engine.trainer import Trainer
from tests.mobilediff.training.engine.regression import Regression


def make_trainer(folder, **changes) -> Trainer:
    return Trainer(TrainingOptions(output=str(folder), **changes), RunLimits(), data_size=4)


def test_an_average_that_a_network_lacks_is_refused(tmp_path):
    trainer = make_trainer(tmp_path, ema_decay=0.5, further_ema_decays=(0.9,))
    trainer.add("student", nn.Linear(1, 1))
    trainer.add("discriminator", nn.Linear(1, 1), ema_decay=0.0)
    student, discriminator = trainer.networks["student"], trainer.networks["discriminator"]
    assert student.average() is student.average(0.5) is student.emas[0.5]
    assert student.average(0.9) is student.emas[0.9]
    with pytest.raises(ValueError, match=r"ema_decay is 0.8; accepted are \[0.5, 0.9\]"):
        student.average(0.8)
    assert discriminator.average() is None and discriminator.average(0.9) is None


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("gradient", [True, False])
def test_autocast_leaves_the_attentions_precision_as_it_was(tmp_path, before, gradient):
    trainer, allowed = make_trainer(tmp_path), torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed
    former = allowed()
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(before)
    try:
        with torch.set_grad_enabled(gradient), trainer.autocast():
            assert torch.is_autocast_enabled(trainer.device.type)
            assert allowed() == (gradient and trainer.device.type == "cpu")
        assert allowed() == before
        with pytest.raises(RuntimeError, match="halfway"), trainer.autocast():
            raise RuntimeError("halfway")
        assert allowed() == before
    finally:
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(former)


@pytest.mark.parametrize(
    ("dtype", "expected"), [("bf16", torch.bfloat16), ("fp32", torch.float32), ("fp16-weights", torch.float32)]
)
def test_forward_passes_have_the_options_dtype(tmp_path, dtype, expected):
    trainer = make_trainer(tmp_path, dtype=dtype)
    with trainer.autocast():
        assert nn.Linear(2, 2)(torch.ones(1, 2)).dtype == expected


def test_an_export_is_made_under_its_own_name(tmp_path):
    names = []

    class Named(Regression):
        def export(self, folder):
            names.append(folder.name)

    Named(tmp_path, steps=1, further_ema_decays=(0.2,)).fit()
    assert names == ["export", "export-ema-0.2"]
