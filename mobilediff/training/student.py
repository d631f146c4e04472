"""Train a MobileUNet by knowledge distillation from the teacher's output and features."""

import torch
import torch.nn.functional as F
from diffusers.models.modeling_utils import ModelMixin
from pydantic import NonNegativeFloat
from torch import nn

from mobilediff.diffusion import diffuse, noise_scheduler
from mobilediff.models.build import build_network
from mobilediff.training.bases.generator_stage import GeneratorStage
from mobilediff.training.data.latents import Batch, prepare
from mobilediff.training.engine.options import GeneratorOptions
from mobilediff.training.engine.pipelines import FrozenParts, load_velocity_pipeline
from mobilediff.training.engine.stage import run_stage
from mobilediff.training.engine.trainer import Draws
from mobilediff.training.losses.distillation import feature_loss


class StudentOptions(GeneratorOptions):
    """Configure the stage `student`; VAE and text encoder are the teacher's.

    Attributes:
        teacher: pipeline folder.
        network: JSON config of the student.
        initial_weights: folder of a trained student of that config to start from; None for the teacher's weights
            where they fit.
        lambda_task: weight of the loss against the data.
        lambda_kd_output: weight of the loss against the teacher's prediction.
        lambda_kd_feat: weight of the normalised feature loss.
    """

    teacher: str
    network: str = "mobilediff/models/configs/student.json"
    initial_weights: str | None = None
    lambda_task: NonNegativeFloat = 0.5
    lambda_kd_output: NonNegativeFloat = 1.0
    lambda_kd_feat: NonNegativeFloat = 0.1


class FeatureTap:
    """Keep the features of a UNet's stages: every down block, the middle, every up block."""

    def __init__(self, unet: ModelMixin):
        self.features: list[torch.Tensor] = []
        stages = (*unet.down_blocks, unet.mid_block, *unet.up_blocks)
        self.num_stages = len(stages)
        self.hooks = [stage.register_forward_hook(self._keep) for stage in stages]

    def _keep(self, module: nn.Module, inputs, output) -> None:
        if len(self.features) == self.num_stages:  # left by a call without a `pop` after it
            self.features = []
        self.features.append(output[0] if isinstance(output, tuple) else output)

    def close(self) -> None:
        """Take the hooks off."""
        for hook in self.hooks:
            hook.remove()

    def pop(self) -> list[torch.Tensor]:
        """Return and forget the features of the last forward pass, [B, C_i, H_i, W_i] each."""
        features, self.features = self.features, []
        return features


class DistilledStudent(nn.Module):
    """Regress the teacher's features from the student's: a 1 x 1 convolution for each matched stage.

    Args:
        unet: the student.
        stages: indices of the matched stages.
        student_widths: their channels.
        teacher_widths: channels of the teacher's stages that they are matched with.
    """

    tap: FeatureTap

    def __init__(self, unet: ModelMixin, stages: list[int], student_widths: list[int], teacher_widths: list[int]):
        super().__init__()
        self.unet, self.stages = unet, stages
        self.regressors = nn.ModuleList(
            nn.Conv2d(s, t, 1) for s, t in zip(student_widths, teacher_widths, strict=True)
        )
        object.__setattr__(self, "tap", FeatureTap(unet))

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, **conditioning):
        """Predict v, and regress the teacher's features.

        Args:
            noisy: latents, [B, C, H, W].
            timesteps: [B].
            conditioning: keyword arguments of the student, as `Conditioning` gives them.

        Returns:
            The student's output, [B, C, H, W], and a feature map for each matched stage, [B, teacher width, H_i, W_i].
        """
        prediction = self.unet(noisy, timesteps, **conditioning).sample
        features = self.tap.pop()
        return prediction, [
            regress(features[stage]) for regress, stage in zip(self.regressors, self.stages, strict=True)
        ]


@torch.no_grad()
def inherit_weights(student: nn.Module, teacher: nn.Module) -> list[str]:
    """Copy every tensor whose name and shape both networks have; returns the names."""
    source, target = teacher.state_dict(), student.state_dict()
    names = [name for name, value in target.items() if name in source and source[name].shape == value.shape]
    for name in names:
        target[name].copy_(source[name])
    return names


