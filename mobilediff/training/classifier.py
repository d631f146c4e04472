"""Stage `classifier`: an `ImageEncoder` with class and noun heads, the judge of the evaluation."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from mobilediff.captions import load_nouns
from mobilediff.data import SPLITS, load_cifar10
from mobilediff.images import to_float
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.training.data.augment import random_flip, random_translate
from mobilediff.training.engine.options import RunLimits, TrainingOptions, run_stage
from mobilediff.training.engine.trainer import Trainer, TrainingStep
from mobilediff.training.losses.classification import accuracy, noun_cross_entropy


@dataclass
class ClassifierOptions(TrainingOptions):
    """Options of the stage.

    Attributes:
        network: config of `ImageEncoder`.
        momentum: of Nesterov SGD.
        translate: largest shift of a training image, in pixels.
        label_smoothing: of both cross-entropies.
        lambda_noun: weight of the noun loss beside the class loss.
        whiten_stem: fix the stem to the whitening of the data's patches (arXiv 2404.00498, section 3.2).
    """

    network: dict = field(default_factory=dict)
    momentum: float = 0.85
    translate: int = 2
    label_smoothing: float = 0.2
    lambda_noun: float = 0.5
    whiten_stem: bool = False


@torch.no_grad()
def whiten_stem(encoder: ImageEncoder, images: torch.Tensor, epsilon: float = 5e-4) -> None:
    """Set the stem to the eigenvectors of the patches' covariance over their deviations, with both signs, and fix it.

    Args:
        images: float [N, 3, H, W] in [-1, 1]; a few thousand are enough.
        epsilon: added to the eigenvalues.

    Raises:
        ValueError: the stem is not twice as wide as a patch has values.
    """
    weight = encoder.conv_stem.weight
    size = weight.shape[-1]
    if weight.shape[0] != 2 * 3 * size**2:
        raise ValueError(f"a whitened {size} x {size} stem has {6 * size**2} channels, not {weight.shape[0]}")
    patches = images.unfold(2, size, 1).unfold(3, size, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 3 * size**2)
    eigenvalues, eigenvectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    scaled = (eigenvectors / torch.sqrt(eigenvalues + epsilon)).T.reshape(-1, 3, size, size)
    weight.copy_(torch.cat([scaled, -scaled]))
    encoder.conv_stem.bias.zero_()
    encoder.conv_stem.requires_grad_(False)


def train(options: ClassifierOptions, limits: RunLimits) -> bool:
    """Train the classifier; see `Trainer.fit` for the returned value."""
    dataset, test = (load_cifar10(options.data, split, options.resolution) for split in SPLITS)
    trainer = Trainer(options, limits, len(dataset))
    encoder = ImageEncoder(num_nouns=len(load_nouns()), **options.network)
    if options.whiten_stem:
        whiten_stem(encoder, to_float(dataset.images[:2000]))
    optimizer = torch.optim.SGD(
        [parameter for parameter in encoder.parameters() if parameter.requires_grad],
        lr=options.learning_rate,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        nesterov=True,
        fused=True,
    )
    module = trainer.add("encoder", encoder, optimizer=optimizer)
    images, labels, nouns = (t.to(trainer.device) for t in (dataset.images, dataset.labels, dataset.noun_ids))

    def step_function(step: TrainingStep) -> dict[str, torch.Tensor]:
        batch = random_flip(to_float(images[step.indices]), step.generator)
        batch = random_translate(batch, options.translate, step.generator)
        with trainer.autocast():
            output = module(batch.to(memory_format=torch.channels_last))
        smoothing = options.label_smoothing
        loss_class = F.cross_entropy(output.class_logits, labels[step.indices], label_smoothing=smoothing)
        loss_noun = noun_cross_entropy(output.noun_logits, nouns[step.indices], smoothing)
        trainer.update("encoder", loss_class + options.lambda_noun * loss_noun)
        return {"loss_class": loss_class, "loss_noun": loss_noun}

    def on_sample(writer) -> dict[str, float]:
        encoder.eval()
        result = accuracy(encoder, test, trainer.device)
        encoder.train()
        return result

    return trainer.fit(step_function, lambda folder: encoder.save_pretrained(folder), on_sample)


if __name__ == "__main__":
    run_stage(train, ClassifierOptions)
