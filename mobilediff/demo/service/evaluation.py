"""Measure chosen models on samples drawn here, in pieces between which visitors get their turn."""

import logging
import shlex
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from eval.benchmark.models import measure_models
from eval.cli.show import stated
from eval.extractors.base import Extractor
from eval.extractors.clip import BATCH_SIZE as CLIP_BATCH_SIZE
from eval.extractors.clip import ClipModel, bundled_clip
from eval.extractors.features import BATCH_SIZE, FeatureSet
from eval.extractors.judge import judge_extractor
from eval.extractors.statistics import check_image_count, reference_statistics
from eval.measures.accuracy import measure_accuracy
from eval.measures.clip_score import clip_score_result, clip_scores, shipped_real_score
from eval.measures.frechet import measure_frechet_distance
from eval.measures.quality import measure_manifold, measure_quality
from eval.metrics.frechet import Statistics
from eval.metrics.pauses import pause
from eval.samples.draw import draw_samples
from eval.samples.images import ImageSet
from eval.samples.prompts import check_prompts_are_read, plan_samples
from eval.samples.store import samples_in_memory
from eval.schema import Record, check_result
from mobilediff.captions import CLASS_NAMES
from mobilediff.data import DATA_VARIABLE
from mobilediff.demo.service.agreement import agreement, shipped_record
from mobilediff.demo.service.inputs import check_names, check_seed, check_whole
from mobilediff.demo.service.targets import Target, Targets
from mobilediff.demo.service.turns import TURNS, Cancelled
from mobilediff.ondevice.exported import ExportedPipeline

logger = logging.getLogger(__name__)

METRICS = {
    "frechet_distance": "Fréchet distance",
    "class_accuracy": "Class accuracy",
    "noun_accuracy": "Noun accuracy",
    "clip_score": "CLIP score",
    "manifold": "Precision, recall, coverage",
    "seed_distance": "Seed distance",
    "latency": "Latency",
}
# By metric, the keys of its figures in a command's result, and their names.
FIGURES = {
    "frechet_distance": {"frechet_distance_judge": "Fréchet distance"},
    "class_accuracy": {"class_accuracy": "Class accuracy"},
    "noun_accuracy": {"noun_top1": "Noun accuracy, top 1", "noun_top5": "Noun accuracy, top 5"},
    "clip_score": {"clip_score": "CLIP score"},
    "manifold": {"precision": "Precision", "recall": "Recall", "coverage": "Coverage"},
    "seed_distance": {"seed_distance": "Seed distance"},
}
LATENCY = "ms an image"
ON_CLASS_PROMPTS = ("frechet_distance", "class_accuracy", "clip_score", "manifold", "seed_distance")
IN_QUALITY = ("manifold", "seed_distance")
MIN_SAMPLES = 200
CLASSES = len(CLASS_NAMES)
NEWEST_ROUNDS = 4  # of the classes
SECONDS_BETWEEN_NEWEST = 1.0
SECONDS_BETWEEN_FIGURES = 10.0
RESAMPLES = 100
ROUNDS, MAX_SECONDS = 10, 10.0  # of timings


@dataclass(frozen=True)
class Request:
    """Hold a checked request: names of models, keys of `METRICS`, number of samples and first seed."""

    names: list[str]
    metrics: list[str]
    n: int
    seed: int

    @property
    def kinds(self) -> list[str]:
        """Name the kinds of prompts that samples are drawn for."""
        classes = ["class"] if set(self.metrics) & set(ON_CLASS_PROMPTS) else []
        return classes + (["noun"] if "noun_accuracy" in self.metrics else [])


@dataclass(frozen=True)
class Figure:
    """Hold a figure of a model with its 95 % interval, if there is one, over `n` samples or timed calls."""

    model: str
    name: str
    value: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Outcome:
    """Hold a model's figures, once all its samples are measured.

    Attributes:
        model, n, seed: as asked for.
        figures: by name.
        results: JSON of the commands by file name.
        commands: lines for a shell that repeat the results.
        sentences: on the agreement with shipped figures, or the reason why there are no figures.
    """

    model: str
    n: int
    seed: int
    figures: dict[str, Figure] = field(default_factory=dict)
    results: dict[str, dict] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class State:
    """Hold the state of an evaluation under way.

    Attributes:
        text: the work under way, as a sentence.
        fraction: of the samples of all models, drawn.
        figures: so far, of all models.
        outcomes: of the models that are done.
        newest: samples in rounds of the classes, uint8 [N, 3, H, W]; None where they are those of the state before.
        changed: whether an outcome is new or another than before.
        is_last: whether this is the last state.
    """

    text: str
    fraction: float
    figures: list[Figure]
    outcomes: list[Outcome]
    newest: torch.Tensor | None = None
    changed: bool = False
    is_last: bool = False


