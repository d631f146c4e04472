"""Validate a run's options from a YAML file and `key=value` words."""

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from mobilediff.captions import CLASS_NAMES
from mobilediff.files import atomic_path
from mobilediff.sampling.scheduling import checked_interval

OPTIONS_FILE = "options.yaml"
ABLATIONS = "ablations"  # folder of the configs whose weights are not shipped
# A covariance of the judge's 256 features needs more images than these; in tens, for the classes.
MIN_VALIDATION_SAMPLES = 260
# Options that a resumed run may change.
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

Fraction = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class YamlLoader(yaml.SafeLoader):
    """Read 1e-4 as a number, as YAML 1.2 does."""


YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.[\d_]+)[eE][-+]?\d+$"), list("-+.0123456789")
)


@dataclass(frozen=True)
class RunLimits:
    """Limit one command; not part of the run's identity."""

    max_minutes: float | None = None
    dry_run: bool = False
    benchmark: bool = False

    @property
    def trial(self) -> bool:
        """Tell whether the command is a trial: on little data, into a folder made anew."""
        return self.dry_run or self.benchmark


class TrainingOptions(BaseModel):
    """Configure a run of any stage.

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
        dtype: of the forward passes: "bf16" (autocast), "fp32", or "fp16-weights" (fp32, with the weights of the
            trained networks rounded to float16, see `RoundedWeights`).
        compile: run the trained networks through torch.compile.
        log_every: steps between two log lines.
        sample_every: steps between two grids or measurements, 0 for none.
        save_every_minutes: between two saved states.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    output: str
    data: str | None = None
    resolution: Literal[32, 64] = 32
    seed: int = 0
    steps: PositiveInt = 1000
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat = 3e-4
    warmup_steps: NonNegativeInt = 100
    decay_fraction: Fraction = 1.0
    weight_decay: NonNegativeFloat = 0.01
    betas: tuple[Decay, Decay] = (0.9, 0.99)
    max_grad_norm: NonNegativeFloat = 1.0
    ema_decay: float = 0.999
    further_ema_decays: tuple[float, ...] = ()
    dtype: Literal["bf16", "fp32", "fp16-weights"] = "bf16"
    compile: bool = False
    log_every: PositiveInt = 20
    sample_every: NonNegativeInt = 0
    save_every_minutes: NonNegativeFloat = 5.0

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, values: dict) -> dict:
        return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}

    @model_validator(mode="after")
    def _check_ema_decays(self) -> Self:
        decays = [self.ema_decay, *self.further_ema_decays]
        in_range = all(0 <= decay < 1 for decay in decays) and 0 not in self.further_ema_decays
        if not in_range or len(set(decays)) < len(decays):
            raise ValueError(
                f"options ema_decay and further_ema_decays are {decays}; accepted are different numbers from 0 to "
                "below 1, and only ema_decay may be 0"
            )
        return self

    @property
    def compute_dtype(self) -> Literal["bf16", "fp32"]:
        """Return the precision that `dtype` computes in."""
        return "bf16" if self.dtype == "bf16" else "fp32"

    def trial_values(self) -> dict:
        """Return the values of a trial on little data; a stage adds its own."""
        return {}

    def for_trial(self, limits: RunLimits) -> Self:
        """Copy the options for a benchmark or dry run, with its own folder.

        A dry run is a few steps on small batches; a benchmark keeps the batches, and times as many steps as it needs.
        """
        values = self.model_dump() | self.trial_values()
        if limits.benchmark:
            values["output"] += "-benchmark"
        if limits.dry_run:
            values["output"] += "-dry-run"
            values |= {"steps": 3, "batch_size": 8, "warmup_steps": 1, "log_every": 1}
            values["sample_every"] = min(self.sample_every, 2)
        return build_options(type(self), values)


OptionsT = TypeVar("OptionsT", bound=TrainingOptions)


def check_validation_samples(count: int) -> int:
    """Refuse a number of samples that the `Monitor` cannot measure: ValueError."""
    if count and (count < MIN_VALIDATION_SAMPLES or count % len(CLASS_NAMES)):
        raise ValueError(
            f"option validation_samples is {count}; accepted are 0 and multiples of {len(CLASS_NAMES)} "
            f"from {MIN_VALIDATION_SAMPLES}"
        )
    return count


class GeneratorOptions(TrainingOptions):
    """Configure a stage that trains a generator.

    Attributes:
        class_probability: chance that a caption names the class and not the noun.
        null_probability: chance of the null prompt, for classifier-free guidance.
        phrasing_probability: chance that a caption is a phrasing instead of a plain one.
        default_num_inference_steps, default_guidance_scale, default_guidance_interval: defaults of the exported
            pipeline, which the run's own grids and figures use too.
        sample_steps: steps of the grids drawn while training; None for the default.
        sample_batch_size: samples drawn at once.
        validation_samples: samples drawn beside each grid and measured by the `Monitor`; 0 for none.
        validation_steps: further numbers of steps to measure, whose figures are logged as "frechet_distance_4_steps".
        latent_cache: folder of encoded images, shared by runs.
    """

    class_probability: Fraction = 0.3
    null_probability: Fraction = 0.1
    phrasing_probability: Fraction = 0.3
    default_num_inference_steps: PositiveInt = 25
    default_guidance_scale: float = 3.0
    default_guidance_interval: tuple[float, float] = (0.0, 1.0)
    sample_steps: PositiveInt | None = None
    sample_batch_size: PositiveInt = 250
    validation_samples: int = 0
    validation_steps: tuple[PositiveInt, ...] = ()
    latent_cache: str = "runs/latents"

    _check_interval = field_validator("default_guidance_interval")(checked_interval)
    _check_validation_samples = field_validator("validation_samples")(check_validation_samples)

    def trial_values(self) -> dict:
        samples = min(self.validation_samples, MIN_VALIDATION_SAMPLES)
        return super().trial_values() | {"validation_samples": samples, "sample_steps": 1, "validation_steps": ()}


def parse_options(options_class: type[OptionsT], arguments: list[str] | None = None) -> tuple[OptionsT, RunLimits]:
    """Read `--config FILE [key=value ...]` into `options_class`.

    Raises:
        SystemExit: on an unknown key or a refused value, naming it and the accepted ones.
    """
    parser = argparse.ArgumentParser(description=f"Options: {', '.join(options_class.model_fields)}.")
    parser.add_argument(
        "--config",
        type=Path,
        required=True,
        help=f"YAML file with the options of the run, also of the folder {ABLATIONS} beside it",
    )
    parser.add_argument("--max-minutes", type=float, help="stop after this time; the same command resumes")
    parser.add_argument("--dry-run", action="store_true", help="a few steps on small batches into <output>-dry-run")
    parser.add_argument(
        "--benchmark", action="store_true", help="only time steps, in <output>-benchmark; saves nothing"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="options that replace the file's")
    parsed = parser.parse_args(arguments)
    config = parsed.config if parsed.config.is_file() else parsed.config.parent / ABLATIONS / parsed.config.name
    if not config.is_file():
        parser.error(f"no such config file: {parsed.config}, nor {config}")
    if config != parsed.config:
        print(f"{parsed.config} is now {config}", file=sys.stderr)
    limits = RunLimits(parsed.max_minutes, parsed.dry_run, parsed.benchmark)
    try:
        options = build_options(options_class, _read_values(config, parsed.overrides))
        return options.for_trial(limits) if limits.trial else options, limits
    except ValueError as error:
        parser.error(str(error))


def build_options(options_class: type[OptionsT], values: dict) -> OptionsT:
    """Validate `values` as an instance of `options_class`.

    Raises:
        ValueError: in one line, every unknown key and every value that is not accepted.
    """
    unknown = sorted(map(str, set(values) - set(options_class.model_fields)))
    if unknown:
        raise ValueError(f"unknown options {unknown}; accepted are {sorted(options_class.model_fields)}")
    try:
        return options_class.model_validate(values)
    except ValidationError as error:
        raise ValueError("; ".join(map(_sentence, error.errors()))) from None


def save_options(options: TrainingOptions, folder: Path) -> None:
    """Write the resolved options beside the run."""
    with atomic_path(folder / OPTIONS_FILE) as temporary:
        temporary.write_text(yaml.safe_dump(plain_options(options), sort_keys=False), encoding="utf-8")


def saved_options(folder: Path) -> dict:
    """Read the options that `save_options` wrote."""
    return yaml.safe_load((folder / OPTIONS_FILE).read_text(encoding="utf-8"))


def plain_options(options: TrainingOptions) -> dict:
    """Convert options to YAML's dictionaries, lists, numbers and strings."""
    return options.model_dump(mode="json")


def _sentence(error) -> str:
    """State the option of one of pydantic's errors, its value and the accepted ones."""
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    name = error["loc"][0]
    if error["type"] == "missing":
        if len(error["loc"]) > 1:
            return f"option {name} is {list(error['input'])}; accepted is a longer list"
        return f"option {name} is missing; it has no default"
    accepted = re.sub("^Input should be (greater|less)", r"accepted is a number \1", error["msg"])
    return f"option {name} is {error['input']!r}; {accepted.replace('Input should be', 'accepted is')}"


def _read_values(config: Path, overrides: list[str]) -> dict:
    """Read the entries of a YAML file; `overrides` replace them."""
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
        return yaml.load(text, YamlLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{where} is not YAML: {' '.join(str(error).split())}") from error
