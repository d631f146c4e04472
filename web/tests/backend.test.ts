import { afterEach, expect, test, vi } from "vitest";
import { chooseBackend, largestDifference, probeWebGPU } from "../src/backend";

afterEach(() => vi.unstubAllGlobals());

const fails = (...names: string[]) => async (backend: string) => {
  if (names.includes(backend)) throw new Error(`${backend} does not work`);
  return backend;
};

test("WebGPU is taken where it works", async () => {
  expect(await chooseBackend("auto", fails())).toEqual({ backend: "webgpu", opened: "webgpu", refused: null });
});

test("WebAssembly is taken where WebGPU does not work, and the reason is kept", async () => {
  const expected = { backend: "wasm", opened: "wasm", refused: "webgpu does not work" };
  expect(await chooseBackend("auto", fails("webgpu"))).toEqual(expected);
});

test("an error of the last backend is the visitor's", async () => {
  await expect(chooseBackend("auto", fails("webgpu", "wasm"))).rejects.toThrow("wasm does not work");
});

test("a backend that was asked for is not replaced by another", async () => {
  await expect(chooseBackend("webgpu", fails("webgpu"))).rejects.toThrow("webgpu does not work");
  expect((await chooseBackend("wasm", fails())).backend).toBe("wasm");
});

const refuses = async () => {
  throw new Error("disabled by the administrator");
};

test.each([
  ["without https", false, undefined, true, "WebGPU needs https"],
  ["without WebGPU", true, undefined, true, "this browser has no WebGPU"],
  ["without suspending", true, { requestAdapter: async () => ({}) }, false, "cannot wait for a GPU"],
  ["without an adapter", true, { requestAdapter: async () => null }, true, "WebGPU found no graphics processor"],
  ["that refuses", true, { requestAdapter: refuses }, true, "WebGPU was refused: disabled by the administrator"],
])("a browser %s says so", async (_, isSecureContext, gpu, suspends, message) => {
  vi.stubGlobal("isSecureContext", isSecureContext);
  vi.stubGlobal("navigator", { gpu });
  vi.stubGlobal("WebAssembly", suspends ? { Suspending: class {} } : {});
  await expect(probeWebGPU()).rejects.toThrow(message);
});

test("a browser with an adapter passes", async () => {
  vi.stubGlobal("isSecureContext", true);
  vi.stubGlobal("navigator", { gpu: { requestAdapter: async () => ({}) } });
  vi.stubGlobal("WebAssembly", { Suspending: class {} });
  await expect(probeWebGPU()).resolves.toBeUndefined();
});

test("the largest difference of a picture leaves opacity out", () => {
  const selfTest = { noun: "cat", seed: 0, pixels: btoa(String.fromCharCode(10, 20, 30, 40, 50, 60)) };
  expect(largestDifference(Uint8ClampedArray.of(10, 20, 30, 255, 40, 50, 60, 255), selfTest)).toBe(0);
  expect(largestDifference(Uint8ClampedArray.of(10, 20, 30, 255, 40, 50, 65, 255), selfTest)).toBe(5);
});
