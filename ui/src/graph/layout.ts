// SPDX-License-Identifier: Apache-2.0
import type { Graph, GraphNode } from "../api";

export const WIDTH = 210;
export const HEIGHT = 62;
const COLUMN = WIDTH + 64;
const ROW = HEIGHT + 14;
const LANE = 18; // what a line takes that passes a column
const MOST_LANES = 3000;
const SWEEPS = 8;

interface Point {
  x: number;
  y: number;
}

export interface Layout {
  /** The upper left corner of each node. */
  places: Map<string, Point>;
  /** Where the line of an edge passes between the nodes of other columns, by `edgeKey`. */
  bends: Map<string, Point[]>;
}

export const edgeKey = (source: string, target: string) => `${source}\n${target}`;

/**
 * Where each node stands: data flows from left to right, and neighbours stand side by side.
 *
 * Layers by longest path, orders by barycentre and places by least squares (the steps of Sugiyama et al.,
 * 1981). General layout libraries take many seconds at 500 nodes; this is near to linear.
 */
export function layout(graph: Pick<Graph, "nodes" | "edges">): Layout {
  const ids = graph.nodes.map((node) => node.id);
  const down = new Map<string, string[]>(ids.map((id) => [id, []]));
  const seen = new Set<string>();
  for (const { source, target } of graph.edges) {
    const key = edgeKey(source, target);
    if (source === target || seen.has(key) || !down.has(source) || !down.has(target)) continue;
    seen.add(key);
    down.get(source)!.push(target);
  }
  const order = sorted(ids, down);
  const at = new Map(order.map((id, index) => [id, index]));
  const up = new Map<string, string[]>(ids.map((id) => [id, []]));
  for (const id of ids) {
    // What points backwards closes a circle; it is drawn but decides nothing.
    const forward = down.get(id)!.filter((other) => at.get(other)! > at.get(id)!);
    down.set(id, forward);
    for (const other of forward) up.get(other)!.push(id);
  }

  const rank = new Map<string, number>();
  for (const id of order) rank.set(id, 1 + Math.max(-1, ...up.get(id)!.map((other) => rank.get(other)!)));
  // What nothing flows into stands just before its first user.
  for (const id of [...order].reverse()) {
    const after = down.get(id)!.map((other) => rank.get(other)!);
    if (up.get(id)!.length === 0 && after.length > 0) rank.set(id, Math.min(...after) - 1);
  }

  const layers: string[][] = [];
  for (const id of order) (layers[rank.get(id)!] ??= []).push(id);
  const lanes = withLanes(ids, up, down, rank, layers);
  const height = (id: string) => (rank.has(id) ? ROW : LANE);
  const y = new Map<string, number>(); // of the middle
  for (const layer of layers) {
    if (!layer) continue;
    const offsets = stacked(layer.map(height));
    layer.forEach((id, index) => y.set(id, offsets[index]! - offsets.at(-1)! / 2));
  }
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const downwards = sweep % 2 === 0;
    for (const layer of downwards ? layers : [...layers].reverse()) {
      if (!layer) continue;
      const wanted = new Map(
        layer.map((id) => {
          const near = (downwards ? up : down).get(id)!;
          return [id, near.length > 0 ? mean(near.map((other) => y.get(other)!)) : y.get(id)!];
        }),
      );
      layer.sort((a, b) => wanted.get(a)! - wanted.get(b)!);
      spread(
        layer.map((id) => wanted.get(id)!),
        layer.map(height),
      ).forEach((place, index) => y.set(layer[index]!, place));
    }
  }
  const bends = new Map<string, Point[]>();
  for (const [key, passed] of lanes) {
    const column = (lane: string) => Number(lane.slice(lane.lastIndexOf("\n") + 1)) * COLUMN;
    bends.set(
      key,
      passed.flatMap((lane) => [column(lane), column(lane) + WIDTH].map((x) => ({ x, y: y.get(lane)! }))),
    );
  }
  return { places: new Map(ids.map((id) => [id, { x: rank.get(id)! * COLUMN, y: y.get(id)! - HEIGHT / 2 }])), bends };
}

