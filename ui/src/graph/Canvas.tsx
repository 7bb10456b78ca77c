// SPDX-License-Identifier: Apache-2.0
import {
  Background,
  BaseEdge,
  Controls,
  Handle,
  MarkerType,
  MiniMap,
  Position,
  ReactFlow,
  ReactFlowProvider,
  useReactFlow,
  type Edge,
  type EdgeProps,
  type Node,
  type NodeProps,
} from "@xyflow/react";
import css from "@xyflow/react/dist/style.css?inline";
import { type CSSProperties, memo, useEffect, useMemo, useSyncExternalStore } from "react";
import type { Graph, GraphNode } from "../api";
import { firstMetric, number } from "../format";
import { Time } from "../parts";
import type { Direction } from "./GraphView";
import { KINDS } from "./kinds";
import { edgeKey, HEIGHT, layout, WIDTH } from "./layout";

interface Data extends Record<string, unknown> {
  node: GraphNode;
  root: boolean;
  busy: boolean;
  expand?: (node: GraphNode, direction: Direction) => void;
}

type CardNode = Node<Data, "card">;

/** What is known of a node whose kind says what it is: of an evaluation a metric, and the time it speaks for. */
function Measured({ node }: { node: GraphNode }) {
  const metric = node.kind === "evaluation" ? firstMetric(Object.keys(node.metrics ?? {})) : undefined;
  return (
    <>
      {metric ? `${metric} ${number(node.metrics?.[metric])}` : null}
      {metric && node.effective_at ? ", " : null}
      {node.effective_at ? (
        <>
          data until <Time brief value={node.effective_at} />
        </>
      ) : null}
    </>
  );
}

const Card = memo(function Card({ data, selected }: NodeProps<CardNode>) {
  const { node, root, busy, expand } = data;
  const kind = KINDS[node.kind] ?? KINDS.task!;
  const hue = `var(--chakra-colors-${node.missing ? "red" : kind.hue}-solid)`;
  const line = node.missing ? "dashed" : "solid";
  return (
    <div
      style={{
        boxSizing: "border-box",
        width: WIDTH,
        height: HEIGHT,
        padding: "6px 8px",
        fontSize: 12,
        lineHeight: 1.3,
        borderRadius: 6,
        border: `${selected || root ? 2 : 1}px ${line} ${selected || root ? hue : "var(--chakra-colors-border-emphasized)"}`,
        borderInlineStart: `5px ${line} ${hue}`,
        background: "var(--chakra-colors-bg-panel)",
        color: "var(--chakra-colors-fg)",
        opacity: busy ? 0.6 : 1,
      }}
    >
      <Handle isConnectable={false} position={Position.Left} style={{ opacity: 0 }} type="target" />
      <div style={{ fontWeight: 600, overflow: "hidden", textOverflow: "ellipsis", whiteSpace: "nowrap" }} title={node.label}>
        <span aria-hidden style={{ color: hue }}>
          {node.missing ? "?" : kind.sign}{" "}
        </span>
        {node.label}
      </div>
      <div style={{ color: "var(--chakra-colors-fg-muted)", overflow: "hidden", textOverflow: "ellipsis", whiteSpace: "nowrap" }}>
        {node.missing ? `Missing: ${node.missing}` : kind.name}
      </div>
      <div
        style={{ color: "var(--chakra-colors-fg-muted)", overflow: "hidden", textOverflow: "ellipsis", whiteSpace: "nowrap" }}
        title={node.detail ?? undefined}
      >
        {node.detail ?? <Measured node={node} />}
      </div>
      {expand && node.more?.up ? <Plus direction="up" node={node} press={expand} /> : null}
      {expand && node.more?.down ? <Plus direction="down" node={node} press={expand} /> : null}
      <Handle isConnectable={false} position={Position.Right} style={{ opacity: 0 }} type="source" />
    </div>
  );
});

function Plus({ node, direction, press }: { node: GraphNode; direction: Direction; press: (node: GraphNode, direction: Direction) => void }) {
  return (
    <button
      aria-label={`Expand ${direction} from ${node.label}`}
      className="nodrag nopan"
      onClick={(event) => {
        event.stopPropagation();
        press(node, direction);
      }}
      style={{
        position: "absolute",
        top: HEIGHT / 2 - 9,
        [direction === "up" ? "left" : "right"]: -11,
        width: 18,
        height: 18,
        borderRadius: 9,
        lineHeight: "16px",
        fontSize: 13,
        cursor: "pointer",
        background: "var(--chakra-colors-bg-panel)",
        border: "1px solid var(--chakra-colors-border-emphasized)",
      }}
      type="button"
    >
      +
    </button>
  );
}

