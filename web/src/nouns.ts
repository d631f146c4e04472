/** Reads `nouns.safetensors`, the text embeddings of the known nouns, see `mobilediff/ondevice/nouns.py`. */

/** The text of a picture as the networks take it: hidden states [L, D] and pooled [P], flat. */
export interface Embedding {
  hiddenStates: Float32Array;
  pooled: Float32Array;
}

interface TensorHeader {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

const ARRAYS = { F32: Float32Array, I16: Int16Array, I8: Int8Array } as const;

/** Reads the tensors of a safetensors file by name, each with its shape. */
function readSafetensors(file: Uint8Array) {
  const start = 8 + Number(new DataView(file.buffer, file.byteOffset).getBigUint64(0, true));
  const header: Record<string, TensorHeader> = JSON.parse(new TextDecoder().decode(file.subarray(8, start)));
  return (name: string) => {
    const entry = header[name];
    if (!entry) return undefined;
    const [from, to] = entry.data_offsets;
    const bytes = file.slice(start + from, start + to);
    return { shape: entry.shape, values: new ARRAYS[entry.dtype as keyof typeof ARRAYS](bytes.buffer) };
  };
}

export class NounTable {
  private readonly tensor: ReturnType<typeof readSafetensors>;

  constructor(
    file: Uint8Array,
    private readonly names: readonly string[],
  ) {
    this.tensor = readSafetensors(file);
  }

  /** Returns the embedding of a noun by its name. */
  embedding(noun: string): Embedding {
    const row = this.names.indexOf(noun);
    if (row < 0) throw new Error(`${JSON.stringify(noun)} is none of the ${this.names.length} known nouns`);
    const index = this.need("index");
    const length = index.shape[1] as number;
    const width = this.need("rows").shape[1] as number;
    const hiddenStates = new Float32Array(length * width);
    for (let token = 0; token < length; token++) {
      hiddenStates.set(this.row("rows", index.values[row * length + token] as number), token * width);
    }
    return { hiddenStates, pooled: this.row("pooled", row) };
  }

  /** Returns a row of a table, times its scale where the table holds 8-bit integers. */
  private row(name: "rows" | "pooled", row: number): Float32Array {
    const { shape, values } = this.need(name);
    const width = shape[1] as number;
    const scale = this.tensor(`${name}_scale`)?.values[row] ?? 1;
    return Float32Array.from(values.subarray(row * width, (row + 1) * width), (value) => value * scale);
  }

  private need(name: string) {
    const found = this.tensor(name);
    if (!found) throw new Error(`nouns.safetensors has no tensor ${name}`);
    return found;
  }
}
