// SPDX-License-Identifier: Apache-2.0
import { expect, test } from "vitest";
import type { Graph } from "../src/api";
import { HEIGHT, layout, merge, WIDTH } from "../src/graph/layout";

const graph = (count: number, edges: [number, number][]): Graph => ({
  nodes: Array.from({ length: count }, (_, id) => ({ id: String(id), kind: "task", label: String(id) })),
  edges: edges.map(([source, target]) => ({ source: String(source), target: String(target) })),
});

test("data flows from left to right", () => {
  const { places } = layout(graph(4, [[0, 1], [1, 2], [3, 2]]));
  const x = (id: number) => places.get(String(id))!.x;
  expect(x(0)).toBeLessThan(x(1));
  expect(x(1)).toBeLessThan(x(2));
  expect(x(3)).toBe(x(1));
});

test("circles, loops and edges to nodes that are not there do no harm", () => {
  const { places } = layout(graph(3, [[0, 1], [1, 2], [2, 0], [1, 1], [0, 9]]));
  expect([...places.values()].every(({ x, y }) => Number.isFinite(x) && Number.isFinite(y))).toBe(true);
});

test("no two of 500 nodes overlap, and the layout takes no second", () => {
  let seed = 1;
  const random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
  const edges: [number, number][] = [];
  for (let i = 1; i < 500; i += 1) {
    for (let k = 0; k <= (i % 3 === 0 ? 1 : 0); k += 1) edges.push([Math.max(0, i - 1 - Math.floor(random() * 40)), i]);
  }
  const start = performance.now();
  const places = [...layout(graph(500, edges)).places.values()];
  expect(performance.now() - start).toBeLessThan(1000);
  const columns = grouped(places);
  for (const column of columns.values()) {
    const ys = column.map(({ y }) => y).sort((a, b) => a - b);
    ys.slice(1).forEach((y, index) => expect(y - ys[index]!).toBeGreaterThan(HEIGHT));
  }
  const xs = [...columns.keys()].sort((a, b) => a - b);
  xs.slice(1).forEach((x, index) => expect(x - xs[index]!).toBeGreaterThan(WIDTH));
});

test("a line that passes a column touches none of its nodes", () => {
  const { places, bends } = layout(graph(5, [[0, 1], [1, 2], [2, 3], [0, 3], [4, 3], [0, 2]]));
  const passing = bends.get("0\n3")!;
  expect(passing).toHaveLength(4);
  for (const { x, y } of passing) {
    for (const place of places.values()) {
      const inside = x >= place.x && x <= place.x + WIDTH && y >= place.y && y <= place.y + HEIGHT;
      expect(inside).toBe(false);
    }
  }
  expect(bends.has("0\n1")).toBe(false);
});

test("an expansion adds what is new and closes what both sides now show", () => {
  const one: Graph = { root: "a", nodes: [{ id: "a", kind: "task", label: "a", more: { down: true } }], edges: [] };
  const two: Graph = {
    root: "a",
    nodes: [
      { id: "a", kind: "task", label: "a", more: { down: false } },
      { id: "b", kind: "version", label: "b", more: { down: true } },
    ],
    edges: [{ source: "a", target: "b", kind: "write" }],
  };
  const both = merge(one, two);
  expect(both.nodes.map((node) => [node.id, node.more?.down])).toEqual([["a", false], ["b", true]]);
  expect(merge(both, two).edges).toHaveLength(1);
});

function grouped(places: { x: number; y: number }[]) {
  const columns = new Map<number, { x: number; y: number }[]>();
  for (const place of places) columns.set(place.x, [...(columns.get(place.x) ?? []), place]);
  return columns;
}
