"""Stage `clip`: a small CLIP (arXiv 2103.00020) on images and captions; its text tower conditions the generators."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import pre_tokenizers, trainers
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from mobilediff.captions import CLASS_NAMES, CaptionBank, load_nouns
from mobilediff.data import SPLITS, load_cifar10
from mobilediff.models.image_encoder import ImageEncoder
from mobilediff.training.augment import random_flip, random_translate, to_float
from mobilediff.training.classifier import accuracy, noun_cross_entropy
from mobilediff.training.options import TrainingOptions, parse_options
from mobilediff.training.trainer import Trainer, TrainingStep

WORD_END = "</w>"


@dataclass
class ClipOptions(TrainingOptions):
    """Options of the stage.

    Attributes:
        image_encoder: config of `ImageEncoder`; its `projection_dim` is the joint space's.
        text_encoder: config of `CLIPTextModelWithProjection`, without vocabulary size and special tokens.
        vocabulary_size: most entries of the BPE vocabulary.
        max_tokens: length that captions are padded to.
        translate: most pixels that an image is shifted by.
        class_probability: chance that an image's caption names its class and not its noun.
        lambda_class: weight of the image tower's own class loss.
        lambda_noun: weight of its noun loss.
    """

    image_encoder: dict = field(default_factory=dict)
    text_encoder: dict = field(default_factory=dict)
    vocabulary_size: int = 1536
    max_tokens: int = 16
    translate: int = 2
    class_probability: float = 0.3
    lambda_class: float = 0.5
    lambda_noun: float = 0.25


def train_tokenizer(texts: list[str], vocabulary_size: int, max_tokens: int) -> CLIPTokenizer:
    """A `CLIPTokenizer` whose byte-level BPE is learnt from `texts`; every byte stays in the vocabulary."""
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
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=max_tokens)


def run_tokenizer(folder: Path, texts: list[str], options: ClipOptions) -> CLIPTokenizer:
    """The run's tokenizer, learnt once: ties between merges fall differently in another process."""
    if not folder.is_dir():
        temporary = folder.with_name(f".{folder.name}.tmp")
        train_tokenizer(texts, options.vocabulary_size, options.max_tokens).save_pretrained(temporary)
        temporary.replace(folder)
    return CLIPTokenizer.from_pretrained(folder)


def contrastive_loss(
    image_embeds: torch.Tensor, text_embeds: torch.Tensor, positives: torch.Tensor, logit_scale: torch.Tensor
) -> torch.Tensor:
    """Symmetric cross-entropy with several positives a row (UniCL, arXiv 2204.03610, eq. 2-4).

    Args:
        image_embeds, text_embeds: normalised, [N, P].
        positives: `positives[i, j]` says that text i is true of image j, bool [N, N].
        logit_scale: log of the inverse temperature.
    """
    logits = logit_scale.exp() * text_embeds @ image_embeds.T
    targets = positives.float()
    loss_text = -(targets * logits.log_softmax(1)).sum(1) / targets.sum(1)
    loss_image = -(targets * logits.log_softmax(0)).sum(0) / targets.sum(0)
    return (loss_text.mean() + loss_image.mean()) / 2


class TwoTowers(nn.Module):
    """Both towers and the temperature, trained as one."""

    def __init__(self, image_encoder: ImageEncoder, text_encoder: CLIPTextModelWithProjection):
        super().__init__()
        self.image_encoder, self.text_encoder = image_encoder, text_encoder
        self.logit_scale = nn.Parameter(torch.tensor(2.659))  # log(1 / 0.07), CLIP's start

    def forward(self, images: torch.Tensor, input_ids: torch.Tensor):
        return self.image_encoder(images), self.text_encoder(input_ids=input_ids).text_embeds.float()


