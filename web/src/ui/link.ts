/** Keeps the choices of a visitor in the fragment of the address, which browsers do not send to the server. */

import type { Preference } from "../backend";
import { MAX_SEED } from "../noise";

export const MAX_COUNT = 16;

export interface Choices {
  prompt: string;
  seed: number;
  count: number;
  models: string[];
  preference: Preference;
}

const DEFAULTS: Choices = { prompt: "fire truck", seed: 7, count: 4, models: [], preference: "auto" };

/** Reads a whole number within bounds, else takes the default. */
function readNumber(text: string | null, least: number, most: number, otherwise: number): number {
  const value = Number(text);
  return text?.trim() && Number.isInteger(value) && value >= least && value <= most ? value : otherwise;
}

/** Reads the choices of a fragment, "#" included; what is missing or not accepted there is the default. */
export function readChoices(fragment: string): Choices {
  const fields = new URLSearchParams(fragment.slice(1));
  const preference = fields.get("backend");
  return {
    prompt: fields.get("prompt") ?? DEFAULTS.prompt,
    seed: readNumber(fields.get("seed"), 0, MAX_SEED, DEFAULTS.seed),
    count: readNumber(fields.get("count"), 1, MAX_COUNT, DEFAULTS.count),
    models: fields.get("models")?.split(",").filter(Boolean) ?? [],
    preference: preference === "webgpu" || preference === "wasm" ? preference : DEFAULTS.preference,
  };
}

/** Writes choices as the fragment of an address, which `readChoices` reads again. */
export function writeChoices(choices: Choices): string {
  const fields = new URLSearchParams({ prompt: choices.prompt, seed: `${choices.seed}`, count: `${choices.count}` });
  if (choices.models.length) fields.set("models", choices.models.join(","));
  if (choices.preference !== "auto") fields.set("backend", choices.preference);
  return `#${fields}`;
}
