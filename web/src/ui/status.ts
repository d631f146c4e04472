/** Says what the page is doing: backend, download, errors. */

import type { Progress, Started } from "../engine";
import { byId } from "./elements";

const backend = byId("backend", HTMLParagraphElement);
const loading = byId("loading", HTMLParagraphElement);
const progressBar = byId("progress", HTMLProgressElement);
const errorBox = byId("error", HTMLDivElement);
const retry = byId("retry", HTMLButtonElement);
const errorText = byId("error-text", HTMLParagraphElement);

/** Names the backend with its threads. */
export function backendName({ backend, threads }: Started): string {
  if (backend === "webgpu") return "WebGPU";
  return `WebAssembly, ${threads === 1 ? "1 thread" : `${threads} threads`}`;
}

/** Says why it is that backend. */
export function backendReason({ backend, threads, refused }: Started): string {
  if (backend === "webgpu") return "its test picture is PyTorch’s";
  const isolated = globalThis.crossOriginIsolated;
  const why = threads > 1 || isolated ? null : "more threads need a cross-origin isolated page";
  return [refused, why].filter(Boolean).join("; ") || "its test picture is PyTorch’s";
}

/** Says which backend draws, and that no download is under way. */
export function showBackend(started: Started): void {
  backend.textContent = `${backendName(started)}: ${backendReason(started)}.`;
  hideProgress();
}

function hideProgress(): void {
  loading.textContent = "";
  progressBar.hidden = true;
}

/** Shows a download in the place of the backend, which keeps its height: nothing below moves, such as a sketch. */
export function showProgress({ loaded, total }: Progress): void {
  const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);
  if (loaded >= total) return hideProgress();
  progressBar.hidden = false;
  progressBar.max = total;
  progressBar.value = loaded;
  loading.textContent = `Loading: ${megabytes(loaded)} of ${megabytes(total)} MB`;
}

/** Shows an error, and a button that reloads the page where that is what can help. */
export function showError(error: unknown, canReload: boolean): void {
  errorText.textContent = error instanceof Error ? error.message : `${error}`;
  retry.hidden = !canReload;
  errorBox.hidden = false;
  hideProgress();
}

export function hideError(): void {
  errorBox.hidden = true;
}

retry.addEventListener("click", () => location.reload());
