"""The README of an exported folder, with the lines that run it in Python, JavaScript, Kotlin and Swift."""

from mobilediff.ondevice.manifest import Manifest, Plan

CONDITIONS = "edges in [0, 1], colours in [-1, 1], and planes of 1 where these are given, of 0 where not"


def _python(manifest: Plan) -> str:
    sketch = ', image=Image.open("sketch.png"), color_map=Image.open("colors.png")' if manifest.controlled else ""
    return f"""```python
import torch
from PIL import Image
from mobilediff.ondevice.exported import load_exported

pipeline = load_exported(".", threads=2)  # checks the files against manifest.json
seed = torch.Generator().manual_seed(7)
picture = pipeline("a photo of a fire truck", seed{sketch}).images[0]  # [H, W, 3] in [0, 1]
Image.fromarray((picture * 255).round().astype("uint8")).save("fire-truck.png")
```"""


def _shape(manifest: Plan, graph: str, tensor: str) -> list[int]:
    entry = manifest.graph(graph)
    return next(one.shape for one in [*entry.inputs, *entry.outputs] if one.name == tensor)


def _javascript(manifest: Plan) -> str:
    hidden, pooled = (_shape(manifest, "image", name) for name in ("hidden_states", "pooled"))
    noise, images = _shape(manifest, "image", "noise"), _shape(manifest, "image", "images")
    names, control = "noise, hidden_states, pooled", ""
    if manifest.controlled:
        names += ", controlnet_cond, conditioning_scale"
        shape = _shape(manifest, "image", "controlnet_cond")
        control = f"""
const controlnet_cond = new ort.Tensor("float32", conditions, {shape});  // {CONDITIONS}
const conditioning_scale = new ort.Tensor("float32", [1], [1]);"""
    return f"""```javascript
import * as ort from "onnxruntime-web";

const image = await ort.InferenceSession.create("image.onnx");
const text = await ort.InferenceSession.create("text_encoder.onnx");
const ids = new ort.Tensor("int32", tokenIds, [1, {manifest.max_tokens}]);  // Int32Array of tokenizer/
const {{ hidden_states, pooled }} = await text.run({{ input_ids: ids }});  // {hidden} and {pooled}
const noise = new ort.Tensor("float32", normalNoise, {noise});  // Float32Array, standard normal{control}
const {{ images }} = await image.run({{ {names} }});
const pixels = images.data.map((value) => 255 * Math.min(Math.max(value / 2 + 0.5, 0), 1));  // {images}
```"""


def _kotlin_onnx(manifest: Plan) -> str:
    noise, control = '("noise" to noise)', ""
    if manifest.controlled:
        noise = 'mapOf("noise" to noise, "controlnet_cond" to control, "conditioning_scale" to scale)'
        shape = ", ".join(map(str, _shape(manifest, "image", "controlnet_cond")))
        control = f"""
val control = OnnxTensor.createTensor(environment, FloatBuffer.wrap(conditions), longArrayOf({shape}))  // {CONDITIONS}
val scale = OnnxTensor.createTensor(environment, floatArrayOf(1f))"""
    return f"""```kotlin
val environment = OrtEnvironment.getEnvironment()  // com.microsoft.onnxruntime:onnxruntime-android
val text = environment.createSession(assets.open("text_encoder.onnx").readBytes())
val image = environment.createSession(assets.open("image.onnx").readBytes())
val ids = OnnxTensor.createTensor(environment, IntBuffer.wrap(tokenIds), longArrayOf(1, {manifest.max_tokens}))
val embeddings = text.run(mapOf("input_ids" to ids))
val shape = longArrayOf({", ".join(map(str, _shape(manifest, "image", "noise")))})
val noise = OnnxTensor.createTensor(environment, FloatBuffer.wrap(normalNoise), shape){control}
val names = listOf("hidden_states", "pooled")
val inputs = names.associateWith {{ embeddings[it].get() as OnnxTensor }} + {noise}
val pixels = (image.run(inputs)[0] as OnnxTensor).floatBuffer  // in [-1, 1]
```"""


