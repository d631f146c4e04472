import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { PromptTokenizer } from "../src/tokenizer";
import fixture from "./fixtures/tokens.json";

const read = (file: string) => JSON.parse(readFileSync(`models/student-1step/tokenizer/${file}.json`, "utf-8"));
const MAX_TOKENS = 16;
const tokenizer = new PromptTokenizer(read("tokenizer"), read("tokenizer_config"), MAX_TOKENS);
const padding = 1;

test("500 prompts have Python's ids", () => {
  const prompts = Object.entries(fixture);
  expect(prompts).toHaveLength(500);
  for (const [prompt, ids] of prompts) {
    if (ids.length > MAX_TOKENS) {
      expect(() => tokenizer.encode(prompt), prompt).toThrow(`The prompt has ${ids.length} tokens`);
    } else {
      const filled = [...ids, ...Array(MAX_TOKENS - ids.length).fill(padding)];
      expect([...tokenizer.encode(prompt)], prompt).toEqual(filled);
    }
  }
});

test("the longest prompt that fits is taken, a token more is refused", () => {
  const longest = "cat ".repeat(14);
  expect(tokenizer.encode(longest)).toHaveLength(MAX_TOKENS);
  expect(() => tokenizer.encode(`${longest}cat`)).toThrow("has 17 tokens. Accepted are 16");
});

test("half of a surrogate pair is refused", () => {
  expect(() => tokenizer.encode("a \ud83d cat")).toThrow("half of a character");
});
