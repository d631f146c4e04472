/** Gathers what the build adds to the page: exported models, onnxruntime's WebAssembly, their catalogue and a README. */

import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import {
  type Backend,
  CATALOG,
  type Catalog,
  type CatalogModel,
  packedPath,
  type SelfTest,
  type ServerTime,
} from "../src/catalog";
import { conditionInput, type FileEntry, MANIFEST, type Manifest, parseManifest } from "../src/manifest";
import { spaceReadme } from "./space";

// The model that the page draws with first.
const FIRST = "student-1step";
const ONNXRUNTIME = "node_modules/onnxruntime-web";
const BINARIES: Record<Backend, string> = {
  webgpu: "ort-wasm-simd-threaded.jspi.wasm",
  wasm: "ort-wasm-simd-threaded.wasm",
};

export interface Sources {
  models: string;
  selfTests: string;
  results: string;
}

export type SiteFiles = Map<string, string | Uint8Array>;

interface Results {
  records: Record<
    string,
    {
      model_sha256?: string;
      size?: { num_inference_steps: number };
      latency?: { image: { median_ms: number }; protocol: { device_name: string; threads: number } };
    }
  >;
}

const readJson = (file: string) => JSON.parse(readFileSync(file, "utf-8"));
const hash = (content: Uint8Array) => createHash("sha256").update(content).digest("hex");

/** Reads an exported folder and holds its files to its manifest. */
export function readExported(folder: string): { manifest: Manifest; files: Map<string, Uint8Array> } {
  if (!existsSync(join(folder, MANIFEST))) throw new Error(`${folder} is no exported folder: it has no ${MANIFEST}`);
  const manifest = parseManifest(readFileSync(join(folder, MANIFEST), "utf-8"), folder);
  const files = new Map<string, Uint8Array>();
  for (const { path, bytes, sha256 } of manifest.files) {
    const file = join(folder, path);
    if (!existsSync(file)) throw new Error(`${file} is missing, which ${MANIFEST} names; export it again`);
    const content = readFileSync(file);
    if (content.length !== bytes) {
      throw new Error(`${file} has ${content.length} bytes, ${MANIFEST} says ${bytes}; export it again`);
    }
    if (hash(content) !== sha256) throw new Error(`${file} is not the file that ${MANIFEST} describes; export it again`);
    files.set(path, content);
  }
  return { manifest, files };
}

/** Finds how long a server takes for a picture of that checkpoint and number of steps, if that was measured. */
export function serverTime(results: Results, manifest: Manifest): ServerTime | null {
  const found = Object.values(results.records).find(
    (record) =>
      record.model_sha256 === manifest.model_sha256 && record.size?.num_inference_steps === manifest.num_inference_steps,
  )?.latency;
  if (!found) return null;
  const { device_name, threads } = found.protocol;
  return { medianMs: found.image.median_ms, device: device_name, threads };
}

/** Reads the picture that a backend has to draw, of the checkpoint that the folder was exported from. */
export function readSelfTest(file: string, manifest: Manifest): SelfTest {
  if (!existsSync(file)) throw new Error(`${manifest.model} has no picture to test a backend with, ${file}`);
  const { model_sha256, ...selfTest } = readJson(file);
  if (model_sha256 !== manifest.model_sha256) {
    throw new Error(
      `${file} is of the checkpoint ${model_sha256}, the export of ${manifest.model_sha256}; ` +
        "run python -m tests.web.fixtures, or export again",
    );
  }
  if (conditionInput(manifest) && !selfTest.sketch) throw new Error(`${file} has no sketch, which ${manifest.model} draws by`);
  return selfTest;
}

/** Adds large files, each compressed, and notes their sizes over the wire. */
class PackedFiles {
  readonly bytes: Record<string, number> = {};

  constructor(private readonly site: SiteFiles) {}

  add(path: string, content: Uint8Array): FileEntry {
    const sha256 = hash(content);
    if (!(sha256 in this.bytes)) {
      const packed = gzipSync(content, { level: 9 });
      this.site.set(packedPath(sha256), packed);
      this.bytes[sha256] = packed.length;
    }
    return { path, bytes: content.length, sha256 };
  }
}

/** Makes all files that the build adds, by path. */
export function siteFiles(sources: Sources): SiteFiles {
  const folders = readdirSync(sources.models).filter((name) => statSync(join(sources.models, name)).isDirectory());
  if (!folders.includes(FIRST)) throw new Error(`${sources.models} has no ${FIRST}, which the page draws with first`);
  const names = [FIRST, ...folders.filter((name) => name !== FIRST).sort()];
  const results: Results = readJson(sources.results);
  const site: SiteFiles = new Map();
  const packed = new PackedFiles(site);
  const runtime = (name: string) => packed.add(name, readFileSync(join(ONNXRUNTIME, "dist", name)));
  const model = (name: string): CatalogModel => {
    const { manifest, files } = readExported(join(sources.models, name));
    for (const [path, content] of files) packed.add(path, content);
    site.set(`models/${name}/${MANIFEST}`, readFileSync(join(sources.models, name, MANIFEST), "utf-8"));
    const selfTest = readSelfTest(join(sources.selfTests, `${manifest.model}.json`), manifest);
    const controlled = conditionInput(manifest) !== undefined;
    const server = serverTime(results, manifest);
    return { name, steps: manifest.num_inference_steps, controlled, selfTest, server };
  };
  const catalog: Catalog = {
    onnxruntime: readJson(join(ONNXRUNTIME, "package.json")).version,
    runtimes: { webgpu: runtime(BINARIES.webgpu), wasm: runtime(BINARIES.wasm) },
    models: names.map(model),
    packedBytes: packed.bytes,
  };
  site.set(CATALOG, JSON.stringify(catalog));
  site.set("README.md", spaceReadme(catalog));
  return site;
}
