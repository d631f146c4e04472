"""An exported folder, loaded and called like the pipeline that it was made of."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor

from mobilediff.checkpoints import load_tokenizer
from mobilediff.downstream.control import check_count, check_scale, read_conditions
from mobilediff.models.mobile_controlnet import MobileControlNet
from mobilediff.ondevice.formats import load_format
from mobilediff.ondevice.manifest import CONTROL, MANIFEST, GraphEntry, Plan, noise_count, read_manifest
from mobilediff.ondevice.nouns import read_noun_table
from mobilediff.ondevice.sampling import draw
from mobilediff.sampling.prompts import readable
from mobilediff.threads import check_threads

TOKENIZER = "tokenizer"


def is_exported(folder: str | Path) -> bool:
    """Return whether a folder has the manifest of an export."""
    return (Path(folder) / MANIFEST).is_file()


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the file or folder that a library could not load in the block."""
    try:
        yield
    except Exception as error:  # the runtimes' errors have no parent in common
        message = " ".join(str(error).split())  # of several lines in some
        raise ValueError(f"{path} cannot be loaded: {message}; export it again") from error


def _check_shapes(file: Path, session, entry: GraphEntry) -> None:
    """Refuse a graph whose shapes are not the manifest's."""
    for kind, tensors, found in zip(("inputs", "outputs"), (entry.inputs, entry.outputs), session.shapes, strict=True):
        if found != (stated := [one.shape for one in tensors]):
            raise ValueError(f"{file} has {kind} of shapes {found}, {MANIFEST} states {stated}; export it again")


