// SPDX-License-Identifier: Apache-2.0
import { HStack, Stack } from "@chakra-ui/react";
import { useState } from "react";
import { useSearchParams } from "react-router-dom";
import { type Page, type RunRow, type RunRowsPage, url, usePages } from "../api";
import { Parallel } from "../charts/Parallel";
import { Scatter } from "../charts/Scatter";
import { byFame, finite, firstMetric, text } from "../format";
import { mlPage, RunLink, To } from "../links";
import { DataTable, Empty, Failure, Hidden, Loading, Mark, More, Num, Section, Time } from "../parts";
import { Choice, Search } from "./shared";

export function Runs() {
  const [search] = useSearchParams();
  const dagId = search.get("dag_id");
  const [wanted, setWanted] = useState("");
  const dags = usePages<Page<{ dag_id: string }>>(url(["dags"], { limit: 100, search: wanted }));
  if (dagId) return <Compare dagId={dagId} dags={dags.items.map((each) => each.dag_id)} key={dagId} />;
  if (dags.error && dags.pages.length === 0) return <Failure error={dags.error} retry={dags.retry} />;
  return (
    <Stack gap={4}>
      <Search label="Search DAGs" search={setWanted} value={wanted} />
      {dags.isLoading ? (
        <Loading what="DAGs" />
      ) : dags.items.length === 0 ? (
        <Empty>{wanted ? "No DAG of this name has left records." : "No DAG has left records of artifacts or models so far."}</Empty>
      ) : (
        <DataTable
          caption="DAGs whose runs can be compared"
          columns={[{ name: "DAG", cell: (row) => <To to={mlPage({ tab: "runs", dag_id: row.dag_id })}>{row.dag_id}</To>, by: (row) => row.dag_id }]}
          rowKey={(row) => row.dag_id}
          rows={dags.items}
        />
      )}
      <More loading={dags.loadingMore} more={dags.more} />
    </Stack>
  );
}

/** The number of a parameter or metric, if it is one; parameters arrive as text. */
function numberOf(row: RunRow, name: string): number | null {
  const value = row.metrics[name] ?? row.params[name];
  if (typeof value === "string") {
    const parsed = value.trim() === "" ? Number.NaN : Number(value);
    return finite(parsed);
  }
  return finite(value);
}

const valueOf = (row: RunRow, name: string) => row.metrics[name] ?? row.params[name];