@torch.no_grad()
def zero_shot_accuracy(towers: TwoTowers, bank_ids: torch.Tensor, test, device: torch.device) -> dict[str, float]:
    """Share of test images whose nearest caption is their own noun's, and their own class's."""
    templates = (len(bank_ids) - 1) // (len(load_nouns()) + 10)
    texts = F.normalize(towers.text_encoder(input_ids=bank_ids[:-1:templates]).text_embeds.float(), dim=-1)
    nouns, classes = texts[:-10], texts[-10:]
    noun_hits = class_hits = 0
    for start in range(0, len(test), 500):
        rows = slice(start, start + 500)
        images = towers.image_encoder(to_float(test.images[rows].to(device))).image_embeds
        noun_hits += ((images @ nouns.T).argmax(1).cpu() == test.noun_ids[rows]).sum().item()
        class_hits += ((images @ classes.T).argmax(1).cpu() == test.labels[rows]).sum().item()
    return {"zero_shot_noun": noun_hits / len(test), "zero_shot_class": class_hits / len(test)}


def train(options: ClipOptions, limits) -> bool:
    """Train both towers; see `Trainer.fit` for the returned value."""
    dataset, test = (load_cifar10(options.data, split, options.resolution) for split in SPLITS)
    trainer = Trainer(options, limits, len(dataset))
    bank = CaptionBank()
    with trainer.accelerator.main_process_first():
        tokenizer = run_tokenizer(Path(options.output) / "tokenizer", bank.texts, options)
    text_config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=options.max_tokens,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **options.text_encoder,
    )
    towers = TwoTowers(
        ImageEncoder(num_nouns=len(load_nouns()), **options.image_encoder), CLIPTextModelWithProjection(text_config)
    )
    module = trainer.add("towers", towers)
    encoded = tokenizer(bank.texts, padding="max_length", truncation=True, return_tensors="pt")
    bank_ids = encoded.input_ids.to(trainer.device)
    names_class = torch.tensor([name in CLASS_NAMES for name in load_nouns()], device=trainer.device)
    images, labels, nouns = (t.to(trainer.device) for t in (dataset.images, dataset.labels, dataset.noun_ids))

    def step_function(step: TrainingStep) -> dict[str, torch.Tensor]:
        label, noun = labels[step.indices], nouns[step.indices]
        batch = random_flip(to_float(images[step.indices]), step.generator)
        batch = random_translate(batch, options.translate, step.generator)
        rows = bank.draw(label, noun, step.generator, options.class_probability)
        with trainer.autocast():
            output, text_embeds = module(batch.to(memory_format=torch.channels_last), bank_ids[rows])
        # "a cat" is a caption of every cat, whether it was drawn as the class or as one of the nouns
        by_class = (rows >= bank.num_nouns * bank.num_templates) | (names_class[noun] & (noun >= 0))
        same_class, same_noun = label[:, None] == label, (noun[:, None] == noun) & (noun >= 0)
        positives = torch.where(by_class[:, None], same_class, same_noun)
        loss_contrastive = contrastive_loss(
            F.normalize(output.image_embeds, dim=-1), F.normalize(text_embeds, dim=-1), positives, towers.logit_scale
        )
        loss_class = F.cross_entropy(output.class_logits, label)
        loss_noun = noun_cross_entropy(output.noun_logits, noun)
        loss = loss_contrastive + options.lambda_class * loss_class + options.lambda_noun * loss_noun
        trainer.update("towers", loss)
        return {"loss_contrastive": loss_contrastive, "loss_class": loss_class, "loss_noun": loss_noun}

    def on_sample(writer) -> dict[str, float]:
        towers.eval()
        result = accuracy(towers.image_encoder, test, trainer.device)
        result |= zero_shot_accuracy(towers, bank_ids, test, trainer.device)
        towers.train()
        return result

    def on_export(folder: Path) -> None:
        towers.image_encoder.save_pretrained(folder / "image_encoder")
        towers.text_encoder.save_pretrained(folder / "text_encoder")
        tokenizer.save_pretrained(folder / "tokenizer")

    return trainer.fit(step_function, on_export, on_sample)


if __name__ == "__main__":
    train(*parse_options(ClipOptions))