def _kotlin_litert(manifest: Plan) -> str:
    hidden, pooled = (_shape(manifest, "image", name) for name in ("hidden_states", "pooled"))
    noise, images = _shape(manifest, "image", "noise"), _shape(manifest, "image", "images")
    return f"""```kotlin
val text = CompiledModel.create(assets, "text_encoder.tflite")  // com.google.ai.edge.litert:litert
val image = CompiledModel.create(assets, "image.tflite")
val ids = text.createInputBuffer("args_0").apply {{ writeInt(tokenIds) }}  // [1, {manifest.max_tokens}] of tokenizer/
val hiddenStates = text.createOutputBuffer("output_0")  // {hidden}
val pooled = text.createOutputBuffer("output_1")  // {pooled}
text.run(mapOf("args_0" to ids), mapOf("output_0" to hiddenStates, "output_1" to pooled))
val values = listOf(normalNoise, hiddenStates.readFloat(), pooled.readFloat())  // noise {noise}, standard normal
val inputs = values.withIndex().associate {{ (index, value) ->
    "args_$index" to image.createInputBuffer("args_$index").apply {{ writeFloat(value) }}
}}
val images = image.createOutputBuffer("output_0")
image.run(inputs, mapOf("output_0" to images))
val pixels = images.readFloat()  // {images} in [-1, 1]
```"""


def _kotlin_executorch(manifest: Plan) -> str:
    noise, images = (_shape(manifest, "image", name) for name in ("noise", "images"))
    return f"""```kotlin
val text = Module.load("$folder/text_encoder.pte")  // org.pytorch:executorch-android
val image = Module.load("$folder/image.pte")
val ids = Tensor.fromBlob(tokenIds, longArrayOf(1, {manifest.max_tokens}))  // IntArray of tokenizer/
val (hiddenStates, pooled) = text.forward(EValue.from(ids))
val noise = Tensor.fromBlob(normalNoise, longArrayOf({", ".join(map(str, noise))}))  // FloatArray, standard normal
val pixels = image.forward(EValue.from(noise), hiddenStates, pooled)[0].toTensor().dataAsFloatArray  // {images}
```"""


def _swift_executorch(manifest: Plan) -> str:
    noise, images = (_shape(manifest, "image", name) for name in ("noise", "images"))
    return f"""```swift
import ExecuTorch  // of github.com/pytorch/executorch; link executorch, backend_xnnpack, kernels_optimized

let text = Module(filePath: folder + "/text_encoder.pte"), image = Module(filePath: folder + "/image.pte")
let embeddings = try text.forward(Tensor<Int32>(tokenIds, shape: [1, {manifest.max_tokens}]))  // of tokenizer/
let hiddenStates: Tensor<Float> = embeddings[0].tensor()!
let pooled: Tensor<Float> = embeddings[1].tensor()!
let noise = Tensor<Float>(normalNoise, shape: {noise})  // standard normal
let pixels = try Tensor<Float>(image.forward([noise, hiddenStates, pooled])).scalars()  // {images} in [-1, 1]
```"""


SNIPPETS = {
    "onnx": (_javascript, _kotlin_onnx),
    "litert": (_kotlin_litert,),
    "executorch": (_kotlin_executorch, _swift_executorch),
}


def snippets(plan: Plan) -> list[str]:
    """Write the lines that run fused graphs of batch 1 in other languages than Python."""
    return [snippet(plan) for snippet in SNIPPETS[plan.format]]


def _loop(manifest: Manifest) -> str:
    return """The network is called once a step, and the decoder at the end:

    sample = noise
    for index, step in enumerate(manifest["steps"]):
        velocity = network(sample, [index], hidden_states, pooled)
        sample = step["sample_scale"] * sample + step["velocity_scale"] * velocity
    images = decoder(sample)"""


def readme(manifest: Manifest) -> str:
    """Write the README of an exported folder by its manifest."""
    rows = [f"| {file.path} | {file.bytes:,} |" for file in manifest.files]
    steps = "step" if manifest.num_inference_steps == 1 else "steps"
    parts = [
        f"# {manifest.model}: {manifest.format}, {manifest.precision}",
        f"{manifest.model} in {manifest.num_inference_steps} {steps}, for batches of {manifest.batch_size}. "
        f"`manifest.json` has the inputs and outputs of each graph, the coefficients of each step, and the size and "
        "hash of each file.",
        "\n".join(["| file | bytes |", "|---|---:|", *rows, f"| all | {manifest.bytes:,} |"]),
        f"Largest difference of {manifest.parity.images} pictures to PyTorch's, in [-1, 1]: "
        f"{manifest.parity.largest:.2g}; with the text taken from the noun table: "
        f"{manifest.parity.largest_with_noun_table:.2g}.",
        _python(manifest),
    ]
    if not manifest.fused:
        parts.append(_loop(manifest))
    elif manifest.batch_size == 1:
        parts += snippets(manifest)
    parts.append(
        "`nouns.safetensors` holds the text embeddings of the nouns in `manifest.json`, each in the sentence "
        f"`{manifest.nouns.template}`: noun i has the hidden states `rows[index[i]]` and `pooled[i]`, times "
        "`rows_scale` and `pooled_scale` where these are there."
    )
    return "\n\n".join(parts) + "\n"
