/** Draws the way from one noun to another: the same noise, their texts blended. */

import type { Text } from "../engine";
import { byId, make } from "./elements";
import { SIZE, show } from "./pictures";

const STRIP = 7;

const from = byId("from", HTMLSelectElement);
const to = byId("to", HTMLSelectElement);
const share = byId("share", HTMLInputElement);
const strip = byId("strip", HTMLDivElement);
const blendCanvas = byId("blend", HTMLCanvasElement);
const button = byId("interpolate", HTMLButtonElement);

/** Draws the picture of a text, or null where a newer request has come. */
export type Draw = (text: Text) => Promise<Uint8ClampedArray<ArrayBuffer> | null>;

function textAt(part: number): Text {
  return { from: { noun: from.value }, to: { noun: to.value }, share: part };
}

async function drawBlend(draw: Draw): Promise<void> {
  const label = `${share.value} percent from ${from.value} to ${to.value}`;
  const pixels = await draw(textAt(Number(share.value) / 100));
  if (!pixels) return;
  show(blendCanvas, pixels);
  blendCanvas.setAttribute("aria-label", label);
}

async function drawStrip(draw: Draw): Promise<void> {
  const ends = `${from.value} to ${to.value}`;
  await drawBlend(draw);
  for (const [index, canvas] of [...strip.querySelectorAll("canvas")].entries()) {
    const pixels = await draw(textAt(index / (STRIP - 1)));
    if (!pixels) return;
    show(canvas, pixels);
  }
  strip.dataset.drawn = ends;
}

/**
 * Wires the section.
 *
 * @param nouns to choose from.
 * @param run runs a job that draws.
 */
export function wireInterpolation(nouns: readonly string[], run: (job: (draw: Draw) => Promise<void>) => void): void {
  for (const [select, chosen] of [
    [from, "airplane"],
    [to, "ship"],
  ] as const) {
    select.replaceChildren(...nouns.map((noun) => make("option", { value: noun, textContent: noun })));
    select.value = chosen;
    select.addEventListener("change", () => run(drawStrip));
  }
  const canvases = Array.from({ length: STRIP }, () => make("canvas", { width: SIZE, height: SIZE }));
  for (const canvas of canvases) canvas.setAttribute("aria-hidden", "true");
  strip.replaceChildren(...canvases);
  share.disabled = button.disabled = false;
  share.addEventListener("input", () => run(drawBlend));
  button.addEventListener("click", () => run(drawStrip));
}
