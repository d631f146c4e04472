"""Define the written results as models: the report's file and each command's JSON.

    python -m eval.schema        # writes eval/results.schema.json anew

The JSON Schema is made from these models. Figures whose names depend on the extractor, and settings of a sampler, are
extra keys of their model.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from mobilediff.command import command_parser, run_command
from mobilediff.files import read_json, write_json

SCHEMA_FILE = Path(__file__).with_name("results.schema.json")
SCHEMA = 5  # of records and results; raised when their shape changes
OTHER_DISTANCE = "frechet_distance "  # starts the key of a section of another extractor's distance
DRAWN = ("model_sha256", "seed", "seeds", "prompts", "nfe", "dtype", "versions", "device_name", "threads")

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Percent = Annotated[float, Field(gt=0, lt=100)]
Cosine100 = Annotated[float, Field(ge=-100, le=100)]
Versions = dict[str, str]


class Model(BaseModel):
    """Refuse changes, unknown keys, other types and values that are not finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Machine(Model):
    """Describe the device, threads and library versions of a measurement."""

    device: str
    device_name: str
    threads: PositiveInt
    versions: Versions


class Samples(Model):
    """Describe the measured images, with every setting of the sampler that drew them."""

    model_config = ConfigDict(extra="allow")

    n: PositiveInt
    images_sha256: Sha256
    model: str | None = None
    template: str | None = None
    dtype: str | None = None
    compiled: bool | None = None
    nfe: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _state_settings(cls, content: Any) -> Any:
        if isinstance(content, dict) and "model" in content and (missing := sorted(set(DRAWN) - set(content))):
            raise ValueError(f"samples of a model lack {', '.join(missing)}")
        return content


class Interval(Model):
    """Hold the confidence interval of a figure."""

    low: float
    high: float
    confidence: Fraction
    resamples: PositiveInt


class ExtractorProtocol(Machine):
    """Describe extractor, device and versions of a measurement.

    `resized` is of images that were larger than the extractor takes, `clip_model` of an open_clip extractor.
    """

    extractor: str
    extractor_sha256: Sha256
    resize: str
    resized: str | None = None
    clip_model: str | None = None


class ReferenceProtocol(ExtractorProtocol):
    """Describe extractor and reference images; the last three fields where a command states them."""

    reference: str
    reference_n: PositiveInt
    reference_sha256: Sha256
    image_size: str | None = None
    floor_is: str | None = None
    vae: str | None = None
    vae_sha256: Sha256 | None = None


class ClipProtocol(Machine):
    """Describe CLIP and captions, and for a CLIP score the real images and the scale."""

    clip_model: str
    clip_sha256: Sha256
    resize: str
    resized: str | None = None
    template: str
    scale: str | None = None
    real_images: str | None = None
    real_images_sha256: Sha256 | None = None


class Measured(Model):
    """Hold number of images, intervals and protocols, a part of every section on images."""

    n: PositiveInt
    intervals: dict[str, Interval] = {}
    protocol: Machine
    samples: Samples


class Nouns(Model):
    """Hold the judge's accuracies among `nouns` nouns, over `noun_n` images with known nouns."""

    noun_top1: Fraction | None = None
    noun_top5: Fraction | None = None
    noun_n: NonNegativeInt | None = None
    nouns: PositiveInt | None = None


class Accuracy(Measured, Nouns):
    """Hold class and noun accuracies by the judge."""

    protocol: ExtractorProtocol
    class_accuracy: Fraction
    class_accuracy_by_class: dict[str, Fraction]


class Distance(Measured, Nouns):
    """Hold a Frechet distance, under the extractor's key `frechet_...`, and accuracies of labelled images."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float] = Field(init=False)

    floor: float | None = None
    protocol: ReferenceProtocol
    class_accuracy: Fraction | None = None
    class_accuracy_by_class: dict[str, Fraction] = {}

    @model_validator(mode="after")
    def _name_one_distance(self) -> "Distance":
        keys = list(self.__pydantic_extra__)
        if len(keys) != 1 or not keys[0].startswith("frechet_"):
            raise ValueError(f"one key frechet_... is needed, not {', '.join(keys) or 'none'}")
        return self


class JudgeDistance(Measured, Nouns):
    """Hold the Frechet distance of the judge's features, its floor, and accuracies."""

    frechet_distance_judge: float
    floor: float
    protocol: ReferenceProtocol
    class_accuracy: Fraction | None = None
    class_accuracy_by_class: dict[str, Fraction] = {}


