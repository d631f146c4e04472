/** `catalog.json`, which the build writes: the runtimes and models that a page offers, and their sizes over the wire. */

import type { FileEntry } from "./manifest";

/** A picture by PyTorch that a backend has to draw alike. */
export interface SelfTest {
  noun: string;
  seed: number;
  /** Base64 of bytes of red, green and blue. */
  pixels: string;
  /** Of a model with a control network, base64 of the bytes of the sketch, see `joinConditions`. */
  sketch?: { edges: string; colors: string };
}

/** The time of a picture on a server, from `docs/results.json`. */
export interface ServerTime {
  medianMs: number;
  device: string;
  threads: number;
}

export interface CatalogModel {
  name: string;
  steps: number;
  /** Whether it draws by a sketch. */
  controlled: boolean;
  selfTest: SelfTest;
  server: ServerTime | null;
}

export type Backend = "webgpu" | "wasm";

export interface Catalog {
  onnxruntime: string;
  runtimes: Record<Backend, FileEntry>;
  models: CatalogModel[];
  /** Sizes over the wire of all large files, by the hash of their content. */
  packedBytes: Record<string, number>;
}

export const CATALOG = "catalog.json";

/**
 * Returns the path of a large file in the site: by its content, so that models share what they have in common. The build
 * compresses it, so its size over the wire is no matter of the server; not as .gz, which some servers take for a content
 * encoding.
 */
export function packedPath(sha256: string): string {
  return `files/${sha256}.gzip`;
}