function Compare({ dagId, dags }: { dagId: string; dags: string[] }) {
  const [search, setSearch] = useSearchParams();
  const pages = usePages<RunRowsPage>(url(["runs"], { dag_id: dagId, limit: 50 }));
  const [chosen, setChosen] = useState<string | null>(null);
  const set = (change: Record<string, string>) => {
    const next = new URLSearchParams(search);
    for (const [key, value] of Object.entries(change)) next.set(key, value);
    setSearch(next, { replace: true });
  };
  const choice = dags.includes(dagId) ? dags : [dagId, ...dags];
  const head = (
    <Choice choose={(value) => setSearch({ tab: "runs", dag_id: value })} label="DAG" options={choice} value={dagId} />
  );
  if (pages.error && pages.pages.length === 0) {
    return (
      <Stack>
        {head}
        <Failure error={pages.error} retry={pages.retry} />
      </Stack>
    );
  }
  if (pages.isLoading) return <Loading what="runs" />;
  const rows = pages.items;
  const metrics = [...new Set(pages.pages.flatMap((page) => page.metric_names ?? []))].sort();
  const params = [...new Set(pages.pages.flatMap((page) => page.param_names ?? []))].sort();
  const main = firstMetric(metrics);
  const varying = params.filter((name) => new Set(rows.map((row) => text(valueOf(row, name)))).size > 1);
  // The metric that matters most stands last, where the lines end.
  const usual = [...varying.slice(0, 4), ...byFame(metrics).slice(0, Math.max(2, 6 - varying.length)).reverse()];
  const asked = (search.get("axes") ?? "").split("\n").filter((name) => metrics.includes(name) || params.includes(name));
  const axes = asked.length > 1 ? asked : usual;
  const view = search.get("view") === "scatter" ? "scatter" : "parallel";
  const all = [...params, ...metrics];
  const pick = (name: string, fallback: string | undefined) => {
    const wanted = search.get(name);
    return wanted && all.includes(wanted) ? wanted : (fallback ?? all[0] ?? "");
  };
  const x = pick("x", varying[0] ?? metrics.find((name) => name !== main));
  const y = pick("y", main);
  return (
    <Stack gap={4}>
      <HStack gap={4} wrap="wrap">
        {head}
        <Choice
          choose={(value) => set({ view: value })}
          label="Show as"
          options={[
            { value: "parallel", label: "parallel coordinates" },
            { value: "scatter", label: "scatter plot" },
          ]}
          value={view}
        />
      </HStack>
      {rows.length === 0 ? <Empty>No run of this DAG has left records.</Empty> : null}
      {rows.length > 0 && all.length > 1 ? (
        <Section
          actions={
            view === "scatter" ? (
              <HStack wrap="wrap">
                <Choice choose={(value) => set({ x: value })} label="x" options={all} value={x} />
                <Choice choose={(value) => set({ y: value })} label="y" options={all} value={y} />
              </HStack>
            ) : undefined
          }
          title={view === "scatter" ? "Runs as points" : "Runs as lines"}
        >
          {view === "scatter" ? (
            <Scatter
              chosen={chosen}
              choose={setChosen}
              points={rows.flatMap((row) => {
                const [a, b] = [numberOf(row, x), numberOf(row, y)];
                return a === null || b === null ? [] : [{ id: row.run.run_id, x: a, y: b }];
              })}
              total={rows.length}
              xName={x}
              yName={y}
            />
          ) : (
            <Parallel
              all={all}
              axes={axes}
              chosen={chosen}
              choose={setChosen}
              rows={rows.map((row) => ({
                id: row.run.run_id,
                values: Object.fromEntries(axes.map((name) => [name, numberOf(row, name) ?? (valueOf(row, name) === undefined ? null : text(valueOf(row, name)))])),
              }))}
              setAxes={(names) => set({ axes: names.join("\n") })}
            />
          )}
        </Section>
      ) : null}
      {rows.length > 0 ? (
        <Section title="Runs">
          <DataTable
            caption={`Runs of ${dagId}`}
            columns={[
              {
                name: "Run",
                cell: (row: RunRow) => (
                  <HStack gap={2}>
                    <RunLink dag={dagId} run={row.run.run_id} />
                    {row.run.run_id === chosen ? <Mark of="chosen" /> : null}
                  </HStack>
                ),
                by: (row) => row.run.run_id,
              },
              { name: "Data until", cell: (row) => <Time brief value={row.run.effective_at} />, by: (row) => row.run.effective_at },
              { name: "State", cell: (row) => (row.run.state ? <Mark of={row.run.state} /> : "–"), by: (row) => row.run.state },
              { name: "Decision", cell: (row) => (row.decision ? <Mark of={row.decision} /> : "–"), by: (row) => row.decision },
              ...[...varying, ...byFame(metrics)].slice(0, 8).map((name) => ({
                name,
                right: true,
                cell: (row: RunRow) => (row.metrics[name] !== undefined ? <Num value={row.metrics[name]} /> : text(row.params[name])),
                by: (row: RunRow) => numberOf(row, name) ?? (valueOf(row, name) === undefined ? null : text(valueOf(row, name))),
              })),
            ]}
            maxHeight="30rem"
            rowKey={(row) => row.run.run_id}
            rows={rows}
          />
          <More loading={pages.loadingMore} more={pages.more} />
          <Hidden count={pages.hidden} />
        </Section>
      ) : null}
    </Stack>
  );
}
