import { expect, test } from "vitest";
import { type Color, joinConditions, linePixels, Sketch, SIZE } from "../src/sketch";

const AREA = SIZE * SIZE;
const RED: Color = [255, 0, 51];
const plane = (conditions: Float32Array, index: number) => [...conditions.subarray(AREA * index, AREA * (index + 1))];
const at = (x: number, y: number) => SIZE * y + x;

test("planes are edges, colours in [-1, 1], and what is given", () => {
  const edges = new Uint8Array(AREA);
  edges[at(1, 2)] = 255;
  const colors = new Uint8Array(3 * 64).fill(255);
  colors.set(RED, 3 * 8); // the first field of the second row
  const both = joinConditions(edges, colors);
  expect(plane(both, 0).flatMap((value, index) => (value ? [[index, value]] : []))).toEqual([[at(1, 2), 1]]);
  for (const [channel, value] of [1, -1, -0.6].entries()) {
    const values = plane(both, 1 + channel);
    const found = [at(0, 3), at(0, 4), at(3, 7), at(4, 7), at(0, 8)].map((index) => values[index] as number);
    for (const [place, expected] of [1, value, value, 1, 1].entries()) expect(found[place]).toBeCloseTo(expected, 6);
  }
  expect([...new Set(plane(both, 4)), ...new Set(plane(both, 5))]).toEqual([1, 1]);
});

test("what is missing is zero", () => {
  const [edges, colors] = [new Uint8Array(AREA).fill(255), new Uint8Array(3 * 64).fill(9)];
  const means = (conditions: Float32Array) =>
    [0, 1, 4, 5].map((index) => Math.sign(plane(conditions, index).reduce((sum, value) => sum + value)));
  expect(means(joinConditions(edges, null))).toEqual([1, 0, 1, 0]);
  expect(means(joinConditions(null, colors))).toEqual([0, -1, 0, 1]);
});

test.each([
  [{ x: 0, y: 0 }, { x: 3, y: 1 }, ["0 0", "1 0", "2 1", "3 1"]],
  [{ x: 2, y: 4 }, { x: 2, y: 2 }, ["2 4", "2 3", "2 2"]],
  [{ x: 5, y: 5 }, { x: 5, y: 5 }, ["5 5"]],
])("a line from %j to %j has no gap", (from, to, expected) => {
  expect(linePixels(from, to).map(({ x, y }) => `${x} ${y}`)).toEqual(expected);
});

test("the eraser takes lines around it and the colour under it away", () => {
  const sketch = new Sketch();
  expect(sketch.isEmpty).toBe(true);
  sketch.stroke({ x: 0, y: 0 }, { x: 31, y: 0 }, "pen");
  sketch.stroke({ x: 0, y: 0 }, { x: 31, y: 0 }, RED);
  expect([...sketch.pixels().subarray(0, 4)]).toEqual([0, 0, 0, 255]);
  expect([...sketch.pixels().subarray(4 * at(0, 1), 4 * at(1, 1))]).toEqual([...RED, 255]);
  sketch.stroke({ x: 31, y: 1 }, { x: 31, y: 1 }, "eraser");
  const lines = plane(sketch.conditions(), 0);
  expect(lines.slice(0, SIZE)).toEqual(Array.from({ length: SIZE }, (_, x) => (x < 30 ? 1 : 0)));
  expect([...sketch.pixels().subarray(4 * 31, 4 * SIZE)]).toEqual([255, 255, 255, 255]);
  expect(plane(sketch.conditions(), 2)[31]).toBe(1); // white
  sketch.clear();
  expect(sketch.isEmpty).toBe(true);
});

test("lines alone give no colours, colours alone no edges", () => {
  const [lines, colors] = [new Sketch(), new Sketch()];
  lines.stroke({ x: 3, y: 3 }, { x: 9, y: 3 }, "pen");
  colors.stroke({ x: 3, y: 3 }, { x: 9, y: 3 }, RED);
  const given = (sketch: Sketch) => [4, 5].map((index) => plane(sketch.conditions(), index)[0]);
  expect([given(lines), given(colors)]).toEqual([
    [1, 0],
    [0, 1],
  ]);
});
