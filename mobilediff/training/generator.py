"""What every stage that trains a generator shares: cached latents, encoded captions, the frozen parts, exports."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.models.modeling_utils import ModelMixin
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.transforms.functional import to_pil_image
from torchvision.utils import make_grid
from transformers import CLIPTextModelWithProjection, CLIPTokenizer

from mobilediff.captions import CLASS_NAMES, CaptionBank, load_nouns
from mobilediff.checkpoints import VAE, encoder_tensors, load_component, load_pipeline, load_vae
from mobilediff.data import ImageDataset, load_cifar10
from mobilediff.export import export_pipeline
from mobilediff.files import atomic_path
from mobilediff.models.latent_decoder import latent_statistics
from mobilediff.models.mobile_unet import MobileUNet
from mobilediff.pipeline import MobileDiffusionPipeline, checked_interval, encode_text
from mobilediff.training.augment import to_float
from mobilediff.training.losses import guidance_scales, guided
from mobilediff.training.options import RunLimits, TrainingOptions
from mobilediff.training.trainer import Trainer, TrainingStep
from mobilediff.training.vae import encode_latents
from mobilediff.training.watch import Watch

NUM_TRAIN_TIMESTEPS = 1000
# Of the schedulers of all checkpoints that are distilled from.
FORWARD_PROCESS = {
    "prediction_type": "v_prediction",
    "beta_schedule": "squaredcos_cap_v2",
    "num_train_timesteps": NUM_TRAIN_TIMESTEPS,
}
GRID_SEEDS = 8
LEAST_WATCHED = 260  # a covariance of the judge's 256 features needs more images than these; in tens, for the classes


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
        watch_samples: samples drawn beside each grid for `Watch`'s figures; 0 for none.
        watch_steps: further numbers of steps to watch, whose figures are logged as "distance_4_steps".
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
    watch_samples: int = 0
    watch_steps: tuple[int, ...] = ()
    latent_cache: str = "runs/latents"

    def __post_init__(self):
        super().__post_init__()
        checked_interval(self.default_guidance_interval)
        check_watch_samples(self.watch_samples)


def check_watch_samples(count: int) -> None:
    """Refuse a number that `Watch` can't draw: ValueError."""
    if count and (count < LEAST_WATCHED or count % len(CLASS_NAMES)):
        raise ValueError(
            f"option watch_samples is {count}; accepted are 0 and multiples of {len(CLASS_NAMES)} from {LEAST_WATCHED}"
        )


@dataclass
class FrozenParts:
    """The trained parts that a generator builds on."""

    vae: VAE
    text_encoder: CLIPTextModelWithProjection
    tokenizer: CLIPTokenizer

    @classmethod
    def of(cls, pipeline: MobileDiffusionPipeline) -> "FrozenParts":
        return cls(pipeline.vae, pipeline.text_encoder, pipeline.tokenizer)

    @classmethod
    def load(cls, vae: str, text: str) -> "FrozenParts":
        """Read the exports of the stages `vae` and `clip`; errors as in `load_component`."""
        return cls(
            load_vae(vae),
            load_component(CLIPTextModelWithProjection, Path(text, "text_encoder")),
            CLIPTokenizer.from_pretrained(Path(text, "tokenizer")),
        )


def load_velocity_pipeline(folder: str) -> MobileDiffusionPipeline:
    """A checkpoint to distil from, whose network predicts v on the cosine schedule; errors as in `load_pipeline`.

    Raises:
        ValueError: the network predicts something else, which the stages that distil from it would take for v, or its
            VAE is a small one, whose encoder would give them other latents than the network was trained on.
    """
    pipeline = load_pipeline(folder)
    for name, accepted in FORWARD_PROCESS.items():
        value = pipeline.scheduler.config[name]
        if value != accepted:
            raise ValueError(f"{folder}: the network's {name} is {value}; accepted is {accepted}")
    check_full_vae(pipeline, folder)
    return pipeline


def check_full_vae(pipeline: MobileDiffusionPipeline, folder: str) -> None:
    """Refuse a checkpoint that `export --vae` has given a small VAE.

    Raises:
        ValueError: naming the folder.
    """
    if not isinstance(pipeline.vae, AutoencoderKL):
        raise ValueError(
            f"{folder}: its VAE is {type(pipeline.vae).__name__}; accepted is AutoencoderKL, which "
            "`python -m mobilediff.export --vae` puts back"
        )


class Conditioning:
    """Every caption of a `CaptionBank`, encoded once; rows of it as keyword arguments of a network."""

    @torch.no_grad()
    def __init__(self, parts: FrozenParts, bank: CaptionBank, device: torch.device):
        self.bank = bank
        encoded = [
            encode_text(parts.tokenizer, parts.text_encoder, bank.texts[i : i + 256])
            for i in range(0, len(bank.texts), 256)
        ]
        self.hidden_states = torch.cat([hidden for hidden, _ in encoded]).to(device)
        self.pooled = torch.cat([pooled for _, pooled in encoded]).to(device)

    def __call__(self, rows: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"encoder_hidden_states": self.hidden_states[rows], "class_labels": self.pooled[rows]}

    def null_like(self, rows: torch.Tensor) -> torch.Tensor:
        """As many rows of the null prompt."""
        return torch.full_like(rows, self.bank.null_index)