class ExportedPipeline:
    """Prompts to pictures with the graphs of an exported folder, and the same noise as `MobileDiffusionPipeline`.

    Args:
        folder: of `python -m mobilediff.ondevice.export`.
        plan: its manifest, or that of a folder that is still being written.
        threads: of each graph.

    Raises:
        ValueError: as in `check_threads` and `load_format`, a file cannot be loaded, or a graph is of other shapes
            or the noun table of another number of nouns or of other shapes than in the manifest.
    """

    device = torch.device("cpu")
    components: dict[str, object] = {}  # none is a network of PyTorch

    def __init__(self, folder: Path, plan: Plan, threads: int):
        check_threads(threads)
        session = load_format(plan.format).Session
        self.plan = plan
        self.sessions = {}
        for entry in plan.graphs:
            with _naming(folder / entry.path):
                self.sessions[entry.name] = session(folder / entry.path, threads)
            _check_shapes(folder / entry.path, self.sessions[entry.name], entry)
        with _naming(folder / TOKENIZER):
            self.tokenizer = load_tokenizer(folder / TOKENIZER)
        with _naming(folder / plan.nouns.path):
            hidden_states, pooled = read_noun_table(folder / plan.nouns.path, plan.nouns.dtype)
        if (count := len(pooled)) != (named := len(plan.nouns.names)):
            raise ValueError(
                f"{folder / plan.nouns.path} has {count} nouns, {MANIFEST} names {named}; export it again"
            )
        stated = [one.shape[1:] for one in plan.graph("text_encoder").outputs]
        if (found := [list(one.shape[1:]) for one in (hidden_states, pooled)]) != stated:
            raise ValueError(
                f"{folder / plan.nouns.path} has embeddings of shapes {found}, {MANIFEST} states {stated}; "
                "export it again"
            )
        embeddings = zip(hidden_states, pooled, strict=True)
        self.noun_embeddings = dict(zip(plan.nouns.names, embeddings, strict=True))
        self._embeddings: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def run(self, name: str, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """Run one graph."""
        return self.sessions[name].run(inputs)

    def encode(self, prompt: str) -> tuple[np.ndarray, np.ndarray]:
        """Encode a prompt, and keep its embeddings: hidden states [L, D] and pooled [P].

        Raises:
            ValueError: it has more tokens than the text encoder reads, or as in `readable`.
        """
        if prompt not in self._embeddings:
            self._embeddings[prompt] = self.encode_anew(prompt)
        return self._embeddings[prompt]

    def encode_anew(self, prompt: str) -> tuple[np.ndarray, np.ndarray]:
        """Encode a prompt whether its embeddings are kept or not; as `encode`."""
        prompt = readable(prompt, self.tokenizer)
        ids, most = self.tokenizer(prompt, verbose=False).input_ids, self.plan.max_tokens
        if len(ids) > most:
            raise ValueError(
                f"the prompt {prompt!r} has {len(ids)} tokens; accepted are {most}, start and end included"
            )
        padded = self.tokenizer(prompt, padding="max_length", max_length=most, return_tensors="np").input_ids
        hidden_states, pooled = self.run("text_encoder", {"input_ids": padded.astype(np.int32)})
        return hidden_states[0], pooled[0]

    def example_inputs(self, name: str) -> dict[str, np.ndarray]:
        """Make inputs of zeros for a graph, of its shapes."""
        return {one.name: np.zeros(one.shape, one.dtype) for one in self.plan.graph(name).inputs}

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """Return the shape of one latent, [C, H, W]."""
        entry = self.plan.graph("image" if self.plan.fused else "network")
        _, channels, height, width = entry.inputs[0].shape
        return channels, height, width

    def draw(
        self,
        noise: np.ndarray,
        hidden_states: np.ndarray,
        pooled: np.ndarray,
        conditions: np.ndarray | None = None,
        scale: float = 1.0,
    ) -> np.ndarray:
        """Draw pictures in [-1, 1], float32 [N, 3, H', W'], in batches of the folder's size, the last one filled up.

        Args:
            noise: [S, N, C, H, W], S noises a picture, see `mobilediff.ondevice.manifest.noise_count`.
            hidden_states: [N, L, D].
            pooled: [N, P].
            conditions: of `read_conditions`, where there is a control network.
            scale: of what the control network adds.
        """
        size, count, pictures = self.plan.batch_size, len(pooled), []
        for start in range(0, count, size):
            rows = np.arange(start, start + size).clip(max=count - 1)
            batch = noise[:, rows].reshape(-1, *self.latent_shape)
            control = {}
            if conditions is not None:
                values = conditions[rows], np.array([scale], dtype=np.float32)
                control = dict(zip(CONTROL, values, strict=True))
            text = hidden_states[rows], pooled[rows]
            pictures.append(draw(self.run, self.plan.steps, self.plan.fused, batch, *text, control))
        return np.concatenate(pictures)[:count]

    def read_conditions(self, count: int, image: Any, color_map: Any) -> np.ndarray | None:
        """Read the conditions of `count` pictures for `draw`, float32 [count, 6, H', W'].

        Args:
            count: of the prompts.
            image, color_map: as `MobileDiffusionControlPipeline` takes them; None without a control network.

        Raises:
            ValueError: as in `MobileDiffusionControlPipeline`, or one is given where there is no control network.
        """
        if not self.plan.controlled:
            if image is not None or color_map is not None:
                raise ValueError(f"image or color_map is given; {self.plan.model} has no control network")
            return None
        size = next(one.shape[-1] for one in self.plan.graph("image").inputs if one.name == "controlnet_cond")
        conditions = MobileControlNet.join_conditions(*read_conditions(image, color_map, size))
        check_count(len(conditions), count)
        return conditions.expand(count, -1, -1, -1).numpy()

    def draw_noise(self, count: int, generator: torch.Generator | list[torch.Generator] | None) -> np.ndarray:
        """Draw the noise of `count` pictures in the order in which the PyTorch pipeline draws it, [S, N, C, H, W]."""
        shape = (count, *self.latent_shape)
        noises = [randn_tensor(shape, generator=generator) for _ in range(noise_count(self.plan.steps))]
        return torch.stack(noises).numpy()

    def __call__(
        self,
        prompt: str | Sequence[str],
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "np",
        image: Any = None,
        color_map: Any = None,
        controlnet_conditioning_scale: float = 1.0,
    ) -> ImagePipelineOutput:
        """Draw a picture of each prompt.

        Args:
            prompt: one or several.
            generator: one, or one a picture.
            output_type: "np" (float [B, H, W, 3] in [0, 1]) or "pt" (float [B, 3, H, W] in [0, 1]).
            image, color_map, controlnet_conditioning_scale: as of `MobileDiffusionControlPipeline`, where there is a
                control network.

        Raises:
            ValueError: as in `encode`, `read_conditions` and `check_scale`, or another output type.
        """
        if output_type not in ("np", "pt"):
            raise ValueError(f"output_type is {output_type!r}; accepted are np, pt")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        conditions = self.read_conditions(len(prompts), image, color_map)
        check_scale(controlnet_conditioning_scale)
        hidden_states, pooled = map(np.stack, zip(*map(self.encode, prompts), strict=True))
        noise = self.draw_noise(len(prompts), generator)
        pictures = self.draw(noise, hidden_states, pooled, conditions, controlnet_conditioning_scale)
        pictures = (pictures / 2 + 0.5).clip(0, 1)
        images = torch.from_numpy(pictures) if output_type == "pt" else pictures.transpose(0, 2, 3, 1)
        return ImagePipelineOutput(images=images)  # pyright: ignore[reportArgumentType] - a tensor for "pt"


def load_exported(folder: str | Path, threads: int) -> ExportedPipeline:
    """Load an exported folder once its files are found to be those of its manifest.

    Raises:
        FileNotFoundError, ValueError: as in `read_manifest` and `ExportedPipeline`.
    """
    return ExportedPipeline(Path(folder), read_manifest(folder), threads)
