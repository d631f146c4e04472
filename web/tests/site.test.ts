import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { readExported, readSelfTest, serverTime, siteFiles } from "../build/site";
import { type Catalog, packedPath } from "../src/catalog";
import { parseManifest } from "../src/manifest";
import { copyExported, manifestContent, withControl } from "./exported";

const manifest = parseManifest(JSON.stringify(manifestContent()), "x");
const RESULTS = "../docs/results.json";

describe("an exported folder", () => {
  test("with a missing file is refused", () => {
    const folder = copyExported();
    rmSync(join(folder, "image.onnx"));
    expect(() => readExported(folder)).toThrow("image.onnx is missing, which manifest.json names");
  });

  test("with a truncated file is refused", () => {
    const folder = copyExported();
    writeFileSync(join(folder, "image.onnx"), "short");
    expect(() => readExported(folder)).toThrow(/image.onnx has 5 bytes, manifest.json says \d+/);
  });

  test("with another file of that size is refused", () => {
    const folder = copyExported();
    writeFileSync(join(folder, "nouns.safetensors"), new Uint8Array(632648));
    expect(() => readExported(folder)).toThrow("nouns.safetensors is not the file that manifest.json describes");
  });

  test("without a manifest is refused", () => {
    expect(() => readExported("src")).toThrow("src is no exported folder: it has no manifest.json");
  });
});

describe("the server's time", () => {
  const latency = { image: { median_ms: 8 }, protocol: { device_name: "a machine", threads: 2 } };
  const record = { model_sha256: manifest.model_sha256, size: { num_inference_steps: 1 }, latency };

  test("is that of the checkpoint and its steps", () => {
    const expected = { medianMs: 8, device: "a machine", threads: 2 };
    expect(serverTime({ records: { other: {}, one: record } }, manifest)).toEqual(expected);
  });

  test.each([
    ["another checkpoint", { ...record, model_sha256: "0" }],
    ["another number of steps", { ...record, size: { num_inference_steps: 2 } }],
    ["a checkpoint that was not timed", { ...record, latency: undefined }],
  ])("is not that of %s", (_, other) => {
    expect(serverTime({ records: { other } }, manifest)).toBeNull();
  });
});

test("a self-test of another checkpoint is refused", () => {
  const other = { ...manifest, model_sha256: "0".repeat(64) };
  expect(() => readSelfTest("self-test/student-1step.json", other)).toThrow("is of the checkpoint");
});

test("a model without a self-test is refused", () => {
  expect(() => readSelfTest("self-test/none.json", manifest)).toThrow("has no picture to test a backend with");
});

test("a self-test without a sketch is refused for a model that draws by one", () => {
  const content = manifestContent();
  withControl(content);
  const controlled = parseManifest(JSON.stringify(content), "x");
  expect(() => readSelfTest("self-test/student-1step.json", controlled)).toThrow("has no sketch, which student-1step");
  expect(readSelfTest("self-test/student-1step.json", manifest).sketch).toBeUndefined();
});

test("models without the one that is drawn with first are refused", () => {
  expect(() => siteFiles({ models: "src", selfTests: "self-test", results: RESULTS })).toThrow("src has no student-1step");
});

test("the site has every file of the catalogue, packed", () => {
  const folder = copyExported();
  const site = siteFiles({ models: join(folder, ".."), selfTests: "self-test", results: RESULTS });
  const catalog: Catalog = JSON.parse(site.get("catalog.json") as string);
  expect(catalog.models.map(({ name, controlled }) => [name, controlled])).toEqual([["student-1step", false]]);
  expect(catalog.models[0]?.server?.device).toContain("EPYC");
  for (const { bytes, sha256 } of [...manifest.files, ...Object.values(catalog.runtimes)]) {
    const packed = site.get(packedPath(sha256)) as Uint8Array;
    expect(packed.length).toBe(catalog.packedBytes[sha256]);
    expect(gunzipSync(packed).length).toBe(bytes);
  }
  expect(site.get("README.md")).toMatch(/^---\n[^#]*sdk: static\n[^#]*custom_headers:\n  cross-origin-embedder-policy: /);
});
