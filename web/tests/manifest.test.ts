import { expect, test } from "vitest";
import { conditionInput, parseManifest } from "../src/manifest";
import { manifestContent, withControl } from "./exported";

const parse = (content: unknown) => parseManifest(JSON.stringify(content), "models/x");

test("the tracked export is read", () => {
  const manifest = parse(manifestContent());
  expect(manifest.nouns.names).toHaveLength(396);
  expect(manifest.fused).toBe(true);
  expect(conditionInput(manifest)).toBeUndefined();
});

test("the condition of a control network has planes of a sketch", () => {
  const content = manifestContent();
  withControl(content);
  expect(conditionInput(parse(content))?.shape).toEqual([1, 6, 32, 32]);
  content.graphs[1].inputs[3].shape = [1, 6, 64, 64];
  expect(() => parse(content)).toThrow("controlnet_cond is 1 x 6 x 64 x 64; accepted is 1 x 6 x 32 x 32");
});

test.each<[string, (manifest: Record<string, any>) => void, string]>([
  ["another version", (one) => (one.version = 2), "is of version 2; accepted is 1"],
  ["no version", (one) => delete one.version, "is of version undefined; accepted is 1"],
  ["another format", (one) => (one.format = "litert"), 'format is "litert"; accepted is "onnx"'],
  ["a precision that is none", (one) => (one.precision = "int4"), 'precision is "int4"; accepted is'],
  ["another batch", (one) => (one.batch_size = 4), "batch_size is 4; accepted is 1"],
  ["no hash of a graph", (one) => one.files.shift(), "lists no size and hash of image.onnx"],
  ["no graph", (one) => one.graphs.pop(), "has no graph image"],
  ["a hash that is none", (one) => (one.files[0].sha256 = "0"), "files.0.sha256 is"],
  ["more steps than coefficients", (one) => (one.num_inference_steps = 2), "coefficients of 1 steps; num_inference_steps is 2"],
  [
    "steps that the fused graph has no noise for",
    (one) => (one.steps = [{ ...one.steps[0], noise_scale: 0.5 }]),
    "takes 1 noises of a picture, its steps draw 2",
  ],
])("a manifest with %s is refused", (_, change, message) => {
  const content = manifestContent();
  change(content);
  expect(() => parse(content)).toThrow(message);
});

test("a cut-off manifest is refused", () => {
  expect(() => parseManifest('{"version": 1,', "models/x")).toThrow("models/x/manifest.json is damaged: it is no JSON");
});

test("steps with fresh noise are refused outside of a fused graph", () => {
  const content = manifestContent();
  const [graph] = content.graphs.splice(1, 1);
  const loop = ["network", "decoder"].map((name) => ({ ...graph, name }));
  const steps = [{ ...content.steps[0], noise_scale: 0.5 }];
  const changed = { ...content, fused: false, graphs: [...content.graphs, ...loop], steps };
  expect(() => parse(changed)).toThrow("steps draw fresh noise outside of a fused graph");
});
