/** A visitor's sketch, lines and coarse colours, and the condition that a control network takes it as. */

/** Pixels of the lines along a side, and fields of the colours. */
export const SIZE = 32;
export const FIELDS = 8;
const PER_FIELD = SIZE / FIELDS;
const PLANES = 6;
const ERASED = 1;
const WHITE: Color = [255, 255, 255];

/** Red, green and blue, of 255. */
export type Color = readonly [number, number, number];

/** What a stroke leaves: a line, nothing, or a colour in the fields that it touches. */
export type Tool = "pen" | "eraser" | Color;

export interface Point {
  x: number;
  y: number;
}

/**
 * Joins edges and colours into a condition, as `MobileControlNet.join_conditions` does: planes of edges in [0, 1], of
 * colours in [-1, 1], and of whether either is given.
 *
 * @param edges bytes of SIZE x SIZE pixels, 255 on an edge, null where they are not given.
 * @param colors bytes of red, green and blue of FIELDS x FIELDS fields, null where they are not given.
 */
export function joinConditions(edges: Uint8Array | null, colors: Uint8Array | null): Float32Array {
  const area = SIZE * SIZE;
  const planes = new Float32Array(PLANES * area);
  for (let pixel = 0; pixel < area; pixel++) {
    if (edges) planes[pixel] = (edges[pixel] as number) / 255;
    const field = fieldOf({ x: pixel % SIZE, y: Math.floor(pixel / SIZE) });
    for (let channel = 0; colors && channel < 3; channel++) {
      planes[(1 + channel) * area + pixel] = (colors[3 * field + channel] as number) / 127.5 - 1;
    }
  }
  if (edges) planes.fill(1, 4 * area, 5 * area);
  if (colors) planes.fill(1, 5 * area);
  return planes;
}

function fieldOf({ x, y }: Point): number {
  return FIELDS * Math.floor(y / PER_FIELD) + Math.floor(x / PER_FIELD);
}

/** Lists the pixels of a line by Bresenham's algorithm, both ends included. */
export function linePixels(from: Point, to: Point): Point[] {
  const [width, height] = [Math.abs(to.x - from.x), Math.abs(to.y - from.y)];
  const [right, down] = [Math.sign(to.x - from.x), Math.sign(to.y - from.y)];
  let { x, y } = from;
  let error = width - height;
  const pixels = [{ x, y }];
  while (x !== to.x || y !== to.y) {
    const doubled = 2 * error;
    if (doubled > -height) {
      error -= height;
      x += right;
    }
    if (doubled < width) {
      error += width;
      y += down;
    }
    pixels.push({ x, y });
  }
  return pixels;
}

export class Sketch {
  private readonly lines = new Uint8Array(SIZE * SIZE);
  private readonly fields: (Color | null)[] = new Array(FIELDS * FIELDS).fill(null);

  get isEmpty(): boolean {
    return !this.hasLines && !this.hasColors;
  }

  clear(): void {
    this.lines.fill(0);
    this.fields.fill(null);
  }

  /** Draws a straight stroke; the eraser takes lines and colours away. */
  stroke(from: Point, to: Point, tool: Tool): void {
    for (const { x, y } of linePixels(from, to)) {
      if (tool === "pen") this.lines[SIZE * y + x] = 255;
      else if (tool === "eraser") this.erase({ x, y });
      else this.fields[fieldOf({ x, y })] = tool;
    }
  }

  /** Returns the condition; once a field is coloured, those that are not are white, as they are shown. */
  conditions(): Float32Array {
    const colors = Uint8Array.from(this.fields.flatMap((color) => color ?? WHITE));
    return joinConditions(this.hasLines ? this.lines : null, this.hasColors ? colors : null);
  }

  /** Returns black lines over the colours, bytes of red, green, blue and opacity. */
  pixels(): Uint8ClampedArray<ArrayBuffer> {
    const pixels = new Uint8ClampedArray(4 * SIZE * SIZE).fill(255);
    for (const [index, line] of this.lines.entries()) {
      const field = this.fields[fieldOf({ x: index % SIZE, y: Math.floor(index / SIZE) })];
      pixels.set(line ? [0, 0, 0] : (field ?? WHITE), 4 * index);
    }
    return pixels;
  }

  private get hasLines(): boolean {
    return this.lines.some(Boolean);
  }

  private get hasColors(): boolean {
    return this.fields.some(Boolean);
  }

  private erase({ x, y }: Point): void {
    this.fields[fieldOf({ x, y })] = null;
    for (let row = Math.max(0, y - ERASED); row <= Math.min(SIZE - 1, y + ERASED); row++) {
      this.lines.fill(0, SIZE * row + Math.max(0, x - ERASED), SIZE * row + Math.min(SIZE, x + ERASED + 1));
    }
  }
}
