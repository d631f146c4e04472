/** Puts pictures on canvases, and saves them as PNG. */

import { make } from "./elements";

export const SIZE = 32;
const SAVED_SCALE = 8;

/** Shows a picture, bytes of red, green, blue and opacity. */
export function show(canvas: HTMLCanvasElement, pixels: Uint8ClampedArray<ArrayBuffer>): void {
  canvas.getContext("2d")?.putImageData(new ImageData(pixels, SIZE, SIZE), 0, 0);
}

/** Saves pictures side by side in one PNG, enlarged without smoothing. */
export function savePng(canvases: readonly HTMLCanvasElement[], name: string): void {
  const columns = Math.min(4, canvases.length);
  const side = SIZE * SAVED_SCALE;
  const sheet = make("canvas", { width: columns * side, height: Math.ceil(canvases.length / columns) * side });
  const context = sheet.getContext("2d") as CanvasRenderingContext2D;
  context.imageSmoothingEnabled = false;
  for (const [index, canvas] of canvases.entries()) {
    context.drawImage(canvas, (index % columns) * side, Math.floor(index / columns) * side, side, side);
  }
  sheet.toBlob((blob) => {
    const href = URL.createObjectURL(blob as Blob);
    make("a", { href, download: name }).click();
    URL.revokeObjectURL(href);
  }, "image/png");
}

/** Makes the name of a file of a prompt and a seed. */
export function fileName(prompt: string, seed: number): string {
  const words = prompt.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? ["picture"];
  return `${words.slice(0, 8).join("-")}-${seed}.png`;
}
