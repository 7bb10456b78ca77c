// SPDX-License-Identifier: Apache-2.0
import { Button, HStack, Stack, Text } from "@chakra-ui/react";
import { useCallback, useEffect, useState } from "react";
import { useSearchParams } from "react-router-dom";
import { type ApiError, type Blast, type FoundNode, type Graph, type GraphNode, load, type Page, url, useApi } from "../api";
import { byPurpose } from "../format";
import { GraphView, type Direction } from "../graph/GraphView";
import { KINDS } from "../graph/kinds";
import { merge } from "../graph/layout";
import { lineagePath, ModelLink, nodePath, RunLink, To } from "../links";
import { Await, Command, CopyButton, counted, DataTable, Empty, Failure, Hidden, Loading, Mark, Section, Time } from "../parts";
import { Choice, Search } from "./shared";

export function Lineage() {
  const [search, setSearch] = useSearchParams();
  const node = search.get("node");
  const wanted = search.get("search") ?? "";
  const set = (change: Record<string, string>) => {
    const next = new URLSearchParams(search);
    for (const [key, value] of Object.entries(change)) if (value) next.set(key, value);
      else next.delete(key);
    setSearch(next, { replace: true });
  };
  return (
    <Stack gap={3}>
      <Search label="Search artifacts and models to start from" search={(value) => set({ search: value })} value={wanted} />
      {wanted || !node ? <FoundNodes search={wanted} /> : null}
      {node ? (
        <Explorer
          blast={search.get("blast")}
          depth={search.get("depth") ?? "2"}
          direction={search.get("direction") ?? "both"}
          key={node}
          node={node}
          set={set}
        />
      ) : null}
    </Stack>
  );
}

function FoundNodes({ search }: { search: string }) {
  const answer = useApi<Page<FoundNode>>(search ? url(["lineage", "search"], { q: search }) : null);
  if (!search) return <Empty>Type a part of a name to find the artifact or model to start from.</Empty>;
  return (
    <Await of={answer} what="artifacts and models">
      {(data) =>
        data.items.length === 0 ? (
          <Empty>{`No artifact or model has "${search}" in its name.`}</Empty>
        ) : (
          <DataTable
            caption="Where to start"
            columns={[
              { name: "Name", cell: (row) => <To to={lineagePath(row.node)}>{row.label}</To>, by: (row) => row.label },
              { name: "Kind", cell: (row) => KINDS[row.kind]?.name ?? row.kind, by: (row) => row.kind },
              { name: "What", cell: (row) => row.detail ?? "" },
              { name: "Time", cell: (row) => <Time value={row.time} />, by: (row) => row.time },
            ]}
            maxHeight="20rem"
            rowKey={(row) => row.node}
            rows={data.items}
          />
        )
      }
    </Await>
  );
}

function Explorer({
  node,
  direction,
  depth,
  blast,
  set,
}: {
  node: string;
  direction: string;
  depth: string;
  blast: string | null;
  set: (change: Record<string, string>) => void;
}) {
  const answer = useApi<Graph>(url(["lineage"], { node, direction, depth, limit: 200 }));
  const [graph, setGraph] = useState<Graph | null>(null);
  const [expanding, setExpanding] = useState<string | null>(null);
  const [failed, setFailed] = useState<ApiError | null>(null);
  useEffect(() => setGraph(answer.data ?? null), [answer.data]);
  const expand = useCallback(async (from: GraphNode, way: Direction) => {
    setExpanding(from.id);
    setFailed(null);
    try {
      const found = await load<Graph>(url(["lineage"], { node: from.id, direction: way, depth: 1, limit: 200 }));
      setGraph((old) => (old ? merge(old, found) : found));
    } catch (error) {
      setFailed(error as ApiError);
    } finally {
      setExpanding(null);
    }
  }, []);
  const [cursor, setCursor] = useState<string | null>(null);
  useEffect(() => setCursor(answer.data?.next ?? null), [answer.data]);
  const further = async () => {
    setFailed(null);
    try {
      const found = await load<Graph>(url(["lineage"], { node, direction, depth, limit: 200, cursor }));
      setGraph((old) => (old ? merge(old, found) : found));
      setCursor(found.next ?? null);
    } catch (error) {
      setFailed(error as ApiError);
    }
  };
  const onExpand = useCallback((from: GraphNode, way: Direction) => void expand(from, way), [expand]);
  const root = graph?.nodes.find((each) => each.id === graph.root);
  return (
    <Stack gap={3}>
      <HStack gap={4} wrap="wrap">
        <Text fontWeight="semibold" overflowWrap="anywhere">
          {root ? `${KINDS[root.kind]?.name ?? root.kind} ${root.label}` : "Lineage"}
        </Text>
        <Choice
          choose={(value) => set({ direction: value })}
          label="Show"
          options={[
            { value: "both", label: "what made it and what used it" },
            { value: "up", label: "what made it" },
            { value: "down", label: "what used it" },
          ]}
          value={direction}
        />
        <Choice choose={(value) => set({ depth: value })} label="Steps" options={["1", "2", "3", "4", "6", "10"]} value={depth} />
        <Button onClick={() => set({ blast: blast ? "" : node })} size="xs" variant="outline">
          {blast ? "Hide what came from it" : "What came from it?"}
        </Button>
      </HStack>
      {cursor ? (
        <Button alignSelf="start" onClick={() => void further()} size="xs" variant="outline">
          Load more of the graph
        </Button>
      ) : null}
      {failed ? <Failure error={failed} /> : null}
      {blast ? <BlastRadius node={blast} /> : null}
      {graph ? (
        <GraphView expand={onExpand} expanding={expanding} graph={graph} height="min(70vh, 46rem)" onBlast={(from) => set({ blast: from.id })} />
      ) : answer.error ? (
        <Failure error={answer.error} retry={() => void answer.mutate()} />
      ) : (
        <Loading what="the lineage" />
      )}
    </Stack>
  );
}