class OtherDistance(Distance):
    """Hold another extractor's Frechet distance: `figure` is its key, `label` its name in tables."""

    label: str
    figure: str


class OutsideProtocol(ReferenceProtocol):
    """Describe the extractor from outside, and name the judge beside it."""

    judge_sha256: Sha256


class OutsideDistance(Measured):
    """Hold the Frechet distances of the same images by the extractor from outside and by the judge."""

    frechet_distance_efficientnet: NonNegativeFloat
    frechet_distance_judge: NonNegativeFloat
    protocol: OutsideProtocol


class Histogram(Model):
    """Count nearest distances in bins between `edges`."""

    edges: list[float]
    samples: list[NonNegativeInt]
    test: list[NonNegativeInt]


class Copies(Model):
    """Compare nearest training distances of samples and test images; see `compare_nearest`."""

    copy_fraction: Fraction
    copy_threshold: NonNegativeFloat
    copy_percentile: Percent
    nearest_distance_median: NonNegativeFloat
    nearest_distance_median_test: NonNegativeFloat
    n: PositiveInt
    n_test: PositiveInt
    histogram: Histogram
    n_training: PositiveInt
    training_features_sha256: Sha256
    authentic_fraction: Fraction | None = None
    authentic_fraction_test: Fraction | None = None
    c_t: float | None = None
    c_t_cells: NonNegativeInt | None = None


class Quality(Measured):
    """Hold figures of features beyond mean and covariance; older results lack some.

    Kernel distance and score have the names that the extractor gives them.
    """

    kernel_distance_mean: float | None = None
    kernel_distance_std: NonNegativeFloat | None = None
    kernel_inception_distance_mean: float | None = None
    kernel_inception_distance_std: NonNegativeFloat | None = None
    subsets: PositiveInt
    subset_size: PositiveInt
    gaussian_kernel_distance: float | None = None
    sliced_wasserstein: NonNegativeFloat | None = None
    directions: PositiveInt | None = None
    frechet_distance_infinity: float | None = None
    classifier_score_mean: PositiveFloat | None = None
    classifier_score_std: NonNegativeFloat | None = None
    inception_score_mean: PositiveFloat | None = None
    inception_score_std: NonNegativeFloat | None = None
    splits: PositiveInt | None = None
    precision: Fraction
    recall: Fraction
    density: NonNegativeFloat
    coverage: Fraction
    neighbours: PositiveInt
    seed_distance: NonNegativeFloat | None = None
    copies: Copies | None = None
    protocol: ReferenceProtocol


class JudgeQuality(Quality):
    """Hold the judge's figures, copies among them, as in the report."""

    kernel_distance_mean: float  # pyright: ignore[reportGeneralTypeIssues] - required again
    copies: Copies  # pyright: ignore[reportGeneralTypeIssues]


class ClipScore(Measured):
    """Hold the CLIP score of images with their prompts, beside that of real images."""

    clip_score: Cosine100
    clip_cosine: float
    clip_score_real: Cosine100
    real_n: PositiveInt
    protocol: ClipProtocol


class Timing(Model):
    """Hold the times of calls of one part of a model."""

    median_ms: PositiveFloat
    p90_ms: PositiveFloat
    runs: PositiveInt
    images_per_second: PositiveFloat
    fraction_of_peak: PositiveFloat | None = None
    peak_memory_bytes: NonNegativeInt | None = None


class TimingProtocol(Machine):
    """Describe batch, rounds and machine of timings, and the models that took turns.

    `wait_policy` is of OpenMP's threads, None in timings that do not state it; `neighbours` are busy processes beside.
    `matrix_sizes` are the rows of the products whose rates are the peaks, by dtype; older timings had 2,048.
    """

    batch_size: PositiveInt
    dtype: str
    warm_up: NonNegativeInt
    rounds: PositiveInt
    max_seconds: PositiveFloat
    timed: str
    long_call_seconds: PositiveFloat
    interleaved_with: list[str]
    wait_policy: str | None = None
    neighbours: NonNegativeInt = 0
    matrix_peak_fp32_gflops: PositiveFloat
    matrix_peak_bf16_gflops: PositiveFloat
    matrix_sizes: dict[str, PositiveInt] | None = None


class Parts(Model):
    """Hold the timings of one model's parts.

    A peer may have its network call alone, and an export in one graph has no network call apart.
    """

    text_encoder: Timing | None = None
    network_call: Timing | None = None
    vae_decoder: Timing | None = None
    image: Timing | None = None


