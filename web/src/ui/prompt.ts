/** Reads what a visitor typed: a known noun, or a prompt for the text encoder. */

import type { Text } from "../engine";

/** The classes of CIFAR-10, each one of the known nouns. */
export const CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/** Takes exactly a noun for that noun, and anything else for a prompt as it stands. */
export function readPrompt(typed: string, nouns: readonly string[]): Text {
  const noun = typed.trim().toLowerCase();
  return nouns.includes(noun) ? { noun } : { prompt: typed };
}

/** Fills a template with a noun and its article. */
export function caption(noun: string, template: string): string {
  const article = "aeiou".includes(noun[0] as string) ? "an" : "a";
  return template.replace("{article}", article).replace("{noun}", noun);
}

/** Lists a noun's forms, singular and plural. */
function forms(noun: string): string[] {
  return [noun, `${noun}s`, `${noun}es`, ...(noun.endsWith("y") ? [`${noun.slice(0, -1)}ies`] : [])];
}

/** Says how a prompt is read, and whether it names something that the models know. */
export function describeReading(text: Text, nouns: readonly string[], template: string): string {
  if ("noun" in text) return `Read as “${caption(text.noun, template)}”.`;
  if (!("prompt" in text)) return "";
  const words = ` ${text.prompt.toLowerCase().match(/[\p{L}\p{N}]+/gu)?.join(" ") ?? ""} `;
  const isKnown = nouns.some((noun) => forms(noun).some((form) => words.includes(` ${form} `)));
  return isKnown
    ? "Read as typed, by the text encoder."
    : `Read as typed. It names none of the ${nouns.length} nouns that the models know, so they may draw anything.`;
}
