/** Lets a visitor draw lines and colours, each stroke of which gives a new picture. */

import type { Picture } from "../engine";
import type { Control } from "../sampler";
import { type Color, type Point, SIZE, Sketch, type Tool } from "../sketch";
import { byId, make } from "./elements";
import { fileName, savePng, show } from "./pictures";
import { formatMs } from "./timings";

const COLORS: Record<string, Color> = {
  Red: [200, 50, 40],
  Orange: [235, 150, 50],
  Yellow: [240, 220, 90],
  Green: [70, 130, 60],
  Sky: [140, 190, 235],
  Blue: [40, 90, 170],
  Brown: [120, 80, 45],
  Grey: [100, 115, 135],
};
const ARROWS: Record<string, Point> = {
  ArrowLeft: { x: -1, y: 0 },
  ArrowRight: { x: 1, y: 0 },
  ArrowUp: { x: 0, y: -1 },
  ArrowDown: { x: 0, y: 1 },
};
const CURSOR: Color = [255, 96, 64];

const section = byId("sketching", HTMLElement);
const canvas = byId("sketch", HTMLCanvasElement);
const result = byId("sketched", HTMLCanvasElement);
const tools = byId("tools", HTMLDivElement);
const strength = byId("strength", HTMLInputElement);
const clear = byId("clear", HTMLButtonElement);
const save = byId("save-sketched", HTMLButtonElement);
const time = byId("sketched-time", HTMLElement);

/** Draws the picture of a sketch, or null where a newer request has come; `name` says which prompt and seed it has. */
export type DrawSketch = (control: Control) => Promise<{ picture: Picture; prompt: string; seed: number } | null>;

const sketch = new Sketch();
let tool: Tool = "pen";
let cursor: Point | null = null;

function inside(value: number): number {
  return Math.min(Math.max(Math.floor(value), 0), SIZE - 1);
}

function pointOf({ clientX, clientY }: PointerEvent): Point {
  const { left, top, width, height } = canvas.getBoundingClientRect();
  return { x: inside((SIZE * (clientX - left)) / width), y: inside((SIZE * (clientY - top)) / height) };
}

function showSketch(): void {
  const pixels = sketch.pixels();
  if (cursor) pixels.set(CURSOR, 4 * (SIZE * cursor.y + cursor.x));
  show(canvas, pixels);
}

function wirePointer(onStroke: () => void): void {
  let last: Point | null = null;
  const stroke = (to: Point) => {
    sketch.stroke(last ?? to, to, tool);
    last = to;
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary || event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    cursor = last = null;
    stroke(pointOf(event));
    onStroke();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last || !event.isPrimary) return;
    stroke(pointOf(event));
    onStroke();
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => {
      last = null;
    });
  }
}

function wireKeyboard(onStroke: () => void): void {
  canvas.addEventListener("keydown", (event) => {
    const arrow = ARROWS[event.key];
    if (!arrow && event.key !== " ") return;
    event.preventDefault();
    const from = cursor ?? { x: SIZE / 2, y: SIZE / 2 };
    cursor = arrow && cursor ? { x: inside(from.x + arrow.x), y: inside(from.y + arrow.y) } : from;
    if (!arrow || event.shiftKey) {
      sketch.stroke(from, cursor, tool);
      onStroke();
    }
    showSketch();
  });
  canvas.addEventListener("blur", () => {
    cursor = null;
    showSketch();
  });
}

function wireTools(): void {
  const choices: [string, Tool][] = [["Pen", "pen"], ["Eraser", "eraser"], ...Object.entries(COLORS)];
  const buttons = choices.map(([name, choice]) => {
    const button = make("button", { type: "button" });
    if (typeof choice === "string") button.textContent = name;
    else {
      button.className = "swatch";
      button.title = name;
      button.style.backgroundColor = `rgb(${choice.join(" ")})`;
      button.setAttribute("aria-label", name);
    }
    button.setAttribute("aria-pressed", `${choice === tool}`);
    button.addEventListener("click", () => {
      tool = choice;
      for (const one of buttons) one.setAttribute("aria-pressed", `${one === button}`);
    });
    return button;
  });
  tools.replaceChildren(...buttons);
}

async function drawSketch(draw: DrawSketch): Promise<void> {
  if (sketch.isEmpty) return;
  const drawn = await draw({ conditions: sketch.conditions(), scale: Number(strength.value) / 100 });
  if (!drawn || sketch.isEmpty) return;
  const { picture, prompt, seed } = drawn;
  show(result, picture.pixels);
  result.setAttribute("aria-label", `${prompt}, seed ${seed}, by the sketch`);
  save.disabled = false;
  save.dataset.name = fileName(`${prompt} sketch`, seed);
  time.textContent = formatMs(picture.milliseconds);
}

/**
 * Shows the section, and wires it.
 *
 * @param run runs a job that draws.
 * @returns a job that draws the sketch anew, if there is one.
 */
export function wireSketching(
  run: (job: (draw: DrawSketch) => Promise<void>) => void,
): (draw: DrawSketch) => Promise<void> {
  const onStroke = () => {
    showSketch();
    run(drawSketch);
  };
  wireTools();
  wirePointer(onStroke);
  wireKeyboard(onStroke);
  strength.addEventListener("input", () => run(drawSketch));
  clear.addEventListener("click", () => {
    sketch.clear();
    showSketch();
    result.getContext("2d")?.clearRect(0, 0, SIZE, SIZE);
    result.setAttribute("aria-label", "Nothing drawn yet");
    save.disabled = true;
  });
  save.addEventListener("click", () => savePng([canvas, result], save.dataset.name as string));
  section.hidden = false;
  showSketch();
  return drawSketch;
}
