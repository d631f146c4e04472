"""The manifest of an exported folder: its graphs, sampling coefficients, files, origin and measured parity."""

import hashlib
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from mobilediff.captions import caption
from mobilediff.files import read_json

MANIFEST = "manifest.json"
VERSION = 1  # of the folder's layout; raised when what is written before no longer reads
Format = Literal["onnx", "litert", "executorch"]
Precision = Literal["fp32", "fp16", "int8"]
TableDtype = Literal["float32", "int8"]
GraphName = Literal["text_encoder", "image", "network", "decoder"]
TensorDtype = Literal["float32", "int32"]
TEXT: dict[str, TensorDtype] = {"hidden_states": "float32", "pooled": "float32"}
# Inputs and outputs of each graph, in their order.
SIGNATURES: dict[GraphName, tuple[Mapping[str, str], Mapping[str, str]]] = {
    "text_encoder": ({"input_ids": "int32"}, TEXT),
    "image": ({"noise": "float32"} | TEXT, {"images": "float32"}),
    "network": ({"sample": "float32", "step": "int32"} | TEXT, {"velocity": "float32"}),
    "decoder": ({"latents": "float32"}, {"images": "float32"}),
}
# Further inputs of an image graph that has a control network.
CONTROL: dict[str, TensorDtype] = {"controlnet_cond": "float32", "conditioning_scale": "float32"}
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Model(BaseModel):
    """A frozen model without further keys, whose values are of their types: no "1" or true for 1."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class Step(Model):
    """A step: x_s = sample_scale x_t + velocity_scale v + noise_scale eps, with fresh noise eps."""

    timestep: NonNegativeInt
    sample_scale: float
    velocity_scale: float
    noise_scale: NonNegativeFloat


def noise_count(steps: list[Step]) -> int:
    """Count the noises of a picture: the initial one, and one for each step that draws anew."""
    return 1 + sum(step.noise_scale > 0 for step in steps)


class Tensor(Model):
    """An input or output of a graph."""

    name: str
    dtype: TensorDtype
    shape: list[PositiveInt]


class File(Model):
    """A file of the folder, by its path from there."""

    path: str
    bytes: PositiveInt
    sha256: Sha256

    @field_validator("path")
    @classmethod
    def _lies_in_the_folder(cls, path: str) -> str:
        if not path or path.startswith("/") or ".." in path.split("/"):
            raise ValueError("accepted is a path inside the folder")
        return path


def _listed(tensors: Sequence[tuple[str, str]]) -> str:
    return ", ".join(f"{name} ({dtype})" for name, dtype in tensors) or "none"


class GraphEntry(Model):
    """A converted graph and its operators by number of nodes."""

    name: GraphName
    path: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    operators: dict[str, PositiveInt]

    @model_validator(mode="after")
    def _has_its_signature(self) -> "GraphEntry":
        sides = zip(("inputs", "outputs"), (self.inputs, self.outputs), SIGNATURES[self.name], strict=True)
        for kind, tensors, signature in sides:
            stated, accepted = [(one.name, one.dtype) for one in tensors], [list(signature.items())]
            if self.name == "image" and kind == "inputs":
                accepted.append([*accepted[0], *CONTROL.items()])
            if stated not in accepted:
                listed = ", or ".join(map(_listed, accepted))
                raise ValueError(f"the {kind} of {self.name} are {_listed(stated)}; accepted are {listed}")
        return self


class Nouns(Model):
    """The table of the nouns' text embeddings, see `mobilediff.ondevice.nouns`."""

    path: str
    template: str
    dtype: TableDtype
    names: list[Annotated[str, Field(min_length=1)]]

    @field_validator("template")
    @classmethod
    def _makes_prompts(cls, template: str) -> str:
        try:
            caption("cat", template)
        except (ValueError, LookupError, AttributeError) as error:
            raise ValueError("accepted is a sentence with {noun} and, if wanted, {article}") from error
        return template


class Parity(Model):
    """Largest and mean difference between the exported picture and PyTorch's, both in [-1, 1].

    Attributes:
        images: compared, with seeds 0 to `images` - 1 and captions of as many nouns.
        largest, mean: of all values, the text encoded by the exported text encoder.
        largest_with_noun_table: the same with the text taken from the table.
    """

    images: PositiveInt
    largest: NonNegativeFloat
    mean: NonNegativeFloat
    largest_with_noun_table: NonNegativeFloat


class LayerError(Model):
    """Mean squared error of a graph's output with this layer alone in int8, and whether it is kept higher."""

    graph: str
    layer: str
    operator: str
    error: NonNegativeFloat
    kept: bool


