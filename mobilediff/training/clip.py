"""Train a small CLIP (arXiv 2103.00020) on images and captions.

Its text tower conditions the generators.
"""

import json
from copy import deepcopy
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator
from tokenizers import pre_tokenizers, trainers
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from mobilediff.captions import CLASS_NAMES, CaptionBank, load_nouns
from mobilediff.checkpoints import load_component
from mobilediff.data import SPLITS, load_cifar10
from mobilediff.files import atomic_folder
from mobilediff.images import to_float
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.training.data.augment import AugmentedImages, LabelledBatch
from mobilediff.training.engine.options import TrainingOptions
from mobilediff.training.engine.stage import Stage, run_stage
from mobilediff.training.engine.trainer import Draws, Trainer
from mobilediff.training.losses.classification import accuracy, noun_cross_entropy

WORD_END = "</w>"
NUM_PHRASINGS = 64  # of each name to learn from, beside its plain captions
PHRASES_PER_STEP = 128  # whose noun is learnt
# Weights beside the two losses of images and texts: of the phrasings' loss, and of the image tower's own heads.
LAMBDA_PHRASE, LAMBDA_CLASS, LAMBDA_NOUN = 0.5, 0.5, 0.25


class ClipOptions(TrainingOptions):
    """Configure the stage `clip`.

    Attributes:
        image_encoder: config of `ImageEncoder`; its `projection_dim` is the joint space's.
        text_encoder: config of `CLIPTextModelWithProjection`, without vocabulary size and special tokens.
        vocabulary_size: most entries of the BPE vocabulary.
        max_tokens: length that captions are padded to.
        translate: most pixels that an image is shifted by.
        initial_weights: folder of a trained CLIP to start from, tokenizer included; None for random weights.
        lambda_keep: weight of the loss that keeps the text tower's outputs for plain captions as they are in
            `initial_weights`, so that generators trained on it stay as they are.
    """

    image_encoder: dict
    text_encoder: dict
    vocabulary_size: PositiveInt = 1536
    max_tokens: PositiveInt = 16
    translate: NonNegativeInt = 2
    initial_weights: str | None = None
    lambda_keep: NonNegativeFloat = 0.0

    @model_validator(mode="after")
    def _check_lambda_keep(self) -> Self:
        if self.lambda_keep and self.initial_weights is None:
            raise ValueError(f"option lambda_keep is {self.lambda_keep}; without initial_weights accepted is 0")
        return self


