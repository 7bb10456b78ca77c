// SPDX-License-Identifier: Apache-2.0
import { Box, Button, Flex, HStack, Stack, Text } from "@chakra-ui/react";
import { lazy, Suspense, useState } from "react";
import { type Graph, type GraphNode, useApi } from "../api";
import { number } from "../format";
import { lineagePath, nodePath, To } from "../links";
import { Await, counted, DataTable, Empty, Facts, Hidden, Loading, Mark, Time } from "../parts";
import { KINDS } from "./kinds";

const Canvas = lazy(() => import("./Canvas"));

export type Direction = "up" | "down";

/** A graph that is asked for on its own, so that the rest of a page need not wait. */
export function GraphOf({ of, height }: { of: string; height?: string }) {
  const answer = useApi<Graph>(of);
  return (
    <Await of={answer} what="the graph">
      {(graph) => <GraphView graph={graph} height={height} />}
    </Await>
  );
}

/** A graph to pan and zoom, the same as a list, and what is known of the node that was chosen. */
export function GraphView({
  graph,
  height = "26rem",
  expand,
  expanding,
  onBlast,
  explorer = true,
}: {
  graph: Graph;
  height?: string;
  expand?: (node: GraphNode, direction: Direction) => void;
  expanding?: string | null;
  onBlast?: (node: GraphNode) => void;
  explorer?: boolean;
}) {
  const [chosen, setChosen] = useState<string | null>(null);
  const [asList, setAsList] = useState(false);
  if (graph.nodes.length === 0) return <Empty>No artifact or model is connected here.</Empty>;
  const node = graph.nodes.find((each) => each.id === chosen);
  return (
    <Stack gap={2}>
      <HStack justify="space-between" wrap="wrap">
        <Text color="fg.muted" fontSize="sm">
          {counted(graph.nodes.length, "node")}, {counted(graph.edges.length, "edge")}
          {graph.truncated ? "; there is more than is shown" : ""}
        </Text>
        <Button aria-pressed={asList} onClick={() => setAsList(!asList)} size="2xs" variant="outline">
          {asList ? "Show as graph" : "Show as list"}
        </Button>
      </HStack>
      <Hidden count={graph.hidden} />
      <Flex direction={{ base: "column", lg: "row" }} gap={3}>
        <Box flex="1" minW={0}>
          {asList ? (
            <NodeList choose={setChosen} graph={graph} />
          ) : (
            <Box borderColor="border" borderRadius="md" borderWidth="1px" height={height}>
              <Suspense fallback={<Loading what="the graph" />}>
                <Canvas choose={setChosen} chosen={chosen} expand={expand} expanding={expanding ?? null} graph={graph} />
              </Suspense>
            </Box>
          )}
        </Box>
        {node ? (
          <Box
            aria-label="Chosen node"
            as="aside"
            borderColor="border"
            borderRadius="md"
            borderWidth="1px"
            flexShrink={0}
            maxH={height}
            overflow="auto"
            p={3}
            width={{ base: "full", lg: "20rem" }}
          >
            <NodeFacts expand={expand} explorer={explorer} node={node} onBlast={onBlast} />
          </Box>
        ) : null}
      </Flex>
    </Stack>
  );
}

function NodeFacts({
  node,
  expand,
  onBlast,
  explorer,
}: {
  node: GraphNode;
  expand?: (node: GraphNode, direction: Direction) => void;
  onBlast?: (node: GraphNode) => void;
  explorer: boolean;
}) {
  const to = nodePath(node);
  return (
    <Stack fontSize="sm" gap={2}>
      <Text color="fg.muted">{KINDS[node.kind]?.name ?? node.kind}</Text>
      <Text fontWeight="semibold" overflowWrap="anywhere">
        {node.label}
      </Text>
      {node.missing ? (
        <Text color="fg.error" overflowWrap="anywhere">
          Missing: {node.missing}
        </Text>
      ) : null}
      {node.state ? <Mark of={node.state} /> : null}
      <Facts
        of={[
          ...(node.detail ? [["What", node.detail] as [string, string]] : []),
          ...(node.dag_id ? [["DAG", node.dag_id] as [string, string]] : []),
          ...(node.run_id ? [["Run", node.run_id] as [string, string]] : []),
          ...(node.time ? ([["Time", <Time key="time" value={node.time} />]] as [string, React.ReactNode][]) : []),
          ...Object.entries(node.metrics ?? {}).map(([name, value]) => [name, number(value)] as [string, string]),
        ]}
      />
      {to ? <To to={to}>Open {KINDS[node.kind]?.noun ?? "its page"}</To> : null}
      {explorer ? <To to={lineagePath(node.id)}>Start the lineage here</To> : null}
      {expand ? (
        <HStack wrap="wrap">
          <Button onClick={() => expand(node, "up")} size="xs" variant="outline">
            ← Expand up
          </Button>
          <Button onClick={() => expand(node, "down")} size="xs" variant="outline">
            Expand down →
          </Button>
        </HStack>
      ) : null}
      {onBlast ? (
        <Button alignSelf="start" onClick={() => onBlast(node)} size="xs" variant="outline">
          What came from it?
        </Button>
      ) : null}
    </Stack>
  );
}

function NodeList({ graph, choose }: { graph: Graph; choose: (id: string) => void }) {
  const labels = new Map(graph.nodes.map((node) => [node.id, node.label]));
  const ends = (id: string, from: "source" | "target") =>
    graph.edges
      .filter((edge) => edge[from] === id)
      .map((edge) => labels.get(edge[from === "source" ? "target" : "source"]) ?? "?")
      .join(", ");
  return (
    <DataTable
      caption="Nodes of the graph"
      columns={[
        { name: "Kind", cell: (row: GraphNode) => KINDS[row.kind]?.name ?? row.kind, by: (row) => row.kind },
        {
          name: "Name",
          cell: (row) => (
            <Button fontWeight="inherit" h="auto" onClick={() => choose(row.id)} p={0} size="sm" textAlign="start" variant="plain" whiteSpace="normal">
              {row.label}
            </Button>
          ),
          by: (row) => row.label,
        },
        { name: "What", cell: (row) => (row.missing ? `Missing: ${row.missing}` : (row.detail ?? "")) },
        { name: "Made from", cell: (row) => ends(row.id, "target") },
        { name: "Used by", cell: (row) => ends(row.id, "source") },
      ]}
      maxHeight="26rem"
      rowKey={(row) => row.id}
      rows={graph.nodes}
    />
  );
}