def check_request(targets: Targets, names: object, metrics: object, n: object, seed: object, most: int) -> Request:
    """Check a request for an evaluation of up to `most` samples, before any work.

    Raises:
        ValueError: a value that is not accepted; names it.
    """
    chosen = targets.choose(names)
    if metrics == []:
        raise ValueError(f"No metric is chosen; accepted are {', '.join(METRICS)}.")
    wanted = check_names(metrics, list(METRICS), "metric")
    count = check_whole("number of samples", n, MIN_SAMPLES, most)
    if count % CLASSES:
        raise ValueError(f"The number of samples is {count}; accepted is a multiple of {CLASSES}, for equal classes.")
    request = Request(chosen, wanted, count, check_seed(seed))
    if "frechet_distance" in wanted:
        check_image_count(count, judge_extractor())
    folders = [targets.folder_name(name) for name in chosen]
    if "latency" in wanted and (twice := [name for name in folders if folders.count(name) > 1]):
        raise ValueError(f"Two of the models are named {twice[0]}; timings need different names: choose one of them.")
    return request


class Measurement:
    """Draw and measure the samples of one model for one kind of prompts.

    Args:
        target: the model.
        prompts: "class" or "noun".
        request: metrics, number of samples and seed.
        judge, clip, statistics: of the bundled extractors and the judge's training images.
        cancelled: set by another thread to end the work.
    """

    def __init__(
        self,
        target: Target,
        prompts: str,
        request: Request,
        judge: Extractor,
        clip: ClipModel,
        statistics: Statistics,
        cancelled: threading.Event,
    ):
        self.target, self.prompts, self.request = target, prompts, request
        self.judge, self.clip, self.statistics, self.cancelled = judge, clip, statistics, cancelled
        self.settings = target.settings(request.seed, prompts)
        self.plan = plan_samples(request.n, self.settings.prompts, self.settings.template)
        check_prompts_are_read(target.pipeline, self.plan, target.name)
        if "clip_score" in request.metrics:
            shipped_real_score(clip, self.settings.template)
        self.images = torch.zeros(0, dtype=torch.uint8)
        self.drawn = 0
        self._measured: FeatureSet | None = None
        self._scores: list[torch.Tensor] = []

    def draw(self) -> Iterator[int]:
        """Draw batch after batch, and yield the number of samples so far."""
        exported = isinstance(self.target.pipeline, ExportedPipeline)
        callback: dict[str, Any] = {} if exported else {"callback_on_step_end": _at_step}
        indices = list(range(self.request.n))
        batches = draw_samples(
            self.target.pipeline, self.settings, self.plan, indices, self.target.batch_size, **callback
        )
        while True:
            with TURNS.of_long_work(self.cancelled):
                batch = next(batches, None)
            if batch is None:
                return
            images = batch[1]
            if not self.drawn:
                self.images = torch.empty((self.request.n, *images.shape[1:]), dtype=torch.uint8)
            self.images[self.drawn : self.drawn + len(images)] = images
            self.drawn += len(images)
            yield self.drawn

    def newest(self) -> torch.Tensor:
        """Return the newest whole rounds of the classes, uint8 [N, 3, H, W]."""
        rounds = self.drawn // CLASSES
        return self.images[max(rounds - NEWEST_ROUNDS, 0) * CLASSES : rounds * CLASSES]

    def results(self) -> dict[str, dict]:
        """Measure the samples drawn so far; a command's module to its result.

        Before all samples are drawn, features of whole batches alone are measured, and the figures of `eval.quality`
        that take longest are left out.
        """
        complete = self.drawn == self.request.n
        with TURNS.of_long_work(self.cancelled):
            count = self.drawn if complete else self.drawn // BATCH_SIZE * BATCH_SIZE
            measured = self._features(count)
            if self.prompts == "noun":
                return {"eval.accuracy": measure_accuracy(measured, self.judge)}
            return self._on_class_prompts(measured, complete)

    def _on_class_prompts(self, measured: FeatureSet, complete: bool) -> dict[str, dict]:
        metrics, results = self.request.metrics, {}
        if "frechet_distance" in metrics and len(measured) > len(self.statistics.mu):
            results["eval.fid"] = measure_frechet_distance(measured, self.judge, resamples=RESAMPLES)
        elif "class_accuracy" in metrics:
            results["eval.accuracy"] = measure_accuracy(measured, self.judge)
        pause()
        if "clip_score" in metrics:
            results["eval.clip_score"] = self._clip_score(measured.images if complete else None)
        pause()
        if set(metrics) & set(IN_QUALITY):
            if complete:
                results["eval.quality"] = measure_quality(measured, self.judge)
            else:
                results["eval.quality"] = measure_manifold(measured, self.judge, self.statistics)
        return results

    def _samples(self, count: int) -> ImageSet:
        return samples_in_memory(self.images[:count], self.settings, self.plan, self.target.pipeline.device)

    def _features(self, count: int) -> FeatureSet:
        """Extract features of the first samples, one batch a piece."""
        for end in range(len(self._measured or ()) + BATCH_SIZE, count, BATCH_SIZE):
            self._measured = FeatureSet(self._samples(end), self.target.pipeline.device, self._measured)
            self._measured.of(self.judge)
            pause()
        if self._measured is None or len(self._measured) < count:
            self._measured = FeatureSet(self._samples(count), self.target.pipeline.device, self._measured)
            self._measured.of(self.judge)
        return self._measured

    def _clip_score(self, images: ImageSet | None) -> dict:
        """Score the samples so far, by whole batches until all are drawn, so that the scores are those of one pass."""
        start = sum(map(len, self._scores))
        end = self.drawn if images is not None else self.drawn // CLIP_BATCH_SIZE * CLIP_BATCH_SIZE
        for first in range(start, end, CLIP_BATCH_SIZE):
            rows = slice(first, min(first + CLIP_BATCH_SIZE, end))
            prompts = self.plan.prompts_of(range(rows.start, rows.stop))
            self._scores.append(clip_scores(self.clip, self.images[rows], prompts, progress=False))
            pause()
        real = shipped_real_score(self.clip, self.settings.template)
        samples = self._samples(end) if images is None else images
        return clip_score_result(samples, self.clip, torch.cat(self._scores), real, self.target.pipeline.device)

    def files(self, results: Mapping[str, dict]) -> dict[str, dict]:
        """Name the JSON of commands' results and check it."""
        named = {}
        for command, result in results.items():
            content = stated(command, result)
            check_result(command, content)
            kind = "-noun" if self.prompts == "noun" else ""
            named[f"{self.target.folder.name}-{command.removeprefix('eval.')}{kind}.json"] = content
        return named

    def command(self, module: str, file: str) -> str:
        """Write the command line that repeats a result."""
        samples = f"outputs/samples/batches-of-{self.target.batch_size}"
        options = {
            "--model": self.target.path,
            "--n": self.request.n,
            "--seed": self.request.seed,
            "--prompts": self.prompts,
            "--dtype": self.settings.dtype,
            "--batch-size": self.target.batch_size,
            "--samples": samples,
        }
        if module in ("eval.fid", "eval.quality"):
            options["--extractor"] = "judge"
        if module == "eval.fid":
            options["--resamples"] = RESAMPLES
        return _command_line(module, options | {"--json": file})


