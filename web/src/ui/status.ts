/** Says what the page is doing: backend, download, errors. */

import type { Progress, Started } from "../engine";
import { byId } from "./elements";

const backend = byId("backend", HTMLParagraphElement);
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

export function showBackend(started: Started): void {
  backend.textContent = `${backendName(started)}: ${backendReason(started)}.`;
}

export function showProgress({ loaded, total }: Progress): void {
  const megabytes = (bytes: number) => (bytes / 1e6).toFixed(1);
  const isLoading = loaded < total;
  progressBar.hidden = !isLoading;
  progressBar.max = total;
  progressBar.value = loaded;
  if (isLoading) backend.textContent = `Loading: ${megabytes(loaded)} of ${megabytes(total)} MB`;
}

/** Shows an error, and a button that reloads the page where that is what can help. */
export function showError(error: unknown, canReload: boolean): void {
  errorText.textContent = error instanceof Error ? error.message : `${error}`;
  retry.hidden = !canReload;
  errorBox.hidden = false;
  progressBar.hidden = true;
}

export function hideError(): void {
  errorBox.hidden = true;
}

retry.addEventListener("click", () => location.reload());
