import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { type Manifest, parseManifest } from "../src/manifest";
import { normalNoise } from "../src/noise";
import { NounTable } from "../src/nouns";
import { blend, draw, type Run, toPixels, type Value } from "../src/sampler";
import { manifestContent, withControl } from "./exported";

const embedding = { hiddenStates: new Float32Array(16 * 128).fill(0.5), pooled: new Float32Array(128).fill(2) };
const fused = parseManifest(JSON.stringify(manifestContent()), "x");
const looped: Manifest = {
  ...fused,
  fused: false,
  graphs: [
    {
      name: "network",
      path: "network.onnx",
      inputs: [{ name: "sample", dtype: "float32", shape: [1, 1, 1, 2] }],
      outputs: [],
    },
  ],
  steps: [
    { sample_scale: 0.5, velocity_scale: 2, noise_scale: 0 },
    { sample_scale: 0.25, velocity_scale: -1, noise_scale: 0 },
  ],
};

test("a fused graph gets noise and text", async () => {
  const run: Run = async (graph, { noise, hidden_states, pooled }) => {
    expect(graph).toBe("image");
    expect(noise).toEqual({ data: normalNoise(3, 1024), shape: [1, 4, 16, 16] });
    expect(hidden_states).toEqual({ data: embedding.hiddenStates, shape: [1, 16, 128] });
    expect(pooled).toEqual({ data: embedding.pooled, shape: [1, 128] });
    return { images: { data: Float32Array.of(1, 2, 3), shape: [1, 3, 1, 1] } };
  };
  expect([...(await draw(run, fused, embedding, 3))]).toEqual([1, 2, 3]);
});

test("a graph with a control network gets condition and scale, and refuses to draw without", async () => {
  const content = manifestContent();
  withControl(content);
  const controlled = parseManifest(JSON.stringify(content), "x");
  const conditions = new Float32Array(6 * 32 * 32).fill(0.25);
  const run: Run = async (_, { controlnet_cond, conditioning_scale, noise }) => {
    expect(controlnet_cond).toEqual({ data: conditions, shape: [1, 6, 32, 32] });
    expect(conditioning_scale).toEqual({ data: Float32Array.of(0.5), shape: [1] });
    return { images: noise as Value };
  };
  const drawn = await draw(run, controlled, embedding, 3, { conditions, scale: 0.5 });
  expect(drawn).toEqual(normalNoise(3, 1024));
  await expect(draw(run, controlled, embedding, 3)).rejects.toThrow("student-1step draws by a sketch, which is missing");
  await expect(draw(run, fused, embedding, 3, { conditions, scale: 1 })).rejects.toThrow("has no control network");
});

test("a looped network is called once a step with the step's coefficients", async () => {
  const [x, y] = normalNoise(3, 2) as unknown as [number, number];
  const seen: number[] = [];
  const run: Run = async (graph, { sample, step, latents }): Promise<Record<string, Value>> => {
    if (graph === "decoder") return { images: latents as Value };
    seen.push(step?.data[0] as number);
    return { velocity: { data: Float32Array.from(sample?.data as Float32Array, (value) => value + 1), shape: [] } };
  };
  const drawn = await draw(run, looped, embedding, 3);
  const byHand = [x, y].map((value) => {
    const first = 0.5 * value + 2 * (value + 1);
    return 0.25 * first - (first + 1);
  });
  expect(seen).toEqual([0, 1]);
  expect(drawn[0]).toBeCloseTo(byHand[0] as number, 5);
  expect(drawn[1]).toBeCloseTo(byHand[1] as number, 5);
});

test("a graph without the output that is needed is refused", async () => {
  await expect(draw(async () => ({}), fused, embedding, 3)).rejects.toThrow("the graph gives no images");
});

test("planes in [-1, 1] become bytes, what lies beyond is cut", () => {
  const planes = Float32Array.of(-1, 0.2, 0, 2, 1, -3);
  expect([...toPixels(planes)]).toEqual([0, 128, 255, 255, 153, 255, 0, 255]);
});

test("the ends of a blend are the two texts, its middle their mean", () => {
  const other = { hiddenStates: embedding.hiddenStates.map((value) => value + 1), pooled: embedding.pooled };
  expect(blend(embedding, other, 0)).toEqual(embedding);
  expect(blend(embedding, other, 1)).toEqual(other);
  expect(blend(embedding, other, 0.5).hiddenStates[0]).toBe(1);
});

test("the noun table has a row of each token, scaled", () => {
  const table = new NounTable(Uint8Array.from(readFileSync("models/student-1step/nouns.safetensors")), fused.nouns.names);
  const [cat, dog] = [table.embedding("cat"), table.embedding("dog")];
  expect(cat.hiddenStates).toHaveLength(16 * 128);
  expect(cat.pooled).toHaveLength(128);
  // "a photo of a" stands in front of both nouns, and the encoder reads from left to right.
  expect(cat.hiddenStates.slice(0, 5 * 128)).toEqual(dog.hiddenStates.slice(0, 5 * 128));
  expect(cat.hiddenStates.slice(5 * 128)).not.toEqual(dog.hiddenStates.slice(5 * 128));
  expect(() => table.embedding("unicorn")).toThrow('"unicorn" is none of the 396 known nouns');
});
