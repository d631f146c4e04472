"""Choose an extractor by its kind."""

from pathlib import Path

from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

from eval.extractors.base import Extractor
from eval.extractors.dinov2 import dinov2_extractor
from eval.extractors.efficientnet import efficientnet_extractor
from eval.extractors.inception import inception_extractor
from eval.extractors.judge import judge_extractor, say_judge_is_used
from eval.extractors.open_clip import clip_extractor

EXTRACTORS = ("auto", "judge", "efficientnet", "inception", "dinov2", "clip")


def choose_extractor(kind: str, weights: str | Path | None = None, clip_model: str | None = None) -> Extractor:
    """Choose the extractor of a kind of `EXTRACTORS`; "auto" is Inception, or the judge without its weights.

    A line on stderr says when "auto" is the judge.

    Args:
        kind: of extractor.
        weights: a file (inception, clip) or a folder (dinov2) instead of the cache or download.
        clip_model: open_clip's architecture:tag.

    Raises:
        ValueError: an unknown kind, an option of another kind, or weights that are corrupt.
        FileNotFoundError: the weights cannot be had, or those named do not exist.
    """
    if kind not in EXTRACTORS:
        raise ValueError(f"extractor is {kind!r}; accepted are {', '.join(EXTRACTORS)}")
    if clip_model and kind != "clip":
        raise ValueError("--clip-model is an option of --extractor clip")
    if kind == "clip":
        return clip_extractor(clip_model, weights)
    if kind == "dinov2":
        return dinov2_extractor(weights)
    if kind == "judge":
        if weights:
            raise ValueError("--extractor judge is bundled: it takes no --extractor-weights")
        return judge_extractor()
    if kind == "efficientnet":
        if weights:
            raise ValueError("--extractor efficientnet is a package's: it takes no --extractor-weights")
        return efficientnet_extractor()
    try:
        return inception_extractor(weights)
    except OSError as error:
        if kind == "inception" or weights:
            raise FileNotFoundError(
                f"no Inception weights: {error}. They come from {URL_INCEPTION_V3}; "
                "--extractor-weights FILE takes the file, --extractor judge does without"
            ) from error
        say_judge_is_used("Inception's weights cannot be had here")
        return judge_extractor()