def velocities(
    network: nn.Module,
    conditioning: Conditioning,
    trainer: Trainer,
    noisy: torch.Tensor,
    timesteps: torch.Tensor,
    rows: torch.Tensor,
    guidance_scale: float = 1.0,
    guidance_interval: tuple[float, float] = (0.0, 1.0),
) -> tuple[torch.Tensor, torch.Tensor]:
    """The network's v in fp32, guided inside the interval, and as it is; without guidance both are the same.

    Args:
        noisy: z_t [B, C, H, W].
        timesteps: t, [B].
        rows: of the captions, [B].
    """
    if guidance_scale == 1:
        with trainer.autocast():
            v = network(noisy, timesteps, **conditioning(rows)).sample.float()
        return v, v
    both = conditioning(torch.cat([rows, conditioning.null_like(rows)]))
    with trainer.autocast():
        prediction = network(torch.cat([noisy, noisy]), torch.cat([timesteps, timesteps]), **both).sample
    v, null = prediction.float().chunk(2)
    scales = guidance_scales(timesteps / NUM_TRAIN_TIMESTEPS, guidance_scale, guidance_interval)
    return guided(v, null, scales), v


@dataclass
class Batch:
    """Latents [B, C, H, W] in channels_last, caption rows [B]."""

    latents: torch.Tensor
    rows: torch.Tensor


class LatentData:
    """The training split as normalised latents, plain and mirrored, on the trainer's device."""

    def __init__(self, trainer: Trainer, options: GeneratorOptions, parts: FrozenParts, dataset: ImageDataset):
        self.options, self.device = options, trainer.device
        self.conditioning = Conditioning(parts, CaptionBank(num_phrasings=options.num_phrasings), trainer.device)
        with trainer.accelerator.main_process_first():
            latents = cached_latents(parts.vae, dataset, Path(options.latent_cache))
        self.latents = latents.to(trainer.device)  # [2, N, C, H, W]
        self.labels, self.noun_ids = dataset.labels.to(trainer.device), dataset.noun_ids.to(trainer.device)

    def draw(self, step: TrainingStep) -> Batch:
        """The step's images, each mirrored with probability one half, and a caption each."""
        mirrored = torch.randint(0, 2, step.indices.shape, generator=step.generator, device=self.device)
        latents = self.latents[mirrored, step.indices].float().contiguous(memory_format=torch.channels_last)
        rows = self.conditioning.bank.draw(
            self.labels[step.indices],
            self.noun_ids[step.indices],
            step.generator,
            self.options.class_probability,
            self.options.null_probability,
            self.options.phrasing_probability,
        )
        return Batch(latents, rows)

    def draw_timesteps(self, step: TrainingStep) -> torch.Tensor:
        """A timestep for each of the step's images, evenly from 0 to 999, int64 [B]."""
        return torch.randint(0, NUM_TRAIN_TIMESTEPS, step.indices.shape, generator=step.generator, device=self.device)