class Latency(Parts):
    """Hold one model's timings at one batch size, and its speed-up over the baseline."""

    network_call: Timing  # pyright: ignore[reportGeneralTypeIssues] - required again
    times_faster: PositiveFloat | None = None
    baseline: str | None = None
    protocol: TimingProtocol


class ImageTiming(Timing):
    """Hold the times and the peak memory of whole images."""

    peak_memory_bytes: NonNegativeInt  # pyright: ignore[reportGeneralTypeIssues] - required here


class ThroughputBatch(Latency):
    """Hold one model's timings at a larger batch size, with the peak memory of its images."""

    image: ImageTiming  # pyright: ignore[reportGeneralTypeIssues] - required here


class Throughput(Model):
    """Hold one model's timings at several batch sizes."""

    batches: Annotated[list[ThroughputBatch], Field(min_length=1)]


class Size(Model):
    """Count parameters, multiply-accumulates and bytes of a model; a peer has those that apply."""

    source: str | None = None
    params_unet: PositiveInt
    params_vae_decoder: PositiveInt | None = None
    params_text_encoder: PositiveInt | None = None
    params_total: PositiveInt
    macs_network_call: PositiveInt
    macs_vae_decoder: PositiveInt | None = None
    macs_text_encoder: PositiveInt | None = None
    macs_image: PositiveInt | None = None
    nfe: PositiveInt | None = None
    num_inference_steps: PositiveInt | None = None
    guidance_scale: PositiveFloat | None = None
    weights_bytes: PositiveInt | None = None


class Record(Model):
    """Hold the sections of one row; other extractors' distances are keys `frechet_distance NAME`."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, OtherDistance] = Field(init=False)

    model: str | None = None
    model_sha256: Sha256 | None = None
    vae_sha256: Sha256 | None = None
    shipped: bool | None = None
    peer: str | None = None
    size: Size | None = None
    latency: Latency | None = None
    throughput: Throughput | None = None
    frechet_distance: JudgeDistance | None = None
    quality: JudgeQuality | None = None
    nouns: Accuracy | None = None
    clip: ClipScore | None = None
    outside: OutsideDistance | None = None
    figures: dict[Literal["cost", "quality"], dict[str, str]] | None = None

    @model_validator(mode="before")
    @classmethod
    def _know_sections(cls, content: Any) -> Any:
        keys = set(content) - set(cls.model_fields) if isinstance(content, dict) else ()
        if unknown := sorted(key for key in keys if not key.startswith(OTHER_DISTANCE)):
            raise ValueError(f"{unknown[0]!r} is no section")
        return content

    @model_validator(mode="after")
    def _complete_models(self) -> "Record":
        required = {
            "size": ("macs_image", "nfe", "weights_bytes"),
            "latency": ("text_encoder", "vae_decoder", "image"),
        }
        for section, keys in required.items() if self.peer is None else ():
            part = getattr(self, section)
            if part and (missing := [key for key in keys if getattr(part, key) is None]):
                raise ValueError(f"{section} lacks {', '.join(missing)}, which a peer alone may lack")
        return self

    @property
    def other_distances(self) -> dict[str, OtherDistance]:
        """Collect the sections of other extractors' distances, by key."""
        return self.__pydantic_extra__


class Results(Model):
    """Hold the report's file: records by row."""

    schema_number: Literal[5] = Field(alias="schema")
    records: dict[str, Record]

    def dump(self) -> dict:
        """Return the content of the file."""
        return self.model_dump(by_alias=True, exclude_unset=True)


class Spread(Model):
    """Summarise a figure over several sets of samples."""

    values: list[float]
    mean: float
    std: NonNegativeFloat


class Repeats(Model):
    """Hold first seeds of several sets of samples, and each figure's spread by key."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Spread] = Field(init=False)

    seeds: list[NonNegativeInt]


class Result(Model):
    """Hold one command's result on one or, with `repeats`, several sets of images."""

    schema_number: Literal[5] = Field(alias="schema")
    repeats: Repeats | None = None


class AccuracyResult(Result, Accuracy):
    """Hold the result of eval.accuracy."""

    command: Literal["eval.accuracy"]


class ClipScoreResult(Result, ClipScore):
    """Hold the result of eval.clip_score."""

    command: Literal["eval.clip_score"]


