import { expect, test } from "vitest";
import { normalNoise, normalQuantile, philox } from "../src/noise";
import fixture from "./fixtures/noise.json";

const ONES = 0xffffffff;

// The vectors that Random123 publishes for philox4x32-10.
test.each([
  [[0, 0, 0, 0], [0, 0], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]],
  [[ONES, ONES, ONES, ONES], [ONES, ONES], [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]],
  [
    [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
    [0xa4093822, 0x299f31d0],
    [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
  ],
] as const)("Philox gives the published integers of counter %j", (counter, key, expected) => {
  expect(philox(counter, key)).toEqual(expected);
});

test.each(Object.entries(fixture.seeds))("the noise of seed %s is Python's, bit by bit", (seed, base64) => {
  const bytes = Uint8Array.from(Buffer.from(base64, "base64"));
  expect(new Uint8Array(normalNoise(Number(seed), bytes.length / 4).buffer)).toEqual(bytes);
});

test("quantiles are Python's, bit by bit", () => {
  for (const [uniform, value] of fixture.quantiles as [number, number][]) expect(normalQuantile(uniform)).toBe(value);
});
