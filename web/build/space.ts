/** Writes the README of the built page, which makes its folder a static Space of Hugging Face. */

import isolated from "../headers.json";
import type { Catalog } from "../src/catalog";
import type { FileEntry } from "../src/manifest";

/** Writes the front matter that Spaces reads, and what the folder holds. */
export function spaceReadme(catalog: Catalog): string {
  const megabytes = ({ sha256 }: FileEntry) => ((catalog.packedBytes[sha256] as number) / 1e6).toFixed(1);
  const headers = Object.entries(isolated).map(([name, value]) => `  ${name}: ${value}`);
  const rows = catalog.models.map(({ name, steps }) => `| ${name} | ${steps} |`);
  return `---
title: mobilediff on your device
emoji: 🚒
colorFrom: red
colorTo: blue
sdk: static
license: mit
short_description: Text to picture in one step, in your own browser
custom_headers:
${headers.join("\n")}
---

# mobilediff on your device

A page that draws 32 x 32 pictures from a prompt on the visitor's own device, by onnxruntime-web ${catalog.onnxruntime}. Any
server of static files will do; with the headers above WebAssembly has several threads.

| model | steps |
|---|---:|
${rows.join("\n")}

Beside a model onnxruntime comes over the wire: ${megabytes(catalog.runtimes.wasm)} MB, or \
${megabytes(catalog.runtimes.webgpu)} MB with WebGPU.
`;
}