/** A line that passes other columns, from bend to bend. */
function Bent({ id, sourceX, sourceY, targetX, targetY, data, markerEnd, style }: EdgeProps<Edge<{ bends: { x: number; y: number }[] }>>) {
  const points = [{ x: sourceX, y: sourceY }, ...(data?.bends ?? []), { x: targetX, y: targetY }];
  const path = points.slice(1).reduce((drawn, to, index) => {
    const from = points[index]!;
    const middle = (from.x + to.x) / 2;
    return `${drawn} C ${middle},${from.y} ${middle},${to.y} ${to.x},${to.y}`;
  }, `M ${sourceX},${sourceY}`);
  return <BaseEdge id={id} markerEnd={markerEnd} path={path} style={style} />;
}

const nodeTypes = { card: Card };
const edgeTypes = { bent: Bent };
const READABLE = 0.6;

function watchDark(changed: () => void) {
  const observer = new MutationObserver(changed);
  observer.observe(document.documentElement, { attributeFilter: ["class"] });
  return () => observer.disconnect();
}
const isDark = () => document.documentElement.classList.contains("dark");

interface Props {
  graph: Graph;
  chosen: string | null;
  choose: (id: string | null) => void;
  expand?: (node: GraphNode, direction: Direction) => void;
  expanding: string | null;
}

function Flow({ graph, chosen, choose, expand, expanding }: Props) {
  const dark = useSyncExternalStore(watchDark, isDark);
  const { places, bends } = useMemo(() => layout(graph), [graph]);
  const { fitView, getZoom, setCenter } = useReactFlow();
  const nodes = useMemo<CardNode[]>(
    () =>
      graph.nodes.map((node) => ({
        id: node.id,
        type: "card",
        position: places.get(node.id)!,
        width: WIDTH,
        height: HEIGHT,
        selected: node.id === chosen,
        ariaLabel: `${KINDS[node.kind]?.name ?? node.kind} ${node.label}${node.detail ? `, ${node.detail}` : ""}`,
        data: { node, root: node.id === graph.root, busy: node.id === expanding, expand },
      })),
    [graph, places, chosen, expanding, expand],
  );
  const edges = useMemo<Edge[]>(
    () =>
      graph.edges.map((edge) => ({
        id: `${edge.source} ${edge.target} ${edge.kind ?? ""}`,
        ...(bends.has(edgeKey(edge.source, edge.target))
          ? { type: "bent", data: { bends: bends.get(edgeKey(edge.source, edge.target)) } }
          : {}),
        source: edge.source,
        target: edge.target,
        markerEnd: { type: MarkerType.ArrowClosed },
        style: { stroke: edge.outcome === "failed" ? "var(--chakra-colors-red-solid)" : "var(--chakra-colors-fg-subtle)" },
        focusable: false,
      })),
    [graph, bends],
  );
  useEffect(() => {
    const show = async () => {
      await fitView({ padding: 0.08, maxZoom: 1 });
      if (getZoom() >= READABLE) return;
      // What is too small to read is no view: start at the root, or where data come in, and pan from there.
      const root = graph.root ? places.get(graph.root) : undefined;
      const [first] = [...places.values()].sort((a, b) => a.x - b.x || Math.abs(a.y) - Math.abs(b.y));
      if (root) await setCenter(root.x + WIDTH / 2, root.y + HEIGHT / 2, { zoom: 0.8 });
      else if (first) await setCenter(first.x + 2.5 * WIDTH, first.y + HEIGHT / 2, { zoom: 0.7 });
    };
    void show();
  }, [graph.root, places, fitView, getZoom, setCenter]);
  return (
    <ReactFlow
      colorMode={dark ? "dark" : "light"}
      edges={edges}
      edgesFocusable={false}
      edgeTypes={edgeTypes}
      elementsSelectable
      maxZoom={2}
      minZoom={0.05}
      nodeTypes={nodeTypes}
      nodes={nodes}
      nodesConnectable={false}
      nodesDraggable={false}
      onNodeClick={(_, node) => choose(node.id)}
      onNodesChange={(changes) => {
        for (const change of changes) if (change.type === "select" && change.selected) choose(change.id);
      }}
      onPaneClick={() => choose(null)}
      onlyRenderVisibleElements={graph.nodes.length > 150}
      proOptions={{ hideAttribution: true }}
      style={{ "--xy-background-color": "transparent", "--xy-minimap-background-color": "var(--chakra-colors-bg-panel)" } as CSSProperties}
    >
      <Background />
      <Controls showInteractive={false} />
      {graph.nodes.length > 30 ? <MiniMap nodeColor="var(--chakra-colors-fg-subtle)" pannable zoomable /> : null}
    </ReactFlow>
  );
}

export default function Canvas(props: Props) {
  return (
    <ReactFlowProvider>
      <style>{css}</style>
      <Flow {...props} />
    </ReactFlowProvider>
  );
}
