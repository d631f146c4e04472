"""Read prompts: tokens, embeddings, and warnings about what a checkpoint does not know."""

import difflib
import re
import threading
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import torch
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

# CIFAR-10's classes in the order of its labels.
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# Neighbouring words of a prompt that are compared with the known names.
MAX_COMPARED_PHRASES = 64

# Fast tokenizers keep padding and truncation from call to call, and raise if another thread changes them meanwhile.
_TOKENIZING = threading.Lock()


def is_unicode(text: str) -> bool:
    """Return whether a text can be encoded, which one with half of a surrogate pair cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def readable(prompt: str, tokenizer: CLIPTokenizer) -> str:
    """Drop invisible characters (Unicode's category Cf) and the tokenizer's own marks, such as <|endoftext|>.

    Raises:
        ValueError: the prompt holds half of a surrogate pair, which no tokenizer takes.
    """
    if not prompt.isascii():
        if not is_unicode(prompt):
            raise ValueError(f"prompt is {prompt!r}, which holds half of a surrogate pair; accepted: whole characters")
        prompt = "".join(character for character in prompt if unicodedata.category(character) != "Cf")
    for mark in tokenizer.all_special_tokens:
        prompt = prompt.replace(mark, " ")
    return prompt


def encode_text(
    tokenizer: CLIPTokenizer,
    text_encoder: CLIPTextModelWithProjection,
    prompts: list[str],
    device: torch.device | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Encode prompts as the conditioning of all networks, in training and sampling alike.

    Args:
        tokenizer: pads and cuts every prompt to L = `tokenizer.model_max_length` tokens.
        text_encoder: hidden size D, projection size P.
        prompts: B strings, read as `readable` says.
        device: where the encoder computes; by default where its weights are.

    Returns:
        Hidden states for cross-attention, [B, L, D], and the projected embedding of the end token, [B, P].

    Raises:
        ValueError: as in `readable`.
    """
    texts = [readable(prompt, tokenizer) for prompt in prompts]
    with _TOKENIZING:
        tokens = tokenizer(
            texts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
        )
    output = text_encoder(tokens.input_ids.to(device or text_encoder.device))
    return output.last_hidden_state, output.text_embeds


def check_vocabulary(tokenizer: CLIPTokenizer, text_encoder: CLIPTextModelWithProjection) -> None:
    """Refuse a tokenizer that is not the text encoder's.

    Raises:
        ValueError: their numbers of tokens differ, as where the tokenizer's files are missing.
    """
    known, embedded = len(tokenizer), text_encoder.get_input_embeddings().num_embeddings
    if known != embedded:
        raise ValueError(
            f"the tokenizer knows {known} tokens, the text encoder embeds {embedded}; "
            "accepted: a checkpoint whose folder tokenizer holds tokenizer.json as it was exported"
        )


def _words(text: str) -> list[str]:
    """Split text into lower-case words without quotes, possessive endings and hyphens."""
    text = re.sub(r"'s?\b|'", " ", re.sub(r"['\u2018\u2019\u02bc]", "'", text.lower()))
    return re.findall(r"\w+", text)


def _phrases(words: Sequence[str], longest: int) -> list[str]:
    """List phrases of one to `longest` neighbouring words, from the prompt's start on."""
    return [
        " ".join(words[i : i + n]) for i in range(len(words)) for n in range(1, longest + 1) if i + n <= len(words)
    ]


@lru_cache(8)
def _forms(names: tuple[str, ...]) -> frozenset[str]:
    """List the names as `_words` reads them, singular and plural."""
    forms = set()
    for name in (" ".join(_words(name)) for name in names):
        forms |= {name, f"{name}s", f"{name}es"}
        if name.endswith("y"):
            forms.add(f"{name[:-1]}ies")
    return frozenset(forms)


def nearest_names(prompt: str, names: Sequence[str], count: int = 3) -> list[str]:
    """Find the `count` names nearest to phrases of the prompt, best first.

    A phrase is one to three neighbouring words; the first 64 are compared, by `difflib`'s ratio of at least 0.5.
    """
    phrases = list(dict.fromkeys(_phrases(_words(prompt), 3)))[:MAX_COMPARED_PHRASES]
    if not phrases:
        return []
    alphabet = sorted({character for text in (*phrases, *names) for character in text})
    ours, theirs = (
        torch.tensor([[text.count(character) for character in alphabet] for text in texts], dtype=torch.int16)
        for texts in (phrases, names)
    )
    # The ratio of two texts is at most what it would be if their common letters stood in one order.
    common = torch.minimum(ours[:, None], theirs[None]).sum(dim=-1).double()
    bounds = 2 * common / (ours.sum(dim=-1)[:, None] + theirs.sum(dim=-1)[None])
    scores, least = {}, 0.5
    for index in bounds.flatten().argsort(descending=True).tolist():
        phrase, name = phrases[index // len(names)], names[index % len(names)]
        if bounds[index // len(names), index % len(names)] < least:
            break
        ratio = difflib.SequenceMatcher(None, phrase, name).ratio()
        if ratio >= least:
            scores[name] = max(scores.get(name, 0.0), ratio)
            best = sorted(scores.values(), reverse=True)
            least = best[count - 1] if len(best) >= count else least
    return sorted(scores, key=lambda name: (-scores[name], name))[:count]


def find_prompt_warnings(prompt: str, nouns: tuple[str, ...] | None, tokenizer: CLIPTokenizer, most: int) -> list[str]:
    """Warn that a prompt's end is not read, or that it names no known noun.

    Args:
        nouns: known beside the classes; None for no warning about names.
        most: tokens that are read.
    """
    warnings, text = [], readable(prompt, tokenizer)
    with _TOKENIZING:
        tokens = tokenizer(text, return_offsets_mapping=True)
    if (count := len(tokens.input_ids)) > most:
        warnings.append(f"The prompt {prompt!r} has {count} tokens; what follows the first {most} is not read.")
        text = text[: tokens.offset_mapping[most - 2][1]]  # the last place is the end token's
    if nouns is None:
        return warnings
    names = sorted({*nouns, *CLASS_NAMES})
    words = _words(text)
    if _forms(tuple(names)).isdisjoint(_phrases(words, max(len(_words(name)) for name in names))):
        nearest = nearest_names(text, names) or list(CLASS_NAMES)
        warnings.append(
            f"The prompt {prompt!r} names nothing that the model was trained on, so the image may show anything. "
            f"Nearest known names: {', '.join(nearest)}."
        )
    return warnings
