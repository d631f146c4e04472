/** Downloads the large files, checks their content, and keeps them for the next visit. */

import { sha256 } from "@noble/hashes/sha2.js";
import { bytesToHex } from "@noble/hashes/utils.js";
import { packedPath } from "./catalog";
import type { FileEntry } from "./manifest";

const CACHE = "mobilediff-files";

/**
 * Requests a file of the site.
 *
 * @param name for errors.
 * @throws Error where it cannot be had.
 */
async function request(url: URL, name: string): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url);
  } catch {
    throw new Error(`${name} cannot be downloaded: is there a connection?`);
  }
  if (!response.ok) throw new Error(`${name} is missing on the server (HTTP ${response.status})`);
  return response;
}

/** Returns the text of a small file by its path in the site. */
export async function fetchText(base: string, path: string): Promise<string> {
  const response = await request(new URL(path, base), path);
  return response.text();
}

/** Hashes by the browser where it does: for pages of https and of the own machine. */
async function hash(content: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = crypto.subtle ? new Uint8Array(await crypto.subtle.digest("SHA-256", content)) : sha256(content);
  return bytesToHex(digest);
}

async function isWhole(content: Uint8Array<ArrayBuffer>, entry: FileEntry): Promise<boolean> {
  return content.length === entry.bytes && (await hash(content)) === entry.sha256;
}

export class FileStore {
  private opened: Promise<Cache | undefined> | undefined;
  private writes: Promise<unknown> = Promise.resolve();
  private startWriting!: () => void;
  /** Until `keep` is first called, so that writing does not take time from the first picture. */
  private readonly mayWrite = new Promise<void>((resolve) => {
    this.startWriting = resolve;
  });

  /** @param base address of the site. */
  constructor(private readonly base: string) {}

  /**
   * Returns the content of a file, from an earlier visit if it is still whole.
   *
   * @param onDownload is called where it is not kept, and what it returns is told of bytes that came over the wire.
   * @throws Error where it is missing, or its content is not that of `entry`.
   */
  async get(entry: FileEntry, onDownload: () => (count: number) => void): Promise<Uint8Array<ArrayBuffer>> {
    const url = this.url(entry);
    const cache = await this.openCache();
    const kept = await cache?.match(url);
    if (kept) {
      const content = new Uint8Array(await kept.arrayBuffer());
      if (await isWhole(content, entry)) return content;
    }
    const content = await this.download(url, entry.path, onDownload());
    if (!(await isWhole(content, entry))) {
      throw new Error(`${entry.path} is damaged: it is not the file that the manifest describes`);
    }
    const write = this.mayWrite.then(() => cache?.put(url, new Response(content)));
    this.writes = Promise.all([this.writes, write]);
    this.writes.catch(() => {}); // `keep` reports it
    return content;
  }

  /** Waits until what was downloaded is kept, and throws an error where the browser has no room for it. */
  async keep(): Promise<void> {
    this.startWriting();
    try {
      await this.writes;
    } catch (error) {
      throw new Error(`This browser cannot keep the files for the next visit: ${(error as Error).message}`);
    }
  }

  /** Returns whether a file is kept. */
  async has(entry: FileEntry): Promise<boolean> {
    const cache = await this.openCache();
    return Boolean(await cache?.match(this.url(entry)));
  }

  /** Drops kept files but those of these hashes. */
  async prune(hashes: readonly string[]): Promise<void> {
    const cache = await this.openCache();
    const wanted = new Set(hashes.map((sha256) => new URL(packedPath(sha256), this.base).href));
    for (const { url } of (await cache?.keys()) ?? []) {
      if (url.startsWith(this.base) && !wanted.has(url)) await cache?.delete(url);
    }
  }

  /** Opens what is kept from earlier visits; browsers keep files for pages of https and of the own machine alone. */
  private async openCache(): Promise<Cache | undefined> {
    this.opened ??= globalThis.caches?.open(CACHE);
    return this.opened;
  }

  private url(entry: FileEntry): URL {
    return new URL(packedPath(entry.sha256), this.base);
  }

  private async download(
    url: URL,
    name: string,
    onBytes: (count: number) => void,
  ): Promise<Uint8Array<ArrayBuffer>> {
    const { body } = await request(url, name);
    const counted = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>({
      transform: (chunk, controller) => {
        onBytes(chunk.length);
        controller.enqueue(chunk);
      },
    });
    const unpacked = (body as ReadableStream).pipeThrough(counted).pipeThrough(new DecompressionStream("gzip"));
    try {
      return new Uint8Array(await new Response(unpacked).arrayBuffer());
    } catch {
      throw new Error(`${name} is damaged or was cut off`);
    }
  }
}
