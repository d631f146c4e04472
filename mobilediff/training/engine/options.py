"""Options of a run: a dataclass gives the names, a YAML file the values, `key=value` words the last say."""

import argparse
import dataclasses
import sys
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml
from accelerate import PartialState

from mobilediff.captions import CLASS_NAMES
from mobilediff.files import atomic_path
from mobilediff.pipeline import checked_interval

OPTIONS_FILE = "options.yaml"
PRECISIONS = ("bf16", "no")
# A covariance of the judge's 256 features needs more images than these; in tens, for the classes.
MIN_VALIDATION_SAMPLES = 260
# What a resumed run may have otherwise than the run that it goes on with.
MAY_CHANGE = (
    "data",
    "steps",
    "log_every",
    "sample_every",
    "sample_steps",
    "validation_samples",
    "validation_steps",
    "save_every_minutes",
    "compile",
    "latent_cache",
    "pair_cache",
)


@dataclass
class TrainingOptions:
    """What every stage has.

    Attributes:
        output: the run folder; the same command on the same folder resumes.
        data: where CIFAR-10 is (see `mobilediff.data.load_cifar10`); None reads the variable MOBILEDIFF_DATA.
        resolution: of the images, 32 or 64.
        seed: of the initial weights and of all that is drawn.
        steps: optimiser steps of the whole run; the learning rate is planned over them.
        batch_size: images a step and process.
        learning_rate: of AdamW, the highest.
        warmup_steps: steps of linear warm-up.
        decay_fraction: the last fraction of `steps`, over which the learning rate falls linearly to zero.
        weight_decay: of AdamW.
        betas: of AdamW.
        max_grad_norm: gradient clipping, 0 for none.
        ema_decay: of the weights' moving average, 0 for none.
        further_ema_decays: of averages of other lengths, each exported beside the run's own to be compared with it.
        mixed_precision: "bf16" (autocast) or "no".
        compile: run the trained networks through torch.compile.
        log_every: steps between two log lines.
        sample_every: steps between two grids or measurements, 0 for none.
        save_every_minutes: between two saved states.
    """

    POSITIVE = ("steps", "batch_size", "log_every")

    output: str
    data: str | None = None
    resolution: int = 32
    seed: int = 0
    steps: int = 1000
    batch_size: int = 64
    learning_rate: float = 3e-4
    warmup_steps: int = 100
    decay_fraction: float = 1.0
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    max_grad_norm: float = 1.0
    ema_decay: float = 0.999
    further_ema_decays: tuple[float, ...] = ()
    mixed_precision: str = "bf16"
    compile: bool = False
    log_every: int = 20
    sample_every: int = 0
    save_every_minutes: float = 5.0

    def __post_init__(self):
        for name in self.POSITIVE:
            if getattr(self, name) < 1:
                raise ValueError(f"option {name} is {getattr(self, name)}; accepted is 1 or more")
        decays = [self.ema_decay, *self.further_ema_decays]
        if (
            not all(0 <= decay < 1 for decay in decays)
            or 0 in self.further_ema_decays
            or len(set(decays)) < len(decays)
        ):
            raise ValueError(
                f"options ema_decay and further_ema_decays are {decays}; accepted are different numbers from 0 to "
                "below 1, of which only ema_decay may be 0"
            )
        if self.mixed_precision not in PRECISIONS:
            raise ValueError(
                f"option mixed_precision is {self.mixed_precision!r}; accepted are {', '.join(PRECISIONS)}"
            )


@dataclass
class GeneratorOptions(TrainingOptions):
    """Options that all stages of a generator have.

    Attributes:
        class_probability: chance that a caption names the class and not the noun.
        null_probability: chance of the null prompt, for classifier-free guidance.
        phrasing_probability: chance that a caption is not a plain one but a phrasing.
        num_phrasings: phrasings of each name.
        default_num_inference_steps, default_guidance_scale, default_guidance_interval: what the exported pipeline
            samples with, and so do the run's own grids and figures.
        sample_steps: steps of the grids drawn while training; None for the default.
        sample_batch_size: samples drawn at once.
        validation_samples: samples drawn beside each grid and measured by the `Monitor`; 0 for none.
        validation_steps: further numbers of steps to measure, whose figures are logged as "distance_4_steps".
        latent_cache: folder of encoded images, shared by runs.
    """

    POSITIVE = (*TrainingOptions.POSITIVE, "sample_batch_size")

    class_probability: float = 0.3
    null_probability: float = 0.1
    phrasing_probability: float = 0.3
    num_phrasings: int = 16
    default_num_inference_steps: int = 50
    default_guidance_scale: float = 3.0
    default_guidance_interval: tuple[float, float] = (0.0, 1.0)
    sample_steps: int | None = None
    sample_batch_size: int = 250
    validation_samples: int = 0
    validation_steps: tuple[int, ...] = ()
    latent_cache: str = "runs/latents"

    def __post_init__(self):
        super().__post_init__()
        checked_interval(self.default_guidance_interval)
        check_validation_samples(self.validation_samples)


def check_validation_samples(count: int) -> None:
    """Refuse a number of samples that the `Monitor` cannot measure: ValueError."""
    if count and (count < MIN_VALIDATION_SAMPLES or count % len(CLASS_NAMES)):
        raise ValueError(
            f"option validation_samples is {count}; accepted are 0 and multiples of {len(CLASS_NAMES)} "
            f"from {MIN_VALIDATION_SAMPLES}"
        )