class Plan(Model):
    """All that running an exported folder needs to know."""

    version: Literal[1] = VERSION
    model: str
    format: Format
    precision: Precision
    batch_size: PositiveInt
    num_inference_steps: PositiveInt
    steps: list[Step]
    fused: bool
    max_tokens: PositiveInt
    graphs: list[GraphEntry]
    nouns: Nouns

    @model_validator(mode="after")
    def _fits(self) -> "Plan":
        expected = ["text_encoder", "image"] if self.fused else ["text_encoder", "network", "decoder"]
        if (found := [entry.name for entry in self.graphs]) != expected:
            raise ValueError(f"the graphs are {', '.join(found)}; accepted are {', '.join(expected)}")
        if len(self.steps) != self.num_inference_steps:
            raise ValueError(f"there are {len(self.steps)} steps; accepted is num_inference_steps, its number")
        if len(set(self.nouns.names)) < len(self.nouns.names):
            raise ValueError("two nouns have one name; accepted are different names")
        ids = self.graphs[0].inputs[0]
        if ids.shape != [1, self.max_tokens]:
            raise ValueError(f"{ids.name} is of shape {ids.shape}; max_tokens takes [1, {self.max_tokens}]")
        if not self.fused and noise_count(self.steps) > 1:
            raise ValueError("steps draw fresh noise outside of a fused graph; accepted are steps without")
        first = self.graphs[1].inputs[0]
        latents = self.batch_size * (noise_count(self.steps) if self.fused else 1)
        if len(first.shape) != 4 or first.shape[0] != latents:
            raise ValueError(f"{first.name} is of shape {first.shape}; its steps and batch take {latents} latents")
        text = {one.name: one.shape for one in self.graphs[0].outputs}
        for one in self.graphs[1].inputs:
            if one.name in text and one.shape != (taken := [self.batch_size, *text[one.name][1:]]):
                raise ValueError(f"{one.name} is of shape {one.shape}; text encoder and batch give {taken}")
        return self

    @property
    def controlled(self) -> bool:
        """Return whether the picture is steered by edges and colours."""
        return any(one.name in CONTROL for one in self.graphs[1].inputs)

    def graph(self, name: str) -> GraphEntry:
        """Return the entry of a graph by its name."""
        return next(entry for entry in self.graphs if entry.name == name)


class Manifest(Plan):
    """A plan, with its files, origin and measured parity."""

    model_sha256: Sha256
    files: list[File]
    layer_errors: list[LayerError]
    parity: Parity
    versions: dict[str, str]

    @property
    def bytes(self) -> int:
        """Return the bytes of all files but manifest and README."""
        return sum(file.bytes for file in self.files)


def describe_file(folder: Path, path: str) -> File:
    """Measure and hash a file of a folder."""
    content = (folder / path).read_bytes()
    return File(path=path, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _first_of(error: ValidationError) -> str:
    """Name the first fault of a manifest: where it lies, what is accepted, and the value unless it holds others."""
    first = error.errors()[0]
    at = ".".join(map(str, first["loc"])) or "it does not fit together"
    message = first["msg"].removeprefix("Value error, ")  # pydantic's, of a validator's own message
    value = first["input"]
    is_part = isinstance(value, dict | list)
    return f"{at}: {message}" if is_part else f"{at} is {reprlib.repr(value)}: {message}"


def read_manifest(folder: str | Path) -> Manifest:
    """Read the manifest of an exported folder and hold its files to it.

    Raises:
        FileNotFoundError: there is no manifest, or a file that it names is missing.
        ValueError: the manifest is of another version or damaged, or a file has another size or content.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise FileNotFoundError(f"{folder} is no exported folder: it has no {MANIFEST}")
    content = read_json(folder / MANIFEST)
    if not isinstance(content, dict):
        raise ValueError(f"{folder / MANIFEST} holds {reprlib.repr(content)}; accepted is an object: export it again")
    version = content.get("version")
    if type(version) is not int or version != VERSION:
        raise ValueError(f"{folder / MANIFEST} is of version {version!r}; accepted is {VERSION}: export it again")
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{folder / MANIFEST}: {_first_of(error)}; export it again") from error
    listed = {file.path for file in manifest.files}
    for path in [*(entry.path for entry in manifest.graphs), manifest.nouns.path]:
        if path not in listed:
            raise ValueError(f"{folder / MANIFEST} lists no size and hash of {path}; export it again")
    for file in manifest.files:
        if not (folder / file.path).is_file():
            raise FileNotFoundError(f"{folder / file.path} is missing, which {MANIFEST} names; export it again")
        if (size := (folder / file.path).stat().st_size) != file.bytes:
            raise ValueError(
                f"{folder / file.path} has {size} bytes, {MANIFEST} says {file.bytes}: it is truncated or of another "
                "export; export it again"
            )
        if describe_file(folder, file.path).sha256 != file.sha256:
            raise ValueError(f"{folder / file.path} is not the file that {MANIFEST} describes; export it again")
    return manifest
