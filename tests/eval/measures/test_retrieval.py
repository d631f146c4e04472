"""Retrieval with a CLIP that knows every noun, and with one that cannot read capitals."""

import json
from random import Random

import torch
import torch.nn.functional as F

import eval.retrieval
from eval.extractors.clip import ClipModel
from eval.measures.retrieval import UNSEEN_PHRASINGS, measure_retrieval
from eval.samples.images import ImageSet
from mobilediff.captions import CLASS_NAMES, OPENERS, load_nouns, phrasing

NOUNS = list(load_nouns())


def named(text: str) -> int:
    """The longest noun in a text."""
    found = [noun for noun in NOUNS if noun in text]
    return NOUNS.index(max(found, key=len)) if found else -1


def reading_clip(reads=str.lower) -> ClipModel:
    """Texts are a unit vector each, images their noun's and, weaker, their class's."""

    def embed_texts(texts):
        rows = torch.tensor([named(reads(text)) for text in texts])
        return F.one_hot(rows.clamp(min=0), len(NOUNS)).float() * (rows >= 0)[:, None] + 1e-6

    def embed_images(images):
        nouns = images[:, 0, 0, 0].long() + 256 * images[:, 0, 0, 1].long()
        classes = torch.tensor([NOUNS.index(CLASS_NAMES[load_nouns()[NOUNS[noun]]]) for noun in nouns])
        return F.one_hot(nouns, len(NOUNS)) + 0.5 * F.one_hot(classes, len(NOUNS))

    return ClipModel("reading", "0" * 64, "none", embed_images, embed_texts)


def images_of(nouns: list[int]) -> ImageSet:
    images = torch.zeros(len(nouns), 3, 32, 32, dtype=torch.uint8)
    images[:, 0, 0, 0], images[:, 0, 0, 1] = torch.tensor(nouns) % 256, torch.tensor(nouns) // 256
    labels = torch.tensor([load_nouns()[NOUNS[noun]] for noun in nouns])
    return ImageSet(images, labels, torch.tensor(nouns), protocol={"n": len(nouns), "images_sha256": "0" * 64})


def test_what_a_clip_reads_is_what_it_finds():
    result = measure_retrieval(reading_clip(), images_of([0, 50, 395, 300]))
    assert result["class_top1"] == result["noun_top1"] == 1 and result["noun_n"] == 4
    assert set(result["phrase_top1"].values()) == {1.0}
    small_letters = measure_retrieval(reading_clip(str), images_of([0, 50]))
    assert small_letters["phrase_top1"]["shouted"] < 0.01 and small_letters["phrase_top1"]["old"] == 1


def test_images_without_a_noun_are_left_out_of_its_figures():
    images = images_of([7, 90, 200])
    images.noun_ids[:] = -1
    result = measure_retrieval(reading_clip(), images)
    assert result["noun_n"] == 0 and "noun_top1" not in result and result["class_top1"] == 1


def test_the_command_writes_what_it_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(eval.retrieval, "real_images", lambda data, split: images_of([3, 77]))
    monkeypatch.setattr(eval.retrieval, "clip_from_arguments", lambda args, device: reading_clip())
    eval.retrieval.main(["--json", str(tmp_path / "retrieval.json")])
    written = json.loads((tmp_path / "retrieval.json").read_text())
    assert written["command"] == "eval.retrieval" and written["noun_top5"] == 1
    assert "phrase top1 shouted" in capsys.readouterr().out


def test_the_phrasings_are_not_in_the_training_captions():
    """Not by design, that is: a meaningless word may spell one by chance."""
    words = ["old", "blurry", "snapshot", "your", "painted", "by", "hand", "!!"]
    assert not set(words) & set(" ".join(OPENERS).split())
    texts = " ".join(phrasing("zebra", Random(seed)) for seed in range(300))
    assert sum(texts.split().count(word) for word in words) <= 1
    assert all(phrased("zebra").lower().count("zebra") == 1 for phrased in UNSEEN_PHRASINGS.values())
