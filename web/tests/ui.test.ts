import { expect, test } from "vitest";
import { Latest } from "../src/ui/latest";
import { readChoices, writeChoices } from "../src/ui/link";
import { describeReading, readPrompt } from "../src/ui/prompt";
import { formatMs, median, Timings } from "../src/ui/timings";

test("a link holds the choices", () => {
  const models = ["student-1step", "student-8step"];
  const choices = { prompt: "a café & a cat=dog", seed: 4294967295, count: 16, models, preference: "wasm" as const };
  expect(readChoices(writeChoices(choices))).toEqual(choices);
});

test("a link keeps the choices from the server", () => {
  const { pathname, search } = new URL(writeChoices(readChoices("#prompt=a+secret")), "https://example.org/device/");
  expect([pathname, search]).toEqual(["/device/", ""]);
});

test.each(["#seed=-1", "#seed=4294967296", "#seed=1.5", "#seed=", "#seed=x"])("%s gives the default seed", (fragment) => {
  expect(readChoices(fragment).seed).toBe(readChoices("").seed);
});

test.each(["#count=0", "#count=17", "#backend=none"])("%s gives the defaults", (fragment) => {
  expect(readChoices(fragment)).toEqual(readChoices(""));
});

test("a noun is a noun however it is written, anything else is a prompt as it stands", () => {
  expect(readPrompt(" Fire Truck ", ["fire truck"])).toEqual({ noun: "fire truck" });
  expect(readPrompt("a fire truck ", ["fire truck"])).toEqual({ prompt: "a fire truck " });
});

test.each([
  [{ noun: "airplane" }, "Read as “a photo of an airplane”."],
  [{ prompt: "two Fire trucks!" }, "Read as typed, by the text encoder."],
  [{ prompt: "two ponies" }, "Read as typed, by the text encoder."],
  [{ prompt: "two pones" }, "It names none of the 3 nouns"],
  [{ prompt: "a unicorn" }, "It names none of the 3 nouns"],
  [{ prompt: "" }, "It names none of the 3 nouns"],
])("%j is described", (text, expected) => {
  const description = describeReading(text, ["fire truck", "airplane", "pony"], "a photo of {article} {noun}");
  expect(description).toContain(expected);
});

test("the median of an even number is the mean of the middle two", () => {
  expect(median([9, 1, 4])).toBe(4);
  expect(median([9, 1, 4, 2])).toBe(3);
});

test("times have three digits", () => {
  expect([1.2345, 12.345, 123.45, 1234.5].map(formatMs)).toEqual(["1.23 ms", "12.3 ms", "123 ms", "1235 ms"]);
});

test("the line of a result has the last thirty pictures' median of each model", () => {
  const timings = new Timings();
  for (let i = 0; i < 40; i++) timings.add("one", i < 10 ? 1000 : 5);
  timings.add("two", 20);
  expect(timings.line("WebAssembly, 1 thread", "a browser", 4)).toBe(
    "mobilediff: one 5.00 ms (median of 30), two 20.0 ms (median of 1); WebAssembly, 1 thread; 4 cores; a browser",
  );
});

test("of the jobs that wait, the newest alone runs", async () => {
  const [latest, done] = [new Latest(), [] as string[]];
  let release = () => {};
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  const first = latest.run(async () => {
    await gate;
    done.push(`first, outdated: ${latest.isOutdated}`);
  });
  void latest.run(async () => void done.push("second"));
  void latest.run(async () => void done.push("third"));
  release();
  await first;
  expect(done).toEqual(["first, outdated: true", "third"]);
});
