/** Draws pictures with the models of a site: downloads, backend, text and sampling, behind one object. */

import { bytesOf, chooseBackend, largestDifference, type Preference, probeWebGPU, Refusal } from "./backend";
import { type Backend, CATALOG, type Catalog, type CatalogModel } from "./catalog";
import { FileStore, fetchText } from "./files";
import { type FileEntry, fileEntry, type GraphName, graphEntry, MANIFEST, type Manifest, parseJson, parseManifest } from "./manifest";
import { type Embedding, NounTable } from "./nouns";
import { type OpenGraph, type RunGraph, startRuntime, threadCount } from "./runtime";
import { blend, type Control, draw, output, toPixels } from "./sampler";
import { joinConditions } from "./sketch";
import { PromptTokenizer } from "./tokenizer";

/** The difference, of 255, that rounding may make to PyTorch's picture. */
const ACCEPTED_DIFFERENCE = 2;

const TOKENIZER = ["tokenizer/tokenizer.json", "tokenizer/tokenizer_config.json"];

/** A known noun, which the noun table has, a prompt for the text encoder, or a blend of two texts. */
export type Text = { noun: string } | { prompt: string } | { from: Text; to: Text; share: number };

export interface Progress {
  loaded: number;
  total: number;
}

export interface Started {
  catalog: Catalog;
  nouns: readonly string[];
  template: string;
  backend: Backend;
  threads: number;
  /** Why WebGPU is not used, if it was tried. */
  refused: string | null;
}

export interface Picture {
  pixels: Uint8ClampedArray<ArrayBuffer>;
  milliseconds: number;
}

interface Model {
  manifest: Manifest;
  graphs: Map<GraphName, RunGraph>;
  nouns: NounTable;
  texts: Map<string, Embedding>;
  /** The picture of the self-test, until a visitor asks for the same. */
  tested?: Picture;
}

export class Engine {
  private readonly files: FileStore;
  private readonly models = new Map<string, Promise<Model>>();
  private catalog!: Catalog;
  private backend!: Backend;
  private runtime!: Promise<OpenGraph>;
  private progress: Progress = { loaded: 0, total: 0 };
  private downloads = 0;

  /**
   * @param base address of the site.
   * @param report is told how much of what has to be downloaded is there.
   */
  constructor(
    private readonly base: string,
    private readonly report: (progress: Progress) => void,
  ) {
    this.files = new FileStore(base);
  }

  /** Reads the catalogue, and opens the backend and a model with which that backend passes its self-test. */
  async start(preference: Preference, first: string | null): Promise<Started> {
    performance.mark("worker");
    this.catalog = parseJson(await fetchText(this.base, CATALOG), CATALOG) as Catalog;
    performance.mark("catalog");
    const name = this.catalog.models.find((model) => model.name === first)?.name ?? this.catalog.models[0]?.name;
    if (!name) throw new Error(`${CATALOG} lists no model`);
    const { backend, opened, refused } = await chooseBackend(preference, async (backend) => {
      if (backend === "webgpu") await probeWebGPU();
      this.models.clear(); // those of a backend that failed wait for its runtime
      this.backend = backend;
      this.runtime = this.startRuntime(backend);
      const [model] = await Promise.all([this.load(name), this.runtime]);
      return model;
    });
    const { template, names } = opened.manifest.nouns;
    const threads = backend === "wasm" ? threadCount() : 1;
    return { catalog: this.catalog, nouns: names, template, backend, threads, refused };
  }

  /**
   * Draws the picture of a text and a seed, and times it without the text's encoding.
   *
   * @param control of a model that draws by a sketch.
   */
  async draw(name: string, text: Text, seed: number, control?: Control): Promise<Picture> {
    const model = await this.load(name);
    const { selfTest } = this.entry(name);
    if (!control && model.tested && "noun" in text && text.noun === selfTest.noun && seed === selfTest.seed) {
      const { tested } = model;
      delete model.tested;
      return tested;
    }
    return this.picture(model, await this.embed(model, text), seed, control);
  }

  /** Downloads what free text and a next visit without a connection need. */
  async keepForOffline(name: string): Promise<void> {
    const { manifest } = await this.load(name);
    await this.files.keep();
    await this.download(await this.findMissing(manifest.files));
    await this.files.keep();
    await this.files.prune(Object.keys(this.catalog.packedBytes));
  }

  private async startRuntime(backend: Backend): Promise<OpenGraph> {
    const runtime = this.catalog.runtimes[backend];
    const content = this.download([runtime]).then(([binary]) => {
      performance.mark("runtime");
      return binary as Uint8Array<ArrayBuffer>;
    });
    return startRuntime(backend, content);
  }

  private load(name: string): Promise<Model> {
    const found = this.models.get(name);
    if (found) return found;
    const model = this.open(name);
    this.models.set(name, model);
    model.catch(() => {
      if (this.models.get(name) === model) this.models.delete(name); // the next attempt downloads again
    });
    return model;
  }

