// SPDX-License-Identifier: Apache-2.0
import { HStack, Stack, Text } from "@chakra-ui/react";
import { type Page, type RunMetrics, type RunRow, url, useApi, usePages } from "../api";
import type { Series } from "../charts/LineChart";
import { byFame, finite } from "../format";
import { mlPage, RunLink, To } from "../links";
import { Await, DataTable, Empty, Failure, Hidden, Loading, Mark, More, Num, Section, Time } from "../parts";
import { DayByDay, metricNames, SmallCharts } from "./shared";

/** Metrics of a DAG across its runs, and evaluations over data time. */
export function DagTab({ dagId }: { dagId: string }) {
  const first = useApi<Page<RunRow>>(url(["runs"], { dag_id: dagId, limit: 1 }));
  return (
    <Await of={first} what="the metrics of this DAG">
      {(data) =>
        data.items.length === 0 ? (
          <Stack p={4}>
            <Text fontWeight="semibold">Nothing of machine learning here</Text>
            <Empty>No run of this DAG has read or written an artifact or a model so far.</Empty>
            <Hidden count={data.hidden} />
          </Stack>
        ) : (
          <Stack gap={4}>
            <HStack>
              <Text fontSize="sm">
                <To to={mlPage({ tab: "runs", dag_id: dagId })}>Compare runs of this DAG</To>
              </Text>
            </HStack>
            <Section note="A line for each model version; dashed where the champion changed" title="Evaluations over data time">
              <DayByDay of={url(["dags", dagId, "evaluations"], { limit: 80 })} />
            </Section>
            <Runs dagId={dagId} />
          </Stack>
        )
      }
    </Await>
  );
}

const when = (row: RunMetrics) => row.run.effective_at ?? row.run.logical_date ?? row.run.run_after ?? row.run.start_date ?? "";

function Runs({ dagId }: { dagId: string }) {
  const pages = usePages<Page<RunMetrics>>(url(["dags", dagId, "metrics"], { limit: 50 }));
  if (pages.error && pages.pages.length === 0) return <Failure error={pages.error} retry={pages.retry} />;
  if (pages.isLoading) return <Loading what="metrics across runs" />;
  const names = metricNames(pages.items.flatMap((row) => row.tasks.map((task) => task.metrics)));
  const ordered = byFame(names);
  const charts = ordered.map((name) => ({ name, series: lines(pages.items, name) })).filter((chart) => chart.series.length > 0);
  const few = ordered.slice(0, 5);
  return (
    <Section note="By the data time of each run" title="Metrics across runs">
      <Stack gap={4}>
        {charts.length === 0 ? <Empty>No task has logged a metric.</Empty> : <SmallCharts charts={charts} times />}
        <DataTable
          caption="Runs"
          columns={[
            { name: "Run", cell: (row: RunMetrics) => <RunLink dag={dagId} run={row.run.run_id} />, by: (row) => row.run.run_id },
            { name: "Data until", cell: (row) => <Time brief value={row.run.effective_at} />, by: (row) => row.run.effective_at },
            { name: "State", cell: (row) => (row.run.state ? <Mark of={row.run.state} /> : "–"), by: (row) => row.run.state },
            ...few.map((name) => ({
              name,
              right: true,
              cell: (row: RunMetrics) => <Num value={best(row, name)} />,
              by: (row: RunMetrics) => finite(best(row, name)),
            })),
          ]}
          maxHeight="24rem"
          rowKey={(row) => row.run.run_id}
          rows={pages.items}
        />
        <More loading={pages.loadingMore} more={pages.more} />
      </Stack>
    </Section>
  );
}

const best = (row: RunMetrics, name: string) => row.tasks.find((task) => task.metrics?.[name] !== undefined)?.metrics?.[name];

/** One line for each task (and mapped task instance) that logs this metric. */
function lines(rows: RunMetrics[], name: string): Series[] {
  const found = new Map<string, Series>();
  for (const row of rows) {
    const x = Date.parse(when(row));
    if (Number.isNaN(x)) continue;
    for (const task of row.tasks) {
      const y = finite(task.metrics?.[name]);
      if (y === null) continue;
      const key = task.map_index >= 0 ? `${task.task_id} [${task.map_index}]` : task.task_id;
      const series = found.get(key) ?? { name: key, dots: [] };
      series.dots.push({ x, y });
      found.set(key, series);
    }
  }
  for (const series of found.values()) series.dots.sort((a, b) => a.x - b.x);
  return [...found.values()].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
}