@dataclass(frozen=True)
class RunLimits:
    """How far this very command goes: not part of the run's identity."""

    max_minutes: float | None = None
    dry_run: bool = False
    benchmark: bool = False

    @property
    def trial(self) -> bool:
        """Whether the run is only tried: on little data, into a folder that it makes anew."""
        return self.dry_run or self.benchmark


def parse_options(options_class: type, arguments: list[str] | None = None) -> tuple[TrainingOptions, RunLimits]:
    """Read `--config FILE [key=value ...]` into `options_class`.

    Raises:
        SystemExit: on an unknown key or a value of the wrong type, naming it and what is accepted.
    """
    parser = argparse.ArgumentParser(description=f"Options: {', '.join(_field_types(options_class))}.")
    parser.add_argument("--config", type=Path, required=True, help="YAML file with the options of the run")
    parser.add_argument("--max-minutes", type=float, help="stop after this time; the same command resumes")
    parser.add_argument("--dry-run", action="store_true", help="a few steps on small batches into <output>-dry-run")
    parser.add_argument(
        "--benchmark", action="store_true", help="only time steps, in <output>-benchmark; saves nothing"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="options that replace the file's")
    parsed = parser.parse_args(arguments)
    if not parsed.config.is_file():
        parser.error(f"no such config file: {parsed.config}")
    try:
        options = build_options(options_class, _read_values(parsed.config, parsed.overrides))
    except (TypeError, ValueError) as error:
        parser.error(str(error))
    limits = RunLimits(parsed.max_minutes, parsed.dry_run, parsed.benchmark)
    if limits.benchmark:
        options.output = f"{options.output}-benchmark"
    if limits.dry_run:
        options.output = f"{options.output}-dry-run"
        options.steps, options.batch_size, options.warmup_steps = 3, 8, 1
        options.log_every, options.sample_every = 1, min(options.sample_every, 2)
    return options, limits


def run_stage(train: Callable[[TrainingOptions, RunLimits], bool], options_class: type) -> None:
    """A stage's command line: what it refuses ends in one line that says why."""
    options, limits = parse_options(options_class)
    try:
        train(options, limits)
        PartialState().destroy_process_group()  # its threads may end a process that leaves with them by an abort
    except (OSError, ValueError, FloatingPointError) as error:
        sys.exit(f"error: {error}")


def build_options(options_class: type, values: dict) -> TrainingOptions:
    """An instance of `options_class`; unknown keys and values of the wrong type are errors."""
    expected = _field_types(options_class)
    unknown = sorted(map(str, set(values) - set(expected)))
    if unknown:
        raise ValueError(f"unknown options {unknown}; accepted are {sorted(expected)}")
    return options_class(**{key: _coerce(key, value, expected[key]) for key, value in values.items()})


def save_options(options: TrainingOptions, folder: Path) -> None:
    """Write the resolved options beside the run."""
    with atomic_path(folder / OPTIONS_FILE) as temporary:
        temporary.write_text(yaml.safe_dump(plain_options(options), sort_keys=False), encoding="utf-8")


def saved_options(folder: Path) -> dict:
    """What `save_options` wrote."""
    return yaml.safe_load((folder / OPTIONS_FILE).read_text(encoding="utf-8"))


def plain_options(options: TrainingOptions) -> dict:
    """The options as YAML has them: dictionaries, lists, numbers and strings."""
    return _plain(dataclasses.asdict(options))


def _read_values(config: Path, overrides: list[str]) -> dict:
    """The entries of a YAML file, with those of `overrides` in their place."""
    values = _parse_yaml(config.read_text(encoding="utf-8"), str(config)) or {}
    if not isinstance(values, dict):
        raise ValueError(f"{config} holds a {type(values).__name__}; accepted are lines of the form key: value")
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise ValueError(f"{override!r} is not of the form key=value")
        values[key] = _parse_yaml(text, override)
    return values


def _parse_yaml(text: str, where: str):
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{where} is not YAML: {' '.join(str(error).split())}") from error


def _field_types(options_class: type) -> dict[str, type]:
    hints = typing.get_type_hints(options_class)
    return {field.name: hints[field.name] for field in dataclasses.fields(options_class)}


def _coerce(key: str, value, expected):
    """`value` as the annotated type; YAML reads 1e-4 as a string, [0.9, 0.99] as a list and no as False."""
    accepted = typing.get_args(expected) if isinstance(expected, types.UnionType) else (expected,)
    for candidate in accepted:
        plain = typing.get_origin(candidate) or candidate
        if plain is str and value is False:
            return "no"
        if plain is tuple and isinstance(value, list):
            return _coerce_items(key, value, candidate)
        if plain is float and isinstance(value, int | str) and not isinstance(value, bool):
            try:
                return float(value)
            except ValueError:
                continue
        if isinstance(value, plain) and (plain is bool or not isinstance(value, bool)):
            return value
    raise TypeError(f"option {key} is {value!r}; {getattr(expected, '__name__', expected)} is expected")


def _coerce_items(key: str, values: list, expected) -> tuple:
    """A list as the annotated tuple: of one type and any length ("..."), or of a type each."""
    types_of_items = typing.get_args(expected)
    if types_of_items[-1] is Ellipsis:
        types_of_items = types_of_items[:1] * len(values)
    if len(values) != len(types_of_items):
        raise TypeError(f"option {key} is {values}; a list of {len(types_of_items)} is expected")
    return tuple(_coerce(key, value, item) for value, item in zip(values, types_of_items, strict=True))


def _plain(value):
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
