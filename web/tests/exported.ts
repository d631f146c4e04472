/** Copies of the tracked export, for tests to damage. */

import { cpSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const TRACKED = "models/student-1step";

export function manifestContent(): Record<string, any> {
  return JSON.parse(readFileSync(join(TRACKED, "manifest.json"), "utf-8"));
}

/** Changes the manifest to that of a folder with a control network. */
export function withControl(manifest: Record<string, any>): void {
  manifest.graphs[1].inputs.push(
    { name: "controlnet_cond", dtype: "float32", shape: [1, 6, 32, 32] },
    { name: "conditioning_scale", dtype: "float32", shape: [1] },
  );
}

/** Copies the export, with its manifest changed. */
export function copyExported(change: (manifest: Record<string, any>) => void = () => {}): string {
  const folder = join(mkdtempSync(join(tmpdir(), "export-")), "student-1step");
  cpSync(TRACKED, folder, { recursive: true });
  const manifest = manifestContent();
  change(manifest);
  writeFileSync(join(folder, "manifest.json"), JSON.stringify(manifest));
  return folder;
}
