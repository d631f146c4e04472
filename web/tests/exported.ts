/** Copies of the tracked export, for tests to damage. */

import { cpSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const TRACKED = "models/student-1step";

export function manifestContent(): Record<string, any> {
  return JSON.parse(readFileSync(join(TRACKED, "manifest.json"), "utf-8"));
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