def _at_step(*_) -> dict:
    pause()
    return {}


def _command_line(module: str, options: Mapping[str, object]) -> str:
    words = [str(word) for option, value in options.items() for word in (option, *_as_list(value))]
    # without the data set, as here; the same number of threads adds in the same order
    environment = f"{DATA_VARIABLE}= OMP_NUM_THREADS={torch.get_num_threads()}"
    return f"{environment} {shlex.join(['python', '-m', module, *words])}"


def _as_list(value: object) -> list:
    return value if isinstance(value, list) else [value]


def figures_of(model: str, results: Mapping[str, dict], metrics: list[str]) -> list[Figure]:
    """Take the figures of the chosen metrics from the results of commands."""
    names = {key: name for metric in metrics for key, name in FIGURES.get(metric, {}).items()}
    found = []
    for result in results.values():
        intervals = result.get("intervals", {})
        for key, name in names.items():
            if key in result and not any(figure.name == name for figure in found):
                ends = intervals.get(key, {"low": None, "high": None})
                found.append(Figure(model, name, result[key], ends["low"], ends["high"], result["n"]))
    return found


class Progress:
    """Estimate the time left by the multiply-accumulates of the samples drawn and to be drawn."""

    def __init__(self, total: int):
        self.total, self.done, self.start = total, 0, time.monotonic()

    @property
    def fraction(self) -> float:
        """Return the fraction of the work that is done."""
        return self.done / self.total if self.total else 0.0

    def time_left(self) -> str:
        """Write the time that is left for drawing."""
        left = (time.monotonic() - self.start) * (self.total - self.done) / max(self.done, 1)
        return f"about {left / 60:.0f} min left" if left >= 90 else f"about {left:.0f} s left"


