/** The manifest of an exported folder, as `mobilediff/ondevice/manifest.py` writes it: read, and held to what the page runs. */

import * as v from "valibot";

export const MANIFEST = "manifest.json";
const VERSION = 1;
const CONDITION = "1 x 6 x 32 x 32";

const count = v.pipe(v.number(), v.integer(), v.minValue(1));
const sha256 = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/));

const step = v.object({ sample_scale: v.number(), velocity_scale: v.number(), noise_scale: v.number() });
const tensor = v.object({ name: v.string(), dtype: v.picklist(["float32", "int32"]), shape: v.array(count) });
const file = v.object({ path: v.string(), bytes: count, sha256 });
const graph = v.object({
  name: v.picklist(["text_encoder", "image", "network", "decoder"]),
  path: v.string(),
  inputs: v.array(tensor),
  outputs: v.array(tensor),
});
const manifest = v.object({
  model: v.string(),
  format: v.literal("onnx"),
  precision: v.picklist(["fp32", "fp16", "int8"]),
  batch_size: v.literal(1),
  num_inference_steps: count,
  steps: v.array(step),
  fused: v.boolean(),
  max_tokens: count,
  graphs: v.array(graph),
  nouns: v.object({ path: v.string(), template: v.string(), names: v.array(v.string()) }),
  model_sha256: sha256,
  files: v.array(file),
  parity: v.object({ largest_with_noun_table: v.number() }),
});

export type Step = v.InferOutput<typeof step>;
export type FileEntry = v.InferOutput<typeof file>;
export type GraphEntry = v.InferOutput<typeof graph>;
export type GraphName = GraphEntry["name"];
export type Manifest = v.InferOutput<typeof manifest>;

/** Counts the noises of a picture: the initial one, and one for each step that draws anew. */
export function noiseCount(steps: readonly Step[]): number {
  return 1 + steps.filter((one) => one.noise_scale > 0).length;
}

/** Returns the entry of a file by its path. */
export function fileEntry(of: Manifest, path: string): FileEntry {
  const found = of.files.find((one) => one.path === path);
  if (!found) throw new Error(`${MANIFEST} of ${of.model} lists no size and hash of ${path}`);
  return found;
}

/** Returns the entry of a graph by its name. */
export function graphEntry(of: Manifest, name: GraphName): GraphEntry {
  const found = of.graphs.find((one) => one.name === name);
  if (!found) throw new Error(`${MANIFEST} of ${of.model} has no graph ${name}`);
  return found;
}

/** Returns the shape of the noise that a picture starts from. */
export function noiseShape(of: Manifest): readonly number[] {
  const input = of.fused ? graphEntry(of, "image").inputs[0] : graphEntry(of, "network").inputs[0];
  if (!input) throw new Error(`${MANIFEST} of ${of.model} has a graph without inputs`);
  return input.shape;
}

/** Returns the input of the condition that steers a picture, if the folder has a control network. */
export function conditionInput(of: Manifest): GraphEntry["inputs"][number] | undefined {
  return of.fused ? graphEntry(of, "image").inputs.find((input) => input.name === "controlnet_cond") : undefined;
}

/** Reads JSON, or throws an error that names the file. */
export function parseJson(text: string, file: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(`${file} is damaged: it is no JSON`);
  }
}

/**
 * Reads the manifest of a folder.
 *
 * @param folder to name in errors.
 * @throws Error where it is of another version or damaged, or describes a folder that the page cannot run.
 */
export function parseManifest(text: string, folder: string): Manifest {
  const file = `${folder}/${MANIFEST}`;
  const content = parseJson(text, file);
  const version = (content as { version?: unknown } | null)?.version;
  if (version !== VERSION) {
    throw new Error(`${file} is of version ${JSON.stringify(version)}; accepted is ${VERSION}: export it again`);
  }
  const result = v.safeParse(manifest, content);
  if (!result.success) {
    const [issue] = result.issues;
    const { received, expected } = issue;
    throw new Error(`${file}: ${v.getDotPath(issue)} is ${received}; accepted is ${expected ?? issue.message}`);
  }
  check(result.output, file);
  return result.output;
}

function check(one: Manifest, file: string): void {
  const { steps, fused, num_inference_steps } = one;
  if (steps.length !== num_inference_steps) {
    throw new Error(`${file} has coefficients of ${steps.length} steps; num_inference_steps is ${num_inference_steps}`);
  }
  const names: GraphName[] = ["text_encoder", ...(fused ? (["image"] as const) : (["network", "decoder"] as const))];
  for (const name of names) fileEntry(one, graphEntry(one, name).path);
  fileEntry(one, one.nouns.path);
  const [noises] = noiseShape(one);
  const drawn = fused ? noiseCount(steps) : 1;
  if (noises !== drawn) {
    throw new Error(`${file}: the graph takes ${noises} noises of a picture, its steps draw ${drawn}: export it again`);
  }
  const condition = conditionInput(one)?.shape.join(" x ");
  if (condition && condition !== CONDITION) {
    throw new Error(`${file}: controlnet_cond is ${condition}; accepted is ${CONDITION}`);
  }
  if (!fused && noiseCount(steps) > 1) {
    throw new Error(`${file}: steps draw fresh noise outside of a fused graph; accepted are steps without`);
  }
}
