/** Keeps the times of the last pictures of each model, and writes them down. */

const KEPT = 30;

/** Returns the middle of numbers, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = Math.floor(sorted.length / 2);
  const [low, high] = [sorted[sorted.length % 2 ? half : half - 1], sorted[half]] as [number, number];
  return (low + high) / 2;
}

/** Writes milliseconds with three digits. */
export function formatMs(milliseconds: number): string {
  return `${milliseconds < 100 ? milliseconds.toPrecision(3) : Math.round(milliseconds)} ms`;
}

export class Timings {
  private readonly byModel = new Map<string, number[]>();

  add(model: string, milliseconds: number): void {
    this.byModel.set(model, [...(this.byModel.get(model) ?? []), milliseconds].slice(-KEPT));
  }

  /** Returns the median of a model's last pictures, and their number. */
  of(model: string): { medianMs: number; runs: number } | null {
    const times = this.byModel.get(model);
    return times ? { medianMs: median(times), runs: times.length } : null;
  }

  /** Writes the times of all models in one line, with the backend and the browser that they hold for. */
  line(backend: string, browser: string, cores: number): string {
    const models = [...this.byModel.keys()].map((model) => {
      const { medianMs, runs } = this.of(model) as { medianMs: number; runs: number };
      return `${model} ${formatMs(medianMs)} (median of ${runs})`;
    });
    return `mobilediff: ${models.join(", ")}; ${backend}; ${cores} cores; ${browser}`;
  }
}
