"""The names that models know are offered each once, with a prompt that says them and the number of images."""

import re

from eval.samples.prompts import training_noun_counts
from mobilediff.captions import CLASS_NAMES, load_nouns
from mobilediff.demo.service.vocabulary import prompt_choices


def test_every_name_is_offered_once_with_its_prompt():
    labels, prompts = zip(*prompt_choices(), strict=True)
    names = [label.partition(":")[0].removesuffix(" (class)") for label in labels]
    assert names[:10] == list(CLASS_NAMES)
    assert sorted(names) == sorted(load_nouns())
    assert [prompt.split(" ", 1)[1] for prompt in prompts] == names
    assert prompts[0] == "an airplane" and prompts[9] == "a truck"


def test_counts_are_those_of_the_training_images():
    labels = [label for label, _ in prompt_choices()]
    assert labels[:10] == [f"{name} (class): 5,000 training images" for name in CLASS_NAMES]
    counts = [int(re.search(r": ([\d,]+) training images?$", label)[1].replace(",", "")) for label in labels[10:]]
    assert counts == sorted(counts, reverse=True)
    own = sum(count for noun, count in training_noun_counts().items() if noun in CLASS_NAMES)
    assert sum(counts) + own == 50_000
