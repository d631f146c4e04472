import { join } from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { siteFiles } from "../build/site";
import { Engine, type Progress } from "../src/engine";
import { startRuntime } from "../src/runtime";
import { copyExported } from "./exported";

vi.mock("../src/runtime", () => ({ startRuntime: vi.fn(), threadCount: () => 1 }));

const BASE = "https://example.org/";
const site = siteFiles({ models: join(copyExported(), ".."), selfTests: "self-test", results: "../docs/results.json" });
const catalog = JSON.parse(site.get("catalog.json") as string);

afterEach(() => vi.unstubAllGlobals());

/** Serves the site to a browser that has WebGPU. */
function serve(): void {
  vi.stubGlobal("fetch", async (url: URL) => new Response(site.get(url.pathname.slice(1)) as BodyInit));
  vi.stubGlobal("isSecureContext", true);
  vi.stubGlobal("navigator", { gpu: { requestAdapter: async () => ({}) } });
  vi.stubGlobal("WebAssembly", Object.assign(Object.create(WebAssembly), { Suspending: class {} }));
}

/** Draws the picture of the self-test, whatever goes in. */
async function drawSelfTest() {
  const bytes = Uint8Array.from(atob(catalog.models[0].selfTest.pixels), (character) => character.charCodeAt(0));
  const area = bytes.length / 3;
  const data = Float32Array.from(bytes, (_, i) => (bytes[3 * (i % area) + Math.floor(i / area)] as number) / 127.5 - 1);
  return { images: { data, shape: [1, 3, 32, 32] } };
}

test("a runtime of WebGPU that does not start leaves the models to WebAssembly", async () => {
  serve();
  vi.mocked(startRuntime).mockImplementation(async (backend, download) => {
    await download;
    if (backend === "webgpu") throw new Error("no module");
    return async () => drawSelfTest;
  });
  const engine = new Engine(BASE, () => {});
  const started = await engine.start("auto", null);
  expect([started.backend, started.refused]).toEqual(["wasm", "no module"]);
  expect((await engine.draw("student-1step", { noun: "cat" }, 3)).pixels.length).toBe(4 * 32 * 32);
});

test("no more is downloaded than is announced, at the start and for later visits", async () => {
  serve();
  vi.mocked(startRuntime).mockImplementation(async (_, download) => {
    await download;
    return async () => drawSelfTest;
  });
  const reports: Progress[] = [];
  const engine = new Engine(BASE, (progress) => reports.push(progress));
  await engine.start("wasm", null);
  expect(reports.at(-1)?.loaded).toBe(reports.at(-1)?.total);
  const atStart = reports.length;
  await engine.keepForOffline("student-1step");
  expect(reports.length).toBeGreaterThan(atStart);
  expect(reports[atStart]?.loaded).toBeLessThan(reports[atStart]?.total as number);
  expect(reports.at(-1)?.loaded).toBe(reports.at(-1)?.total);
  expect(reports.filter(({ loaded, total }) => loaded > total)).toEqual([]);
});

test("a browser that has no room for the files draws, and says that it cannot keep them", async () => {
  serve();
  vi.mocked(startRuntime).mockImplementation(async (_, download) => {
    await download;
    return async () => drawSelfTest;
  });
  const put = async () => {
    throw new Error("the quota has been exceeded");
  };
  vi.stubGlobal("caches", { open: async () => ({ match: async () => undefined, put }) });
  const engine = new Engine(BASE, () => {});
  await engine.start("wasm", null);
  expect((await engine.draw("student-1step", { noun: "cat" }, 3)).pixels.length).toBe(4 * 32 * 32);
  await expect(engine.keepForOffline("student-1step")).rejects.toThrow("cannot keep the files for the next visit: the quota");
});

test("a catalogue that is none is refused by its name", async () => {
  vi.stubGlobal("fetch", async () => new Response("<!doctype html>"));
  await expect(new Engine(BASE, () => {}).start("wasm", null)).rejects.toThrow("catalog.json is damaged: it is no JSON");
});