/** Everything that came from one version, and the commands that would clear or backfill just that. */
function BlastRadius({ node }: { node: string }) {
  const answer = useApi<Blast>(url(["lineage", "blast"], { node }));
  return (
    <Section note="Everything that was made from it, directly or not" title="What came from it">
      <Await of={answer} what="what came from it">
        {(data) => {
          const reached = [...data.models, ...data.evaluations, ...(data.predictions ?? []), ...data.versions];
          return (
          <Stack fontSize="sm" gap={3}>
            <Text>
              {counted(data.models.length, "model")}, {counted(data.evaluations.length, "evaluation")},{" "}
              {counted(data.versions.length + (data.predictions ?? []).length, "artifact version")} in {counted(data.runs.length, "DAG run")}
              {data.truncated ? " and more than is shown" : ""}.
            </Text>
            {(data.aliases ?? []).map((each) => (
              <Text key={`${each.registered_model_name}@${each.alias}`}>
                <Mark of={each.alias} /> of <ModelLink model={each} /> since <Time brief value={each.since} />
              </Text>
            ))}
            {(data.notes ?? []).map((note, index) => (
              <Text color="fg.muted" key={index}>
                {note}
              </Text>
            ))}
            {data.runs.length > 0 ? (
              <DataTable
                caption="Runs that used it"
                columns={[
                  { name: "DAG", cell: (row) => row.dag_id, by: (row) => row.dag_id },
                  { name: "Run", cell: (row) => <RunLink dag={row.dag_id} run={row.run_id} />, by: (row) => row.run_id },
                  { name: "Tasks", cell: (row) => row.tasks.join(", ") },
                ]}
                maxHeight="16rem"
                rowKey={(row) => `${row.dag_id} ${row.run_id}`}
                rows={data.runs}
              />
            ) : null}
            {reached.length > 0 ? (
              <details>
                <summary>Models, evaluations, predictions and artifact versions</summary>
                <DataTable
                  caption="What was made from it"
                  columns={[
                    { name: "Kind", cell: (row) => KINDS[row.kind]?.name ?? row.kind, by: (row) => row.kind },
                    { name: "Name", cell: (row) => <NodeLink node={row} />, by: (row) => row.label },
                    { name: "What", cell: (row) => row.detail ?? "" },
                    { name: "Data until", cell: (row) => <Time brief value={row.time} />, by: (row) => row.time },
                  ]}
                  maxHeight="20rem"
                  rowKey={(row) => row.id}
                  rows={reached}
                />
              </details>
            ) : null}
            {data.commands.length > 0 ? (
              <Stack gap={3}>
                {byPurpose(data.commands).map(({ title, commands }) => (
                  <Commands key={title} of={commands} title={title} />
                ))}
              </Stack>
            ) : null}
            <Hidden count={data.hidden} />
          </Stack>
          );
        }}
      </Await>
    </Section>
  );
}

function Commands({ of, title }: { of: Blast["commands"]; title: string }) {
  return (
    <Stack gap={1}>
      <HStack justify="space-between">
        <Text fontWeight="semibold">{title}</Text>
        {of.length > 1 ? <CopyButton label="Copy all" value={of.map((each) => each.shell).join("\n")} /> : null}
      </HStack>
      {of.map((command, index) => (
        <Stack gap={0} key={index}>
          {command.note ? <Text color="fg.muted">{command.note}</Text> : null}
          <Command text={command.shell} />
        </Stack>
      ))}
    </Stack>
  );
}

function NodeLink({ node }: { node: GraphNode }) {
  const to = nodePath(node);
  return to ? <To to={to}>{node.label}</To> : <>{node.label}</>;
}
