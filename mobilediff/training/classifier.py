"""Train an `ImageEncoder` with class and noun heads, the judge of the evaluation."""

from pathlib import Path

import torch
import torch.nn.functional as F
from pydantic import NonNegativeInt

from mobilediff.captions import load_nouns
from mobilediff.data import SPLITS, load_cifar10
from mobilediff.images import to_float
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.training.data.augment import AugmentedImages, LabelledBatch
from mobilediff.training.engine.options import Decay, Fraction, TrainingOptions
from mobilediff.training.engine.stage import Stage, run_stage
from mobilediff.training.engine.trainer import Draws, Trainer
from mobilediff.training.losses.classification import accuracy, noun_cross_entropy

LAMBDA_NOUN = 0.5  # weight of the noun loss beside the class loss


class ClassifierOptions(TrainingOptions):
    """Configure the stage `classifier`.

    Attributes:
        network: config of `ImageEncoder`.
        momentum: of Nesterov SGD.
        translate: largest shift of a training image, in pixels.
        label_smoothing: of both cross-entropies.
        whiten_stem: fix the stem to the whitening of the data's patches (arXiv 2404.00498, section 3.2).
    """

    network: dict
    momentum: Decay = 0.9
    translate: NonNegativeInt = 2
    label_smoothing: Fraction = 0.2
    whiten_stem: bool = False


@torch.no_grad()
def whiten_stem(encoder: ImageEncoder, images: torch.Tensor, epsilon: float = 5e-4) -> None:
    """Fix the stem to whitened eigenvectors of the patches' covariance, with both signs.

    Source: arXiv 2404.00498, section 3.2.

    Args:
        encoder: its stem is changed.
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
    encoder.conv_stem.get_parameter("bias").zero_()
    encoder.conv_stem.requires_grad_(False)


class Classifier(Stage[ClassifierOptions]):
    """Train the class and noun heads on labelled images."""

    def setup(self) -> None:
        options = self.options
        dataset, self.test = (load_cifar10(options.data, split, options.resolution) for split in SPLITS)
        self.trainer = Trainer(options, self.limits, len(dataset))
        self.network = ImageEncoder(num_nouns=len(load_nouns()), **options.network)
        if options.whiten_stem:
            whiten_stem(self.network, to_float(dataset.images[:2000]))
        optimizer = torch.optim.SGD(
            [parameter for parameter in self.network.parameters() if parameter.requires_grad],
            lr=options.learning_rate,
            momentum=options.momentum,
            weight_decay=options.weight_decay,
            nesterov=True,
            fused=True,
        )
        self.encoder = self.trainer.add("encoder", self.network, optimizer=optimizer)
        self.images = AugmentedImages(dataset, options.translate, self.trainer.device)

    def batch(self, draws: Draws) -> LabelledBatch:
        return self.images.draw(draws)

    def step(self, batch: LabelledBatch, draws: Draws) -> dict[str, torch.Tensor]:
        with self.trainer.autocast():
            output = self.encoder(batch.images)
        smoothing = self.options.label_smoothing
        loss_class = F.cross_entropy(output.class_logits, batch.labels, label_smoothing=smoothing)
        loss_noun = noun_cross_entropy(output.noun_logits, batch.noun_ids, smoothing)
        self.trainer.update("encoder", loss_class + LAMBDA_NOUN * loss_noun)
        return {"loss_class": loss_class, "loss_noun": loss_noun}

    def validate(self) -> dict[str, float]:
        self.network.eval()
        result = accuracy(self.network, self.test, self.trainer.device)
        self.network.train()
        return result

    def export(self, folder: Path) -> None:
        self.network.save_pretrained(folder)


if __name__ == "__main__":
    run_stage(Classifier, ClassifierOptions)
