"""Add and read the options of the sampled model and its sampling."""

import argparse
from dataclasses import replace

from diffusers import DiffusionPipeline

from eval.protocol import default_device
from eval.samples.exported import check_no_sampling_options, load_exported_sampler
from eval.samples.pipelines import (
    load_diffusers_pipeline,
    load_sampler,
    parse_call,
    resolve_pipeline_settings,
    takes_generators,
)
from eval.samples.prompts import PROMPT_KINDS
from eval.samples.settings import DTYPES, SamplingSettings, resolve_settings
from mobilediff.captions import caption
from mobilediff.ondevice.exported import ExportedPipeline, is_exported
from mobilediff.schedulers.compatible import choose_scheduler


def add_model_arguments(group) -> None:
    """Add --model, a checkpoint or an export, and --pipeline, a diffusers pipeline, to an argument group."""
    group.add_argument("--model", help="a checkpoint folder of this project, or an export of one")
    group.add_argument("--pipeline", help="a diffusers pipeline that makes images: a folder or a name on the hub")


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of sampling."""
    parser.add_argument("--n", type=int, default=10000, help="number of samples, balanced over the classes")
    parser.add_argument("--steps", type=int, help="of --model: inference steps (default: the checkpoint's own)")
    parser.add_argument(
        "--guidance-scale", type=float, help="of --model: guidance scale (default: the checkpoint's own)"
    )
    parser.add_argument(
        "--interval",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="of --model: where guidance applies, as fractions of the timesteps (default: the checkpoint's own)",
    )
    parser.add_argument("--scheduler", help="of --model: diffusers' class (default: the checkpoint's own)")
    parser.add_argument("--call", help="of --pipeline: arguments of its call, a JSON object")
    parser.add_argument("--trust-remote-code", action="store_true", help="of --pipeline: run code that comes with it")
    parser.add_argument("--seed", type=int, default=0, help="sample i is drawn with seed + i")
    parser.add_argument("--prompts", choices=PROMPT_KINDS, default="class", help="things that the prompts name")
    parser.add_argument(
        "--template",
        type=checked_template,
        help='the sentence around it, such as "AN OLD {noun}!!" (default: the checkpoint\'s own)',
    )
    parser.add_argument("--dtype", choices=tuple(DTYPES), default="fp32", help="bf16 samples under autocast")
    parser.add_argument("--compile", action="store_true", help="sample under torch.compile; pays for many steps")
    parser.add_argument("--batch-size", type=int, default=100, help="samples drawn at once")


def checked_template(text: str) -> str:
    """Refuse a template that cannot be filled or has no place for the noun."""
    try:
        filled = {noun: caption(noun, text) for noun in ("zebra", "ostrich")}
    except (KeyError, IndexError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be filled: {error!r}") from error
    if any(noun not in one for noun, one in filled.items()):
        raise argparse.ArgumentTypeError(f"{text!r} has no place for the noun; accepted is a text with {{noun}} in it")
    return text


def sampler_from_arguments(args: argparse.Namespace) -> tuple[DiffusionPipeline | ExportedPipeline, SamplingSettings]:
    """Load the model of --model or --pipeline and resolve its settings.

    Raises:
        ValueError: an option of the other kind of model, or as in the functions that load and resolve.
    """
    pipeline, settings = _loaded_sampler(args)
    if args.template is not None:
        if settings.prompts is None:
            raise ValueError(f"--template is {args.template!r}, but {settings.model} takes no prompts")
        settings = replace(settings, template=args.template)
    return pipeline, settings


def _loaded_sampler(args: argparse.Namespace) -> tuple[DiffusionPipeline | ExportedPipeline, SamplingSettings]:
    device = default_device()
    if args.model:
        if args.call or args.trust_remote_code:
            raise ValueError("--call and --trust-remote-code are options of --pipeline; --model takes --steps")
        if is_exported(args.model):
            check_no_sampling_options(
                args.model,
                {
                    "--steps": args.steps,
                    "--guidance-scale": args.guidance_scale,
                    "--interval": args.interval,
                    "--scheduler": args.scheduler,
                    "--dtype": None if args.dtype == "fp32" else args.dtype,
                    "--compile": args.compile,
                },
            )
            return load_exported_sampler(args.model, args.seed, args.prompts)
        pipeline = load_sampler(args.model, device)
        if args.scheduler:
            choose_scheduler(pipeline, args.scheduler)
        sampling = args.steps, args.guidance_scale, args.interval
        return pipeline, resolve_settings(
            pipeline, args.model, args.seed, args.prompts, *sampling, args.dtype, args.compile
        )
    for name in ("steps", "guidance_scale", "interval", "scheduler"):
        if getattr(args, name) is not None:
            option = "--" + name.replace("_", "-")
            raise ValueError(f"{option} is an option of --model; of --pipeline it is part of --call, if it takes it")
    call = parse_call(args.call)
    pipeline, revision = load_diffusers_pipeline(args.pipeline, device, args.trust_remote_code)
    options = revision, call, args.seed, args.prompts, args.dtype, args.compile
    settings = resolve_pipeline_settings(pipeline, args.pipeline, *options)
    if args.batch_size > 1 and not takes_generators(pipeline):
        raise ValueError(f"{settings.pipeline_class} takes one generator a call: --batch-size 1 is needed")
    return pipeline, settings
