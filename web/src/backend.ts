/** Chooses where graphs run: on WebGPU if the browser has it and it draws a known picture rightly, else as WebAssembly. */

import type { Backend, SelfTest } from "./catalog";

export type Preference = "auto" | Backend;

/** A reason for which a backend cannot be used, in words for a visitor. */
export class Refusal extends Error {}

/** Asks whether WebGPU can be used, and throws a `Refusal` if not. */
export async function probeWebGPU(): Promise<void> {
  if (!globalThis.isSecureContext) throw new Refusal("WebGPU needs https");
  if (!navigator.gpu) throw new Refusal("this browser has no WebGPU");
  if (!("Suspending" in WebAssembly)) throw new Refusal("this browser's WebAssembly cannot wait for a GPU");
  let adapter: GPUAdapter | null;
  try {
    adapter = await navigator.gpu.requestAdapter();
  } catch (error) {
    throw new Refusal(`WebGPU was refused: ${(error as Error).message}`);
  }
  if (!adapter) throw new Refusal("WebGPU found no graphics processor");
}

/** Decodes bytes from base64. */
export function bytesOf(base64: string): Uint8Array {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/** Compares a picture with that of a self-test: the largest difference, of 255. */
export function largestDifference(pixels: Uint8ClampedArray, selfTest: SelfTest): number {
  const expected = bytesOf(selfTest.pixels);
  let largest = 0;
  for (const [index, value] of expected.entries()) {
    const drawn = pixels[4 * Math.floor(index / 3) + (index % 3)] as number;
    largest = Math.max(largest, Math.abs(drawn - value));
  }
  return largest;
}

/**
 * Opens the first backend that works.
 *
 * @param preference "auto" tries WebGPU, then WebAssembly; a backend tries that one alone.
 * @param open starts a backend and draws the picture of its self-test; throws an error if it cannot.
 * @returns the backend, what `open` gave, and why WebGPU was refused.
 * @throws Error of the last backend.
 */
export async function chooseBackend<T>(
  preference: Preference,
  open: (backend: Backend) => Promise<T>,
): Promise<{ backend: Backend; opened: T; refused: string | null }> {
  if (preference !== "auto") return { backend: preference, opened: await open(preference), refused: null };
  try {
    return { backend: "webgpu", opened: await open("webgpu"), refused: null };
  } catch (error) {
    return { backend: "wasm", opened: await open("wasm"), refused: (error as Error).message };
  }
}