def train_tokenizer(texts: list[str], vocabulary_size: int, max_tokens: int) -> CLIPTokenizer:
    """Learn a `CLIPTokenizer`'s byte-level BPE from `texts`; every byte stays in the vocabulary.

    Args:
        texts: to learn from.
        vocabulary_size: most entries of the vocabulary, the bytes among them.
        max_tokens: length that texts are cut and padded to.
    """
    backend = CLIPTokenizer().backend_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|startoftext|>", "<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - len(alphabet),
        special_tokens=special,
        initial_alphabet=alphabet,
        end_of_word_suffix=WORD_END,
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    model = json.loads(backend.to_str())["model"]
    vocabulary = dict(model["vocab"])
    for byte in sorted(alphabet):  # a single byte may also end a word that the captions do not hold
        vocabulary.setdefault(byte + WORD_END, len(vocabulary))
    merges = [tuple(merge) for merge in model["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=max_tokens)  # pyright: ignore[reportArgumentType]


def run_tokenizer(folder: Path, texts: list[str], options: ClipOptions) -> CLIPTokenizer:
    """Load the tokenizer of the initial weights, or learn the run's own once.

    Once, because ties between merges fall differently in another process.
    """
    if options.initial_weights is not None:
        return CLIPTokenizer.from_pretrained(Path(options.initial_weights, "tokenizer"))
    if not folder.is_dir():
        with atomic_folder(folder) as new:
            train_tokenizer(texts, options.vocabulary_size, options.max_tokens).save_pretrained(new)
    return CLIPTokenizer.from_pretrained(folder)


def naming_loss(
    embeds: torch.Tensor, name_embeds: torch.Tensor, names: torch.Tensor, logit_scale: torch.Tensor
) -> torch.Tensor:
    """Compute the cross-entropy of the right name among all names, by cosine; a scalar.

    CLIP's loss from images to texts (arXiv 2103.00020, figure 3), over all names instead of the batch's texts.

    Args:
        embeds: of images or phrases, not normalised, [N, P].
        name_embeds: one text a name, not normalised, [M, P].
        names: the right name's row, -1 where it is not known, [N].
        logit_scale: log of the inverse temperature, a scalar.
    """
    logits = logit_scale.exp() * F.normalize(embeds.float(), dim=-1) @ F.normalize(name_embeds.float(), dim=-1).T
    return noun_cross_entropy(logits, names)


def relative_error(output: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """Divide the mean squared error by the mean square of `expected`; tensors of one shape, a scalar."""
    return (output.float() - expected).square().mean() / expected.square().mean()


class TwoTowers(nn.Module):
    """Train both towers and the temperature as one module."""

    def __init__(self, image_encoder: ImageEncoder, text_encoder: CLIPTextModelWithProjection):
        super().__init__()
        self.image_encoder, self.text_encoder = image_encoder, text_encoder
        self.logit_scale = nn.Parameter(torch.tensor(2.659))  # log(1 / 0.07), CLIP's start

    def forward(self, images: torch.Tensor, input_ids: torch.Tensor):
        """Encode images and texts.

        Args:
            images: float [B, 3, H, W] in [-1, 1].
            input_ids: token ids, int64 [M, L].

        Returns:
            The images' `ImageEncoderOutput`; the texts' embeddings, not normalised, [M, P], and last hidden states,
            [M, L, D].
        """
        text = self.text_encoder(input_ids=input_ids)
        return self.image_encoder(images), text.text_embeds, text.last_hidden_state


@torch.no_grad()
def zero_shot_accuracy(towers: TwoTowers, bank: CaptionBank, bank_ids: torch.Tensor, test) -> dict[str, float]:
    """Measure how often the caption nearest to a test image names its noun and class.

    Args:
        towers: in evaluation mode.
        bank: of the captions.
        bank_ids: token ids of the bank's texts, int64 [N, L].
        test: the images with their labels.

    Returns:
        Fractions from 0 to 1: `zero_shot_noun` of the images with a known noun, `zero_shot_class` of all.
    """
    device = bank_ids.device
    plain = torch.arange(bank.num_names, device=device) * (bank.num_templates + bank.num_phrasings)
    texts = F.normalize(towers.text_encoder(input_ids=bank_ids[plain]).text_embeds.float(), dim=-1)
    nouns, classes = texts[: bank.num_nouns], texts[bank.num_nouns :]
    noun_hits = class_hits = 0
    for start in range(0, len(test), 500):
        rows = slice(start, start + 500)
        images = towers.image_encoder(to_float(test.images[rows].to(device))).image_embeds
        noun_hits += ((images @ nouns.T).argmax(1).cpu() == test.noun_ids[rows]).sum().item()
        class_hits += ((images @ classes.T).argmax(1).cpu() == test.labels[rows]).sum().item()
    known = (test.noun_ids >= 0).sum().clamp(min=1).item()
    return {"zero_shot_noun": noun_hits / known, "zero_shot_class": class_hits / len(test)}


def make_towers(options: ClipOptions, tokenizer: CLIPTokenizer) -> TwoTowers:
    """Make towers with random weights, or with those of `options.initial_weights`."""
    if options.initial_weights is not None:
        return TwoTowers(
            load_component(ImageEncoder, Path(options.initial_weights, "image_encoder")),
            load_component(CLIPTextModelWithProjection, Path(options.initial_weights, "text_encoder")),
        )
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text_config = CLIPTextConfig(
        vocab_size=len(tokenizer), max_position_embeddings=options.max_tokens, **special, **options.text_encoder
    )
    image_encoder = ImageEncoder(num_nouns=len(load_nouns()), **options.image_encoder)
    return TwoTowers(image_encoder, CLIPTextModelWithProjection(text_config))


class Clip(Stage[ClipOptions]):
    """Train both towers on images, their captions and phrasings of their nouns."""

    def setup(self) -> None:
        options = self.options
        dataset, self.test = (load_cifar10(options.data, split, options.resolution) for split in SPLITS)
        self.trainer = Trainer(options, self.limits, len(dataset))
        self.bank = CaptionBank(num_phrasings=NUM_PHRASINGS)
        with self.trainer.accelerator.main_process_first():
            self.tokenizer = run_tokenizer(Path(options.output) / "tokenizer", CaptionBank().texts, options)
        self.towers = make_towers(options, self.tokenizer)
        self.kept = self.trainer.frozen(deepcopy(self.towers.text_encoder)) if options.lambda_keep else None
        self.module = self.trainer.add("towers", self.towers)
        encoded = self.tokenizer(self.bank.texts, padding="max_length", truncation=True, return_tensors="pt")
        self.bank_ids = encoded.input_ids.to(self.trainer.device)
        self.images = AugmentedImages(dataset, options.translate, self.trainer.device)

    def batch(self, draws: Draws) -> LabelledBatch:
        return self.images.draw(draws)

    def step(self, batch: LabelledBatch, draws: Draws) -> dict[str, torch.Tensor]:
        options, bank, logit_scale = self.options, self.bank, self.towers.logit_scale
        plain_ids, phrase_ids, phrase_nouns = self.texts(draws)
        with self.trainer.autocast():
            output, texts, hidden = self.module(batch.images, torch.cat([plain_ids, phrase_ids]))
        plain, phrases = texts.split([len(plain_ids), len(phrase_ids)])
        noun_texts, class_texts = plain.split([bank.num_nouns, len(CLASS_NAMES)])
        losses = {
            "loss_text_noun": naming_loss(output.image_embeds, noun_texts, batch.noun_ids, logit_scale),
            "loss_text_class": naming_loss(output.image_embeds, class_texts, batch.labels, logit_scale),
            "loss_phrase": naming_loss(phrases, noun_texts, phrase_nouns, logit_scale),
            "loss_class": F.cross_entropy(output.class_logits, batch.labels),
            "loss_noun": noun_cross_entropy(output.noun_logits, batch.noun_ids),
        }
        loss = losses["loss_text_noun"] + losses["loss_text_class"] + LAMBDA_PHRASE * losses["loss_phrase"]
        loss = loss + LAMBDA_CLASS * losses["loss_class"] + LAMBDA_NOUN * losses["loss_noun"]
        if self.kept is not None:
            with torch.no_grad():
                before = self.kept(input_ids=plain_ids)
            losses["loss_keep"] = relative_error(plain, before.text_embeds)
            losses["loss_keep"] += relative_error(hidden[: len(plain_ids)], before.last_hidden_state)
            loss = loss + options.lambda_keep * losses["loss_keep"]
        self.trainer.update("towers", loss)
        return losses

    def texts(self, draws: Draws) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Draw the step's texts.

        Returns:
            Token ids of a plain caption for each name, int64 [M, L], and of phrasings of some nouns, int64 [P, L];
            those nouns, int64 [P].
        """
        bank, generator, device = self.bank, draws.generator, self.trainer.device
        plain_ids = self.bank_ids[bank.phrase(torch.arange(bank.num_names, device=device), generator)]
        nouns = torch.randperm(bank.num_nouns, generator=generator, device=device)[:PHRASES_PER_STEP]
        return plain_ids, self.bank_ids[bank.phrase(nouns, generator, phrasing_probability=1.0)], nouns

    def validate(self) -> dict[str, float]:
        self.towers.eval()
        result = accuracy(self.towers.image_encoder, self.test, self.trainer.device)
        result |= zero_shot_accuracy(self.towers, self.bank, self.bank_ids, self.test)
        self.towers.train()
        return result

    def export(self, folder: Path) -> None:
        self.towers.image_encoder.save_pretrained(folder / "image_encoder")
        self.towers.text_encoder.save_pretrained(folder / "text_encoder")
        self.tokenizer.save_pretrained(folder / "tokenizer")


if __name__ == "__main__":
    run_stage(Clip, ClipOptions)
