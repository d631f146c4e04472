/** Runs graphs by onnxruntime-web, on WebGPU or as WebAssembly. */

import type { InferenceSession, Tensor } from "onnxruntime-web/wasm";
import wasmScript from "onnxruntime-web/ort-wasm-simd-threaded.mjs?url";
import webgpuScript from "onnxruntime-web/ort-wasm-simd-threaded.jspi.mjs?url";
import type { Backend } from "./catalog";
import type { Value } from "./sampler";

/** More threads than this gain nothing on graphs of this size. */
const MAX_THREADS = 4;

export type RunGraph = (inputs: Record<string, Value>) => Promise<Record<string, Value>>;

/** Opens a graph from the content of its file. */
export type OpenGraph = (file: Uint8Array) => Promise<RunGraph>;

/** Counts the threads that WebAssembly may use: one where the page is not cross-origin isolated. */
export function threadCount(): number {
  return globalThis.crossOriginIsolated ? Math.min(MAX_THREADS, navigator.hardwareConcurrency) : 1;
}

/** Starts onnxruntime with the content of its WebAssembly file, whose download its scripts do not wait for. */
export async function startRuntime(backend: Backend, download: Promise<Uint8Array<ArrayBuffer>>): Promise<OpenGraph> {
  const mjs = new URL(backend === "webgpu" ? webgpuScript : wasmScript, import.meta.url).href;
  const [ort, binary] = await Promise.all([
    backend === "webgpu" ? import("onnxruntime-web/jspi") : import("onnxruntime-web/wasm"),
    download,
    import(/* @vite-ignore */ mjs),
  ]);
  ort.env.logLevel = "error";
  ort.env.wasm.wasmBinary = binary;
  ort.env.wasm.wasmPaths = { mjs };
  ort.env.wasm.numThreads = backend === "webgpu" ? 1 : threadCount();
  return async (file) => {
    const session: InferenceSession = await ort.InferenceSession.create(file, {
      executionProviders: [backend],
      // As WebAssembly, optimising takes longer than it saves in a hundred pictures.
      graphOptimizationLevel: backend === "webgpu" ? "all" : "disabled",
      logSeverityLevel: 3,
    });
    return async (inputs) => {
      const feeds: Record<string, Tensor> = {};
      for (const [name, { data, shape }] of Object.entries(inputs)) {
        feeds[name] =
          data instanceof Int32Array
            ? new ort.Tensor("int32", data, shape)
            : new ort.Tensor("float32", data, shape);
      }
      const outputs = await session.run(feeds);
      const values = Object.entries(outputs).map(([name, { data, dims }]) => [name, { data, shape: dims }]);
      return Object.fromEntries(values);
    };
  };
}