def content_hash(tensors: Iterable[torch.Tensor], values: list) -> str:
    """A name for what is made of tensors and JSON values: 16 hexadecimal digits of their SHA-256."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    digest.update(json.dumps(values).encode())
    return digest.hexdigest()[:16]


@torch.no_grad()
def cached_latents(vae: VAE, dataset: ImageDataset, folder: Path) -> torch.Tensor:
    """Normalised latents of all images and of their mirror images, float16 [2, N, C, H, W], kept on disk.

    The file's name is the hash of the encoder's weights and of the images, so that it can't be stale.
    """
    statistics = [values.flatten().tolist() for values in latent_statistics(vae)]
    file = folder / f"{content_hash((*encoder_tensors(vae).values(), dataset.images), statistics)}.safetensors"
    if not file.is_file():
        encoded = []
        for images in (dataset.images, dataset.images.flip(-1)):
            batches = (
                to_float(batch.to(vae.device)).contiguous(memory_format=torch.channels_last)
                for batch in images.split(500)
            )
            encoded.append(torch.cat([encode_latents(vae, batch) for batch in batches]).half().cpu())
        with atomic_path(file) as temporary:
            save_file({"latents": torch.stack(encoded).contiguous()}, temporary)
    return load_file(file)["latents"]


def noise_scheduler() -> DDIMScheduler:
    """The family's forward process: cosine schedule (arXiv 2102.09672), v-prediction, trailing timesteps."""
    return DDIMScheduler(
        **FORWARD_PROCESS,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def trailing_timesteps(num_steps: int, device: torch.device) -> torch.Tensor:
    """Timesteps of a trailing schedule from 999 downwards, then -1 for the clean end, int64 [num_steps + 1]."""
    remaining = torch.arange(num_steps, -1, -1, device=device, dtype=torch.float64) / num_steps
    return (remaining * NUM_TRAIN_TIMESTEPS).round().long() - 1


def build_network(config_file: str, latents: torch.Tensor, weights: str | None = None) -> ModelMixin:
    """The network that a JSON config names in `_class_name`, for latents [..., C, H, W].

    Args:
        config_file: the config.
        latents: what the network is to be trained on.
        weights: folder of a network of this config to start from; None for random weights.

    Raises:
        FileNotFoundError: there is no folder `weights`.
        ValueError: an unknown class, a config of another latent size or number of channels, or weights of another
            config.
    """
    config = json.loads(Path(config_file).read_text(encoding="utf-8"))
    channels, size = latents.shape[-3], latents.shape[-1]
    for name, value in (("sample_size", size), ("in_channels", channels), ("out_channels", channels)):
        if config.get(name) != value:
            raise ValueError(f"{config_file}: {name} is {config.get(name)!r}, but the latents need {value}")
    classes = {"UNet2DConditionModel": UNet2DConditionModel, "MobileUNet": MobileUNet}
    if config.get("_class_name") not in classes:
        raise ValueError(
            f"{config_file}: _class_name is {config.get('_class_name')!r}; accepted are {sorted(classes)}"
        )
    network = classes[config["_class_name"]].from_config(config)
    if weights is not None:
        tensors = load_component(type(network), weights).state_dict()
        if shapes(tensors) != shapes(network.state_dict()):
            raise ValueError(f"the weights in {weights} are of another network than {config_file} describes")
        network.load_state_dict(tensors)
    return network


def shapes(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    """The shape of each tensor of a state dict."""
    return {name: tensor.shape for name, tensor in tensors.items()}


def make_pipeline(
    parts: FrozenParts,
    unet: ModelMixin,
    scheduler: SchedulerMixin,
    options: GeneratorOptions,
    guidance_distilled: bool = False,
) -> MobileDiffusionPipeline:
    """The pipeline that a stage exports and samples with."""
    low, high = options.default_guidance_interval
    return MobileDiffusionPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoder,
        tokenizer=parts.tokenizer,
        unet=unet,
        scheduler=scheduler,
        nouns=load_nouns(),
        default_num_inference_steps=options.default_num_inference_steps,
        default_guidance_scale=options.default_guidance_scale,
        default_guidance_low=low,
        default_guidance_high=high,
        guidance_distilled=guidance_distilled,
    )


def setup(options: GeneratorOptions, limits: RunLimits, frozen: FrozenParts) -> tuple[Trainer, LatentData]:
    """The trainer and the data of a generator's stage."""
    dataset = load_cifar10(options.data, "train", options.resolution)
    if limits.trial:
        dataset = dataset.head(256)
        options.watch_samples = min(options.watch_samples, LEAST_WATCHED)
    trainer = Trainer(options, limits, len(dataset))
    for part in (frozen.vae, frozen.text_encoder):
        part.to(trainer.device).requires_grad_(False).eval()
    return trainer, LatentData(trainer, options, frozen, dataset)


def exporter(pipeline: MobileDiffusionPipeline):
    """An `on_export` for `Trainer.fit`."""
    return lambda folder: export_pipeline(pipeline, folder)


def sampler(trainer: Trainer, pipeline: MobileDiffusionPipeline):
    """An `on_sample` for `Trainer.fit`: a grid of the ten classes by eight seeds, into tensorboard and the run folder,
    and the figures of `Watch` where the options ask for them."""
    options = trainer.options
    watch = Watch(options.watch_samples, trainer.device, options.sample_batch_size) if options.watch_samples else None

    def on_sample(writer) -> dict[str, float]:
        pipeline.set_progress_bar_config(disable=True)
        generators = [torch.Generator().manual_seed(seed) for _ in CLASS_NAMES for seed in range(GRID_SEEDS)]
        with trainer.averaged_weights(), torch.no_grad(), trainer.autocast():
            images = pipeline(
                class_labels=list(CLASS_NAMES),
                num_images_per_prompt=GRID_SEEDS,
                num_inference_steps=options.sample_steps,
                generator=generators,
                output_type="pt",
            ).images
            figures = watch(pipeline, options.sample_steps) if watch else {}
            for steps in options.watch_steps if watch else ():
                figures |= {f"{name}_{steps}_steps": value for name, value in watch(pipeline, steps).items()}
        grid = make_grid(images.float().cpu(), nrow=GRID_SEEDS)
        writer.add_image("samples", grid, trainer.step)
        folder = trainer.folder / "samples"
        folder.mkdir(exist_ok=True)
        to_pil_image(grid).save(folder / f"{trainer.step:08d}.png")
        return figures

    return on_sample
