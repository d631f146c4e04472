/** From noise and text embeddings to a picture with a model's graphs, as `mobilediff/ondevice/sampling.py`. */

import { conditionInput, type GraphName, type Manifest, noiseShape } from "./manifest";
import { normalNoise } from "./noise";
import type { Embedding } from "./nouns";

export interface Value {
  data: Float32Array | Int32Array;
  shape: readonly number[];
}

/** What steers a picture: planes of `joinConditions`, and the factor of what the control network adds. */
export interface Control {
  conditions: Float32Array;
  scale: number;
}

/** Runs a graph: its inputs by name to its outputs by name. */
export type Run = (graph: GraphName, inputs: Record<string, Value>) => Promise<Record<string, Value>>;

/** Returns the output of a graph that has to be there. */
export function output(outputs: Record<string, Value>, name: string): Float32Array {
  const value = outputs[name]?.data;
  if (!(value instanceof Float32Array)) throw new Error(`the graph gives no ${name}`);
  return value;
}

/** Names the further inputs of a graph with a control network. */
function controlInputs(manifest: Manifest, control: Control | undefined): Record<string, Value> {
  const input = conditionInput(manifest);
  if (!input !== !control) {
    throw new Error(`${manifest.model} ${input ? "draws by a sketch, which is missing" : "has no control network"}`);
  }
  if (!input || !control) return {};
  return {
    controlnet_cond: { data: control.conditions, shape: input.shape },
    conditioning_scale: { data: Float32Array.of(control.scale), shape: [1] },
  };
}

/**
 * Draws the picture of a seed, planes of red, green and blue in [-1, 1].
 *
 * @param control where the folder has a control network.
 */
export async function draw(
  run: Run,
  manifest: Manifest,
  embedding: Embedding,
  seed: number,
  control?: Control,
): Promise<Float32Array> {
  const shape = noiseShape(manifest);
  const noise = normalNoise(
    seed,
    shape.reduce((product, size) => product * size, 1),
  );
  const { hiddenStates, pooled } = embedding;
  const text = {
    hidden_states: { data: hiddenStates, shape: [1, manifest.max_tokens, hiddenStates.length / manifest.max_tokens] },
    pooled: { data: pooled, shape: [1, pooled.length] },
  };
  const further = controlInputs(manifest, control);
  if (manifest.fused) {
    return output(await run("image", { noise: { data: noise, shape }, ...text, ...further }), "images");
  }
  const sample = noise;
  for (const [index, step] of manifest.steps.entries()) {
    const inputs = { sample: { data: sample, shape }, step: { data: Int32Array.of(index), shape: [1] }, ...text };
    const velocity = output(await run("network", inputs), "velocity");
    const [sampleScale, velocityScale] = [Math.fround(step.sample_scale), Math.fround(step.velocity_scale)];
    for (let i = 0; i < sample.length; i++) {
      const [x, v] = [sample[i] as number, velocity[i] as number];
      sample[i] = Math.fround(sampleScale * x) + Math.fround(velocityScale * v);
    }
  }
  return output(await run("decoder", { latents: { data: sample, shape } }), "images");
}

/** Turns planes in [-1, 1] into bytes of red, green, blue and opacity. */
export function toPixels(planes: Float32Array): Uint8ClampedArray<ArrayBuffer> {
  const area = planes.length / 3;
  const pixels = new Uint8ClampedArray(4 * area).fill(255);
  for (let i = 0; i < area; i++) {
    for (let plane = 0; plane < 3; plane++) {
      pixels[4 * i + plane] = 127.5 * ((planes[plane * area + i] as number) + 1);
    }
  }
  return pixels;
}

/** Blends two texts, `share` of the second one. */
export function blend(first: Embedding, second: Embedding, share: number): Embedding {
  const mix = (a: Float32Array, b: Float32Array) =>
    a.map((value, index) => (1 - share) * value + share * (b[index] as number));
  return { hiddenStates: mix(first.hiddenStates, second.hiddenStates), pooled: mix(first.pooled, second.pooled) };
}