class DistanceResult(Result, Distance):
    """Hold the result of eval.fid."""

    command: Literal["eval.fid"]


class QualityResult(Result, Quality):
    """Hold the result of eval.quality."""

    command: Literal["eval.quality"]


class LoraFigures(Model):
    """Hold the figures of one set of pictures; `pair_error` where a filter gives each picture its target."""

    kernel_distance: float
    class_accuracy: Fraction
    pair_error: Fraction | None = None


class LoraResult(Result, Measured):
    """Hold the result of eval.lora: of the model's pictures, those with a LoRA, with two, and filtered ones."""

    command: Literal["eval.lora"]
    protocol: ReferenceProtocol
    plain: LoraFigures
    lora: LoraFigures
    together: LoraFigures | None = None
    filtered: LoraFigures | None = None
    lora_bytes: PositiveInt
    milliseconds: dict[Literal["plain", "lora", "fused"], PositiveFloat]


class ReconstructionResult(Result, Distance):
    """Hold the result of eval.reconstruction."""

    command: Literal["eval.reconstruction"]
    psnr: PositiveFloat
    latent_channels: PositiveInt


class Rounding(Model):
    """Compare samples drawn in a reduced precision with those in fp32: error of latents, and PSNR of images in dB."""

    latents_error: NonNegativeFloat
    psnr: float


class PrecisionResult(Result, Measured):
    """Hold the result of eval.precision, by dtype; the samples of `Measured` are those drawn in fp32."""

    command: Literal["eval.precision"]
    dtypes: Annotated[dict[Literal["fp16", "bf16"], Rounding], Field(min_length=1)]


class RetrievalResult(Result, Measured, Nouns):
    """Hold the result of eval.retrieval: accuracies over images, and by phrasing over nouns."""

    command: Literal["eval.retrieval"]
    protocol: ClipProtocol
    class_top1: Fraction
    phrase_top1: dict[str, Fraction]
    phrase_top5: dict[str, Fraction]


class Agreement(Model):
    """Compare conditions found in images with those given: F1 of edges, and error of colours in 8-bit levels."""

    edge_f1: Fraction
    color_error: NonNegativeFloat


class ControlledSamples(Agreement):
    """Hold agreement, class accuracy and distance of samples drawn in one way."""

    class_accuracy: Fraction
    frechet_distance_judge: float
    samples: Samples


class ControlTiming(Model):
    """Hold the median times of single images with and without control."""

    controlled: PositiveFloat
    uncontrolled: PositiveFloat


class ControlResult(Result, Measured):
    """Hold the result of eval.control; the samples of `Measured` are the real images."""

    command: Literal["eval.control"]
    uncontrolled: ControlledSamples
    edges: ControlledSamples
    colors: ControlledSamples
    edges_and_colors: ControlledSamples = Field(alias="edges and colors")
    ceiling: Agreement
    milliseconds: ControlTiming
    protocol: ReferenceProtocol


class ArenaModel(Model):
    """Hold the games of a model in eval.arena, its wins, ties as halves, and its score with the interval's ends."""

    model_sha256: Sha256
    games: PositiveInt
    wins: NonNegativeFloat
    score: float
    low: float
    high: float


class ArenaResult(Model):
    """Hold the result of eval.arena: of `n` answers, the best model first."""

    schema_number: Literal[5] = Field(alias="schema")
    command: Literal["eval.arena"]
    n: PositiveInt
    ties: NonNegativeInt
    confidence: Fraction
    models: Annotated[dict[str, ArenaModel], Field(min_length=2)]


class GuidancePoint(Model):
    """Hold one point of a sweep."""

    scheduler: str
    num_inference_steps: PositiveInt
    guidance_interval: Annotated[list[Fraction], Field(min_length=2, max_length=2)]
    guidance_scale: Annotated[float, Field(ge=1)]
    class_accuracy: Fraction
    frechet_distance_judge: float
    intervals: dict[str, Interval]
    samples: Samples


class GuidanceResult(Model):
    """Hold the result of eval.guidance."""

    schema_number: Literal[5] = Field(alias="schema")
    command: Literal["eval.guidance"]
    n: PositiveInt
    points: Annotated[list[GuidancePoint], Field(min_length=1)]
    protocol: ReferenceProtocol


class Judged(Model):
    """Hold the judge's figures of images of eval.inpaint."""

    class_accuracy: Fraction
    frechet_distance_judge: float


