// SPDX-License-Identifier: Apache-2.0
import dagre from "@dagrejs/dagre";
import type { Graph, GraphNode } from "../api";

export const WIDTH = 210;
export const HEIGHT = 62;

/** Where each node stands: data flows from left to right. */
export function layout(graph: Pick<Graph, "nodes" | "edges">): Map<string, { x: number; y: number }> {
  const inner = new dagre.graphlib.Graph();
  // Longest-path ranking is linear; the default's network simplex takes seconds at 500 nodes.
  const ranker = graph.nodes.length > 60 ? "longest-path" : "network-simplex";
  inner.setGraph({ rankdir: "LR", nodesep: 14, ranksep: 56, ranker });
  inner.setDefaultEdgeLabel(() => ({}));
  const known = new Set(graph.nodes.map((node) => node.id));
  for (const id of known) inner.setNode(id, { width: WIDTH, height: HEIGHT });
  for (const { source, target } of graph.edges) {
    if (known.has(source) && known.has(target) && source !== target) inner.setEdge(source, target);
  }
  dagre.layout(inner);
  const places = new Map<string, { x: number; y: number }>();
  for (const id of known) {
    const { x, y } = inner.node(id) as { x: number; y: number };
    places.set(id, { x: x - WIDTH / 2, y: y - HEIGHT / 2 });
  }
  return places;
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
