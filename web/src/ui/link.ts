/** Keeps the choices of a visitor in the address of the page, to share. */

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

/** Reads the choices of an address; what is missing or not accepted there is the default. */
export function readChoices(search: string): Choices {
  const query = new URLSearchParams(search);
  const preference = query.get("backend");
  return {
    prompt: query.get("prompt") ?? DEFAULTS.prompt,
    seed: readNumber(query.get("seed"), 0, MAX_SEED, DEFAULTS.seed),
    count: readNumber(query.get("count"), 1, MAX_COUNT, DEFAULTS.count),
    models: query.get("models")?.split(",").filter(Boolean) ?? [],
    preference: preference === "webgpu" || preference === "wasm" ? preference : DEFAULTS.preference,
  };
}

/** Writes choices as the query of an address, which `readChoices` reads again. */
export function writeChoices(choices: Choices): string {
  const query = new URLSearchParams({ prompt: choices.prompt, seed: `${choices.seed}`, count: `${choices.count}` });
  if (choices.models.length) query.set("models", choices.models.join(","));
  if (choices.preference !== "auto") query.set("backend", choices.preference);
  return `?${query}`;
}