class Repainted(Judged):
    """Hold the figures of one way to repaint images: the share that keeps every kept byte, and the error in bytes."""

    kept: Fraction
    error: NonNegativeFloat


class RepaintedKind(Model):
    """Hold the share of the pixels that masks of one kind cover, and the ways to repaint them."""

    share: Fraction
    model: Repainted
    mean_colour: Repainted
    neighbours: Repainted


class InpaintResult(Model):
    """Hold the result of eval.inpaint."""

    schema_number: Literal[5] = Field(alias="schema")
    command: Literal["eval.inpaint"]
    n: PositiveInt
    real: Judged
    masks: Annotated[dict[str, RepaintedKind], Field(min_length=1)]
    image: Timing
    protocol: ReferenceProtocol
    samples: Samples


class MeasuredSize(Size):
    """Count the size of a model in eval.latency, and its weights in memory, fp32."""

    weights: Literal["checkpoint", "random"]
    model_sha256: Sha256 | None = None
    weights_memory_bytes: PositiveInt


class ExportedSize(Model):
    """Count the bytes of an export in eval.latency, and name the checkpoint that was exported."""

    weights: Literal["exported"]
    model_sha256: Sha256
    checkpoint: str
    checkpoint_sha256: Sha256
    format: str
    precision: str
    num_inference_steps: PositiveInt
    download_bytes: PositiveInt


class LatencyBatch(Model):
    """Hold the timings of all models at one batch size."""

    models: dict[str, Parts]
    protocol: TimingProtocol
    times_faster: dict[str, PositiveFloat] = {}


class LatencyResult(Model):
    """Hold the result of eval.latency."""

    schema_number: Literal[5] = Field(alias="schema")
    command: Literal["eval.latency"]
    models: dict[str, MeasuredSize | ExportedSize]
    batches: Annotated[list[LatencyBatch], Field(min_length=1)]
    baseline: str | None = None


CommandResult = Annotated[
    AccuracyResult
    | ArenaResult
    | ClipScoreResult
    | ControlResult
    | DistanceResult
    | GuidanceResult
    | InpaintResult
    | LatencyResult
    | LoraResult
    | PrecisionResult
    | QualityResult
    | ReconstructionResult
    | RetrievalResult,
    Field(discriminator="command"),
]
COMMAND_RESULT = TypeAdapter(CommandResult)


def _refusal(refused: str, error: ValidationError) -> ValueError:
    """Make an error that names the first refused place in the content."""
    first = error.errors()[0]
    place = "/".join(map(str, first["loc"])) or "the file"
    return ValueError(f"{refused}: {place}: {first['msg'][:200]}")


def check_results(content: dict, name: str) -> Results:
    """Check the report's content and return its model.

    Args:
        name: of the content in an error.

    Raises:
        ValueError: the content does not fit the model; the error names the place.
    """
    try:
        return Results.model_validate(content)
    except ValidationError as error:
        raise _refusal(f"{name} is no file of eval.report", error) from None


def read_results(file: str | Path) -> Results:
    """Read the report's file; errors as in `read_json` and `check_results`."""
    return check_results(read_json(file), str(file))


def write_results(file: str | Path, content: dict) -> Results:
    """Check the report's content, write it in one piece and return its model; errors as in `check_results`."""
    results = check_results(content, str(file))
    write_json(file, content)
    return results


def check_result(command: str, content: dict) -> CommandResult:
    """Check the JSON of one command and return its model.

    Raises:
        ValueError: the content does not fit the command's model; the error names the place.
    """
    try:
        return COMMAND_RESULT.validate_python(content)
    except ValidationError as error:
        raise _refusal(f"{command} has no such result", error) from None


def check_samples(protocol: dict, name: str) -> None:
    """Refuse images whose protocol no result can state; the error names the images and the place."""
    try:
        Samples.model_validate(protocol)
    except ValidationError as error:
        raise _refusal(f"{name} has a protocol that no result can state", error) from None


def json_schema() -> dict:
    """Make the JSON Schema of the report's file and of a command's result, under $defs."""
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        (model, "validation") for model in (Results, *get_args(get_args(CommandResult)[0]))
    ]
    title = "Results of eval: the report's file (Results), and the result of each command"
    return models_json_schema(models, title=title)[1]


def main(argv: list[str] | None = None) -> None:
    """Write the JSON Schema file."""
    command_parser("python -m eval.schema", __doc__).parse_args(argv)
    write_json(SCHEMA_FILE, json_schema())


if __name__ == "__main__":
    run_command(main)