  private async open(name: string): Promise<Model> {
    const folder = `models/${name}`;
    const manifest = parseManifest(await fetchText(this.base, `${folder}/${MANIFEST}`), folder);
    const drawing: GraphName[] = manifest.fused ? ["image"] : ["network", "decoder"];
    const paths = [...drawing.map((graph) => graphEntry(manifest, graph).path), manifest.nouns.path];
    const [contents, openGraph] = await Promise.all([this.getAll(manifest, paths), this.runtime]);
    performance.mark("model");
    const graphs = new Map<GraphName, RunGraph>();
    for (const [index, graph] of drawing.entries()) {
      graphs.set(graph, await openGraph(contents[index] as Uint8Array));
    }
    performance.mark("opened");
    const nouns = new NounTable(contents.at(-1) as Uint8Array, manifest.nouns.names);
    const model: Model = { manifest, graphs, nouns, texts: new Map() };
    model.tested = await this.test(model, this.entry(name));
    performance.mark("tested");
    return model;
  }

  private entry(name: string): CatalogModel {
    return this.catalog.models.find((model) => model.name === name) as CatalogModel;
  }

  /** Draws the picture of the self-test, and refuses the backend if it is another. */
  private async test(model: Model, { name, selfTest }: CatalogModel): Promise<Picture> {
    const { noun, seed, sketch } = selfTest;
    const conditions = sketch && joinConditions(bytesOf(sketch.edges), bytesOf(sketch.colors));
    const control = conditions && { conditions, scale: 1 };
    const picture = await this.picture(model, model.nouns.embedding(noun), seed, control);
    const difference = largestDifference(picture.pixels, selfTest);
    const accepted = Math.max(ACCEPTED_DIFFERENCE, Math.ceil(127.5 * model.manifest.parity.largest_with_noun_table));
    if (difference > accepted) {
      const title = this.backend === "webgpu" ? "WebGPU" : "WebAssembly";
      throw new Refusal(
        `${title} draws the test picture of ${name} wrongly: ${difference} of 255 off, accepted is ${accepted}`,
      );
    }
    return picture;
  }

  private async picture(model: Model, embedding: Embedding, seed: number, control?: Control): Promise<Picture> {
    const run = (graph: GraphName, inputs: Parameters<RunGraph>[0]) => (model.graphs.get(graph) as RunGraph)(inputs);
    const start = performance.now();
    const pixels = toPixels(await draw(run, model.manifest, embedding, seed, control));
    return { pixels, milliseconds: performance.now() - start };
  }

  private async embed(model: Model, text: Text): Promise<Embedding> {
    if ("noun" in text) return model.nouns.embedding(text.noun);
    if ("from" in text) {
      return blend(await this.embed(model, text.from), await this.embed(model, text.to), text.share);
    }
    const kept = model.texts.get(text.prompt);
    if (kept) return kept;
    const embedding = await this.encode(model, text.prompt);
    model.texts.set(text.prompt, embedding);
    return embedding;
  }

  private async encode({ manifest, graphs }: Model, prompt: string): Promise<Embedding> {
    const { path } = graphEntry(manifest, "text_encoder");
    const files = await this.getAll(manifest, [...TOKENIZER, path]);
    const [file, config] = files.slice(0, 2).map((content) => JSON.parse(new TextDecoder().decode(content)));
    const ids = new PromptTokenizer(file, config, manifest.max_tokens).encode(prompt);
    const encoder = graphs.get("text_encoder") ?? (await (await this.runtime)(files[2] as Uint8Array));
    graphs.set("text_encoder", encoder);
    const outputs = await encoder({ input_ids: { data: ids, shape: [1, ids.length] } });
    return { hiddenStates: output(outputs, "hidden_states"), pooled: output(outputs, "pooled") };
  }

  /** Returns the contents of files of a model, side by side. */
  private getAll(manifest: Manifest, paths: readonly string[]): Promise<Uint8Array[]> {
    return this.download(paths.map((path) => fileEntry(manifest, path)));
  }

  /** Returns the contents of files, and reports progress, which starts at zero when nothing else is being downloaded. */
  private async download(entries: readonly FileEntry[]): Promise<Uint8Array<ArrayBuffer>[]> {
    if (this.downloads === 0) this.progress = { loaded: 0, total: 0 };
    const progress = this.progress;
    this.downloads += 1;
    try {
      const advance = (count: number) => {
        progress.loaded += count;
        this.report({ ...progress });
      };
      const start = ({ sha256 }: FileEntry) => {
        progress.total += this.catalog.packedBytes[sha256] as number;
        return advance;
      };
      return await Promise.all(entries.map((entry) => this.files.get(entry, () => start(entry))));
    } finally {
      this.downloads -= 1;
    }
  }

  /** Lists those files that are not kept. */
  private async findMissing(entries: readonly FileEntry[]): Promise<FileEntry[]> {
    const kept = await Promise.all(entries.map((entry) => this.files.has(entry)));
    return entries.filter((_, index) => !kept[index]);
  }
}