class Evaluation:
    """Evaluate the models of a request; see `evaluate`."""

    def __init__(self, targets: Targets, request: Request, records: Mapping[str, Record], cancelled: threading.Event):
        self.targets, self.request, self.records, self.cancelled = targets, request, records, cancelled
        self.figures: list[Figure] = []
        self.outcomes: list[Outcome] = []
        self.timed: dict[str, Target] = {}

    def state(self, text: str, newest: torch.Tensor | None = None, **options: bool) -> State:
        """Return the state so far."""
        outcomes = sorted(self.outcomes, key=lambda one: self.request.names.index(one.model))
        return State(text, self.progress.fraction, list(self.figures), outcomes, newest, **options)

    def run(self) -> Iterator[State]:
        """Measure model after model, and then time them together."""
        self.progress = Progress(0)
        yield self.state("Loading …")
        with TURNS.of_long_work(self.cancelled):
            self.judge, self.clip = judge_extractor(), bundled_clip(device=self.targets.models.device)
            self.statistics = reference_statistics(self.judge, "train")
        loaded: dict[str, Target] = {}
        for name in self.request.names:
            try:
                loaded[name] = self.targets.get(name)
            except ValueError as error:
                self._fail(name, str(error))
        work = sum(target.macs for target in loaded.values()) * self.request.n * len(self.request.kinds)
        self.progress = Progress(work)
        for name in list(loaded):
            target = loaded.pop(name)  # an export is let go once it is measured
            yield from self._guarded(name, self._measure(target))
            if "latency" in self.request.metrics and not self._failed(name):
                self.timed[name] = target
        if self.timed:
            yield self.state(f"Timing {len(self.timed)} model{'s' * (len(self.timed) > 1)} in turn …")
            yield from self._guarded(None, self._time())
        text = "Done." if not self._failed(None) else "Done, but not all models could be measured."
        yield self.state(text, changed=True, is_last=True)

    def _guarded(self, name: str | None, steps: Iterator[State]) -> Iterator[State]:
        """Yield states; an error of a model becomes its outcome, so that the others are still measured."""
        try:
            yield from steps
        except Cancelled:
            raise
        except ValueError as error:
            self._fail(name, str(error))
        except Exception:  # as without memory
            logger.exception("%s failed", name or "the timing")
            self._fail(name, "This model failed; the log of the app says why.")

    def _fail(self, name: str | None, problem: str) -> None:
        for model in [name] if name else list(self.timed):
            outcome = next((one for one in self.outcomes if one.model == model), None)
            if outcome is not None:
                self.outcomes.remove(outcome)
            outcome = outcome or Outcome(model, self.request.n, self.request.seed)
            self.outcomes.append(replace(outcome, sentences=[*outcome.sentences, f"Failed: {problem}"]))

    def _failed(self, name: str | None) -> bool:
        return any(
            name in (None, outcome.model) and any(text.startswith("Failed: ") for text in outcome.sentences)
            for outcome in self.outcomes
        )

    def _measure(self, target: Target) -> Iterator[State]:
        outcome = Outcome(target.name, self.request.n, self.request.seed)
        for kind in self.request.kinds:
            measurement = Measurement(
                target, kind, self.request, self.judge, self.clip, self.statistics, self.cancelled
            )
            results = yield from self._measure_kind(measurement)
            files = measurement.files(results)
            outcome.results.update(files)
            outcome.commands.extend(measurement.command(content["command"], file) for file, content in files.items())
        outcome.figures.update({one.name: one for one in self.figures if one.model == target.name})
        self.outcomes.append(self._compared(outcome, target))
        yield self.state(f"{target.name} is measured.", changed=True)

    def _measure_kind(self, measurement: Measurement) -> Generator[State, None, dict[str, dict]]:
        target, n = measurement.target, self.request.n
        shown, measured = -SECONDS_BETWEEN_NEWEST, -SECONDS_BETWEEN_FIGURES
        before = self.progress.done
        for drawn in measurement.draw():
            self.progress.done = before + drawn * target.macs
            text = f"{target.name}, {measurement.prompts} prompts: {drawn:,} of {n:,} images"
            now = time.monotonic()
            batch_is_full = drawn // BATCH_SIZE > (drawn - target.batch_size) // BATCH_SIZE
            if drawn < n and batch_is_full and now >= measured + SECONDS_BETWEEN_FIGURES:
                self._replace_figures(measurement, measurement.results())
                measured = time.monotonic()
                yield self.state(f"{text}, {self.progress.time_left()}")
            if drawn >= CLASSES and (now >= shown + SECONDS_BETWEEN_NEWEST or drawn == n):
                shown = now
                yield self.state(f"{text}, {self.progress.time_left()}", measurement.newest())
        yield self.state(f"{target.name}, {measurement.prompts} prompts: measuring {n:,} images …")
        results = measurement.results()
        self._replace_figures(measurement, results)
        return results

    def _replace_figures(self, measurement: Measurement, results: Mapping[str, dict]) -> None:
        """Put a model's newer figures in the place of older ones; the class accuracy is that of class prompts."""
        model, metrics = measurement.target.name, self.request.metrics
        if measurement.prompts == "noun":
            metrics = ["noun_accuracy"]
        new = {one.name: one for one in figures_of(model, results, metrics)}
        kept = [one for one in self.figures if one.model != model or one.name not in new]
        self.figures = [*kept, *new.values()]

    def _compared(self, outcome: Outcome, target: Target) -> Outcome:
        settings = target.settings(self.request.seed, "class")
        hashes = [settings.model_sha256, getattr(settings, "checkpoint_sha256", None)]
        record = shipped_record(self.records, hashes)
        return replace(outcome, sentences=agreement(record, target.folder.name, list(outcome.results.values())))

    def _time(self) -> Iterator[State]:
        targets = {target.folder.name: target for target in self.timed.values()}

        def stop_if_cancelled(*_) -> dict:
            if self.cancelled.is_set():
                raise Cancelled
            return {}

        with TURNS.of_long_work(self.cancelled):
            result = measure_models(
                {name: target.pipeline for name, target in targets.items()},
                {name: target.folder for name, target in targets.items()},
                {},
                torch.get_num_threads(),
                ROUNDS,
                MAX_SECONDS,
                [1],
                at_step=stop_if_cancelled,
            )
        content = stated("eval.latency", result)
        check_result("eval.latency", content)
        options = {"--model": [target.path for target in targets.values()], "--threads": torch.get_num_threads()}
        options |= {"--rounds": ROUNDS, "--max-seconds": MAX_SECONDS, "--json": "latency.json"}
        command = _command_line("eval.latency", options)
        for name, target in targets.items():
            timing = result["batches"][0]["models"][name]["image"]
            figure = Figure(target.name, LATENCY, timing["median_ms"], None, None, timing["runs"])
            self.figures.append(figure)
            place = next(i for i, one in enumerate(self.outcomes) if one.model == target.name)
            outcome = self.outcomes[place]
            outcome = replace(
                outcome,
                figures=outcome.figures | {LATENCY: figure},
                results=outcome.results | {"latency.json": content},
                commands=[*outcome.commands, command],
            )
            self.outcomes[place] = self._compared(outcome, target)
        yield self.state("The models are timed.", changed=True)


def evaluate(
    targets: Targets,
    records: Mapping[str, Record],
    most: int,
    names: object,
    metrics: object,
    n: object,
    seed: object,
    cancelled: threading.Event,
) -> Iterator[State]:
    """Draw samples of each chosen model and measure them, until another thread sets `cancelled`.

    The figures are those of the commands in each outcome, with the same samples, batches and threads. Drawing waits
    for visitors' turns between denoising steps, the rest between batches and resamples; of timings, a pair of calls is
    not interrupted.

    Args:
        targets: the models.
        records: shipped figures.
        most: the largest number of samples accepted.
        names: of models.
        metrics: keys of `METRICS`.
        n: samples of each model and kind of prompts, a multiple of ten from `MIN_SAMPLES`.
        seed: sample i is drawn with seed + i.

    Raises:
        ValueError: as in `check_request`.
    """
    request = check_request(targets, names, metrics, n, seed, most)
    try:
        yield from Evaluation(targets, request, records, cancelled).run()
    except Cancelled:
        return