@torch.no_grad()
def stage_shapes(unet: ModelMixin, conditioning: dict[str, torch.Tensor]) -> list[torch.Size]:
    """Find the feature shape [1, C, H, W] of each stage by one call."""
    tap = FeatureTap(unet)
    size = unet.config.sample_size
    unet(torch.zeros(1, unet.config.in_channels, size, size, device=unet.device), 0, **conditioning)
    tap.close()
    return [feature.shape for feature in tap.pop()]


def match_stages(student: list[torch.Size], teacher: list[torch.Size]) -> list[tuple[int, int]]:
    """Pair the stages equally far from the input or the output, and the middles.

    Where one network has fewer levels, stages whose maps are of another size are left out.

    Args:
        student: shapes [1, C, H, W] of the stages, from `stage_shapes`: L down blocks, the middle, L up blocks.
        teacher: the same of the teacher.

    Returns:
        Indices into the two, in order.

    Raises:
        ValueError: no two maps are of one size.
    """
    outer = min(len(student), len(teacher)) // 2
    pairs = [(i, i) for i in range(outer)] + [(len(student) // 2, len(teacher) // 2)]
    pairs += [(len(student) - i, len(teacher) - i) for i in range(outer, 0, -1)]
    pairs = [(s, t) for s, t in pairs if student[s][2:] == teacher[t][2:]]
    if not pairs:
        raise ValueError(f"the student's feature maps {student} and the teacher's {teacher} are never of one size")
    return pairs


class Student(GeneratorStage[StudentOptions]):
    """Distil the teacher's predictions and features into a network of another config."""

    def setup(self) -> None:
        options = self.options
        source = load_velocity_pipeline(options.teacher)
        parts = FrozenParts.of(source)
        self.trainer, self.data = prepare(options, self.limits, parts)
        self.teacher = self.trainer.frozen(source.unet)
        unet = build_network(options.network, self.data.latents, options.initial_weights)
        unet.to(self.trainer.device)  # pyright: ignore[reportArgumentType]
        if options.initial_weights is None:
            inherited = inherit_weights(unet, source.unet)
            self.trainer.accelerator.print(f"inherited {len(inherited)} of {len(unet.state_dict())} tensors")
        student = self.matched(unet, source.unet)
        self.student, self.tap = self.trainer.add("student", student), FeatureTap(source.unet)
        self.make_pipeline(parts, unet, noise_scheduler())

    def matched(self, unet: ModelMixin, teacher: ModelMixin) -> DistilledStudent:
        """Match the stages of both networks, and give the student its regressors."""
        probe = self.data.conditioning(torch.zeros(1, dtype=torch.int64, device=self.trainer.device))
        shapes = stage_shapes(unet, probe), stage_shapes(teacher, probe)
        stages, self.teacher_stages = zip(*match_stages(*shapes), strict=True)
        widths = [shapes[0][i][1] for i in stages], [shapes[1][i][1] for i in self.teacher_stages]
        return DistilledStudent(unet, list(stages), *widths)

    def step(self, batch: Batch, draws: Draws) -> dict[str, torch.Tensor]:
        options, trainer = self.options, self.trainer
        timesteps = self.data.draw_timesteps(draws)
        z = diffuse(batch.latents, timesteps, draws.generator)
        conditioning = self.data.conditioning(batch.caption_ids)
        with torch.no_grad(), trainer.autocast():
            expected = self.teacher(z.noisy, timesteps, **conditioning).sample
        with trainer.autocast():
            prediction, features = self.student(z.noisy, timesteps, **conditioning)
        loss_task = F.mse_loss(prediction.float(), z.velocity)
        loss_kd_output = F.mse_loss(prediction.float(), expected.float())
        taught = self.tap.pop()
        loss_kd_feat = feature_loss(features, [taught[stage] for stage in self.teacher_stages])
        trainer.update(
            "student",
            options.lambda_task * loss_task
            + options.lambda_kd_output * loss_kd_output
            + options.lambda_kd_feat * loss_kd_feat,
        )
        return {"loss_task": loss_task, "loss_kd_output": loss_kd_output, "loss_kd_feat": loss_kd_feat}


if __name__ == "__main__":
    run_stage(Student, StudentOptions)