/** Lead each line that passes columns through a lane in each of them, so that it does not seem to touch their nodes. */
function withLanes(
  ids: string[],
  up: Map<string, string[]>,
  down: Map<string, string[]>,
  rank: Map<string, number>,
  layers: string[][],
): Map<string, string[]> {
  const found = new Map<string, string[]>();
  let count = 0;
  for (const id of ids) {
    for (const other of [...down.get(id)!]) {
      const passed: string[] = [];
      for (let column = rank.get(id)! + 1; column < rank.get(other)!; column += 1) passed.push(`${edgeKey(id, other)}\n${column}`);
      count += passed.length;
      if (passed.length === 0 || count > MOST_LANES) continue;
      found.set(edgeKey(id, other), passed);
      passed.forEach((lane, index) => {
        layers[Number(lane.slice(lane.lastIndexOf("\n") + 1))]!.push(lane);
        up.set(lane, [passed[index - 1] ?? id]);
        down.set(lane, [passed[index + 1] ?? other]);
      });
      down.set(id, replaced(down.get(id)!, other, passed[0]!));
      up.set(other, replaced(up.get(other)!, id, passed.at(-1)!));
    }
  }
  return found;
}

const replaced = (all: string[], old: string, by: string) => all.map((each) => (each === old ? by : each));

const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Order nodes so that data flows forwards; circles are cut where they are met. */
function sorted(ids: string[], down: Map<string, string[]>): string[] {
  const done = new Set<string>();
  const found: string[] = [];
  for (const start of ids) {
    if (done.has(start)) continue;
    done.add(start);
    const path: [string, number][] = [[start, 0]];
    while (path.length > 0) {
      const top = path.at(-1)!;
      const next = down.get(top[0])![top[1]];
      top[1] += 1;
      if (next === undefined) {
        found.push(top[0]);
        path.pop();
      } else if (!done.has(next)) {
        done.add(next);
        path.push([next, 0]);
      }
    }
  }
  return found.reverse();
}

/** The middles of things of these heights, one under the other from 0 on. */
function stacked(heights: number[]): number[] {
  let place = 0;
  return heights.map((height, index) => (place += index === 0 ? 0 : (heights[index - 1]! + height) / 2));
}

/** The places nearest to those wanted (ascending) that leave each its height: pool adjacent violators. */
function spread(wanted: number[], heights: number[]): number[] {
  const offsets = stacked(heights);
  const blocks: { sum: number; count: number }[] = [];
  wanted.forEach((value, index) => {
    let block = { sum: value - offsets[index]!, count: 1 };
    let last = blocks.at(-1);
    while (last && last.sum / last.count > block.sum / block.count) {
      block = { sum: block.sum + last.sum, count: block.count + last.count };
      blocks.pop();
      last = blocks.at(-1);
    }
    blocks.push(block);
  });
  return blocks.flatMap((block) => Array.from({ length: block.count }, () => block.sum / block.count)).map((place, index) => place + offsets[index]!);
}

/** Add what was found around a node to what is shown; what was asked last knows best what lies beyond. */
export function merge(old: Graph, found: Graph): Graph {
  const nodes = new Map(old.nodes.map((node) => [node.id, node]));
  for (const node of found.nodes) {
    const before = nodes.get(node.id);
    nodes.set(node.id, before ? { ...node, more: joined(before, node) } : node);
  }
  const edges = new Map([...old.edges, ...found.edges].map((edge) => [`${edge.source} ${edge.target} ${edge.kind ?? ""}`, edge]));
  return {
    root: old.root ?? found.root ?? null,
    nodes: [...nodes.values()],
    edges: [...edges.values()],
    hidden: Math.max(old.hidden ?? 0, found.hidden ?? 0),
    truncated: Boolean(old.truncated || found.truncated),
  };
}

// A node at the rim of one answer says "more" although the other answer already holds what is there.
function joined(a: GraphNode, b: GraphNode): GraphNode["more"] {
  return { up: Boolean(a.more?.up && b.more?.up), down: Boolean(a.more?.down && b.more?.down) };
}
