/** Turns free text into the token ids that the Python pipeline gives its text encoder. */

import { Tokenizer } from "@huggingface/tokenizers";

/** Drops invisible characters and the tokenizer's own marks, as `mobilediff.sampling.prompts.readable` does. */
function readable(prompt: string, marks: readonly string[]): string {
  if (/\p{Surrogate}/u.test(prompt)) throw new Error("The prompt holds half of a character. Accepted: whole ones.");
  return marks.reduce((text, mark) => text.replaceAll(mark, " "), prompt.replaceAll(/\p{Cf}/gu, ""));
}

export class PromptTokenizer {
  private readonly tokenizer: Tokenizer;
  private readonly marks: string[];
  private readonly padding: number;

  /**
   * @param file content of `tokenizer.json`.
   * @param config content of `tokenizer_config.json`.
   * @param maxTokens of a prompt, start and end included.
   */
  constructor(
    file: { added_tokens: { id: number; content: string; special: boolean }[] },
    config: { pad_token: string },
    private readonly maxTokens: number,
  ) {
    this.tokenizer = new Tokenizer(file, config);
    this.marks = file.added_tokens.filter((token) => token.special).map((token) => token.content);
    this.padding = this.tokenizer.token_to_id(config.pad_token) as number;
  }

  /**
   * Returns the ids of a prompt, filled up to `maxTokens`.
   *
   * @throws Error where the prompt has more tokens, or half of a surrogate pair.
   */
  encode(prompt: string): Int32Array {
    const { ids } = this.tokenizer.encode(readable(prompt, this.marks));
    if (ids.length > this.maxTokens) {
      throw new Error(
        `The prompt has ${ids.length} tokens. Accepted are ${this.maxTokens}, start and end included: shorten it.`,
      );
    }
    return Int32Array.from({ length: this.maxTokens }, (_, index) => ids[index] ?? this.padding);
  }
}
