// SPDX-License-Identifier: Apache-2.0
import { HStack, Stack, Text } from "@chakra-ui/react";
import { useSearchParams } from "react-router-dom";
import { type Change, type ComparisonAnswer, type RunAnswer, type RunTask, url, useApi } from "../api";
import { number, seconds } from "../format";
import { GraphOf } from "../graph/GraphView";
import { mlPage, ModelLink, RunLink, TaskLink, To, VersionLink } from "../links";
import { AnyValue, Await, DataTable, Decision, Delta, Empty, Hidden, Mark, Num, Section, Time } from "../parts";
import { Choice, difference } from "./shared";
import type { Json, Page, Run, RunRow } from "../api";

interface Props {
  dagId: string;
  runId: string;
}

/** One run: its tasks and versions, its metrics, and what is different from the run before. */
export function RunTab({ dagId, runId }: Props) {
  const answer = useApi<RunAnswer>(url(["dags", dagId, "runs", runId]));
  return (
    <Await of={answer} what="the artifacts and models of this run">
      {(data) =>
        data.run === null || (data.tasks.length === 0 && !data.hidden) ? (
          <Stack p={4}>
            <Text fontWeight="semibold">Nothing of machine learning here</Text>
            <Empty>No task of this run has read or written an artifact or a model so far.</Empty>
          </Stack>
        ) : (
          <Found dagId={dagId} data={data} run={data.run} runId={runId} />
        )
      }
    </Await>
  );
}

function Found({ dagId, runId, data, run }: Props & { data: RunAnswer; run: Run }) {
  const decisions = data.tasks.filter((task) => task.decision);
  const measured = data.tasks.flatMap((task) => {
    const baseline = task.evaluation?.baseline_metrics ?? {};
    return Object.entries({ ...task.metrics, ...task.evaluation?.metrics }).map(([name, value]) => ({
      task: task.task,
      name,
      value,
      baseline: baseline[name] ?? null,
    }));
  });
  return (
    <Stack gap={4}>
      <HStack gap={4} wrap="wrap">
        {run.state ? <Mark of={run.state} /> : null}
        <Text fontSize="sm">
          {run.effective_at ? (
            <>
              Data until <Time brief value={run.effective_at} />
            </>
          ) : (
            "No data interval"
          )}
          {run.start_date ? (
            <>
              {" · started "}
              <Time value={run.start_date} />
            </>
          ) : null}
        </Text>
        <Text fontSize="sm">
          <To to={mlPage({ tab: "runs", dag_id: dagId })}>Compare runs of this DAG</To>
        </Text>
      </HStack>
      {decisions.map((task) => (
        <Section key={task.task.task_id} title="Decision">
          <Decision of={task.decision!} />
        </Section>
      ))}
      <Section note="Tasks, and the versions and models between them" title="Tasks and versions">
        <GraphOf of={url(["dags", dagId, "runs", runId, "graph"], { limit: 300 })} />
      </Section>
      <Comparison dagId={dagId} runId={runId} />
      {measured.length > 0 ? (
        <Section title="Metrics">
          <DataTable
            caption="Metrics of this run"
            columns={[
              { name: "Task", cell: (row) => <TaskLink full={false} task={row.task} />, by: (row) => row.task.task_id },
              { name: "Metric", cell: (row) => row.name, by: (row) => row.name },
              { name: "Value", cell: (row) => <Num value={row.value} />, right: true },
              { name: "Baseline", cell: (row) => <Num value={row.baseline} />, right: true },
              { name: "Gain", cell: (row) => <Delta value={difference(row.value, row.baseline)} />, right: true },
            ]}
            maxHeight="24rem"
            rowKey={(row, index) => `${row.task.task_id}-${row.task.map_index}-${row.name}-${index}`}
            rows={measured}
          />
        </Section>
      ) : null}
      <Section
        note={data.truncated ? `The first ${data.tasks.length} of ${number(data.tasks_total)} task instances` : undefined}
        title="Tasks"
      >
        <TaskTable tasks={data.tasks} />
        <Hidden count={data.hidden} />
      </Section>
    </Stack>
  );
}

function TaskTable({ tasks }: { tasks: RunTask[] }) {
  return (
    <DataTable
      caption="Tasks of this run"
      columns={[
        { name: "Task", cell: (row: RunTask) => <TaskLink full={false} task={row.task} />, by: (row) => row.task.task_id },
        { name: "Outcome", cell: (row) => <Mark of={row.outcome} />, by: (row) => row.outcome },
        {
          name: "Read",
          cell: (row) => (
            <Stack gap={0}>
              {row.reads.map((version) => (
                <VersionLink key={version.version_id} version={version} />
              ))}
              {row.models_read.map((model, index) => (
                <ModelLink key={index} model={model} />
              ))}
              {row.hidden ? <Hidden count={row.hidden} /> : null}
            </Stack>
          ),
        },
        {
          name: "Wrote",
          cell: (row) => (
            <Stack gap={0}>
              {row.writes.map((version) => (
                <VersionLink key={version.version_id} version={version} />
              ))}
              {row.models_written.map((model, index) => (
                <ModelLink key={index} model={model} />
              ))}
            </Stack>
          ),
        },
        {
          name: "Computed",
          cell: (row) => (row.cache?.hit ? `reused${row.cache.seconds_saved ? `, saved ${seconds(row.cache.seconds_saved)}` : ""}` : "computed"),
        },
        { name: "Error", cell: (row) => (row.error ? <AnyValue value={row.error} /> : "") },
      ]}
      maxHeight="30rem"
      rowKey={(row) => `${row.task.task_id}-${row.task.map_index}`}
      rows={tasks}
    />
  );
}

/** What is different from another run of the DAG; from the previous one unless the URL names another. */
function Comparison({ dagId, runId }: Props) {
  const [search, setSearch] = useSearchParams();
  const other = search.get("with");
  const answer = useApi<ComparisonAnswer>(url(["dags", dagId, "runs", runId, "comparison"], { with: other }));
  const runs = useApi<Page<RunRow>>(url(["runs"], { dag_id: dagId, limit: 50 }));
  const ids = (runs.data?.items ?? []).map((row) => row.run.run_id).filter((id) => id !== runId);
  const shown = other ?? answer.data?.with?.run_id ?? "";
  return (
    <Section
      actions={
        ids.length > 0 ? (
          <Choice
            choose={(id) => setSearch({ with: id })}
            label="Compared with"
            options={[...new Set([...(shown ? [shown] : []), ...ids])]}
            value={shown}
          />
        ) : undefined
      }
      title="What changed"
    >
      <Await of={answer} what="the comparison">
        {(data) => <ComparisonFacts data={data} />}
      </Await>
    </Section>
  );
}

const WHAT: Record<string, string> = {
  read: "Read",
  write: "Wrote",
  model: "Model",
  param: "Parameter",
  metric: "Metric",
  code: "Code",
  environment: "Environment",
  outcome: "Outcome",
};

function ComparisonFacts({ data }: { data: ComparisonAnswer }) {
  if (!data.with) return <Empty>This is the first run that left records; there is none before it.</Empty>;
  const more = data.tasks.reduce((sum, task) => sum + (task.more ?? 0), 0);
  const rows = data.tasks.flatMap((task) =>
    task.change === "same"
      ? []
      : (task.changes.length > 0 ? task.changes : [null]).map((change) => ({ task, change })),
  ).filter((row) => row.change?.what !== "metric");
  const same = data.tasks.filter((task) => task.change === "same").length;
  const moved = data.metrics.filter((metric) => metric.before !== metric.after);
  return (
    <Stack gap={3}>
      <Text fontSize="sm">
        Against <RunLink dag={data.with.dag_id} run={data.with.run_id} />
        {same > 0 ? `; ${same} ${same === 1 ? "task is" : "tasks are"} the same` : ""}.
      </Text>
      {rows.length > 0 ? (
        <DataTable
          caption="Changes of tasks"
          columns={[
            { name: "Task", cell: (row) => (row.task.map_index >= 0 ? `${row.task.task_id} [${row.task.map_index}]` : row.task.task_id), by: (row) => row.task.task_id },
            { name: "Change", cell: (row) => <Mark of={row.task.change} /> },
            { name: "What", cell: (row) => (row.change ? (WHAT[row.change.what] ?? row.change.what) : ""), by: (row) => row.change?.what },
            { name: "Name", cell: (row) => row.change?.name ?? "", by: (row) => row.change?.name },
            { name: "Before", cell: (row) => <ChangedValue change={row.change} side="before" /> },
            { name: "After", cell: (row) => <ChangedValue change={row.change} side="after" /> },
          ]}
          maxHeight="24rem"
          rowKey={(_, index) => String(index)}
          rows={rows}
        />
      ) : (
        <Empty>No input, output, parameter, code or environment is different.</Empty>
      )}
      {more > 0 ? <Empty>And {number(more)} more changes.</Empty> : null}
      {data.truncated ? <Empty>The runs are large: only their first task instances were compared.</Empty> : null}
      <Hidden count={data.hidden} />
      {moved.length > 0 ? (
        <DataTable
          caption="Changes of metrics"
          columns={[
            { name: "Task", cell: (row) => row.task_id, by: (row) => row.task_id },
            { name: "Metric", cell: (row) => row.name, by: (row) => row.name },
            { name: "Before", cell: (row) => <Num value={row.before} />, right: true },
            { name: "After", cell: (row) => <Num value={row.after} />, right: true },
            { name: "Difference", cell: (row) => <Delta value={row.delta ?? difference(row.after, row.before)} />, right: true },
          ]}
          maxHeight="24rem"
          rowKey={(row, index) => `${row.task_id}-${row.name}-${index}`}
          rows={moved}
        />
      ) : null}
    </Stack>
  );
}

function ChangedValue({ change, side }: { change: Change | null; side: "before" | "after" }) {
  if (!change) return null;
  const value = change[side];
  const versions = Array.isArray(value) ? value.map(asVersion) : [asVersion(value)];
  if (versions.length > 0 && versions.every((each) => each !== null)) {
    return (
      <Stack gap={0}>
        {versions.map((version) => (
          <VersionLink key={version.version_id} named={version.name !== change.name} version={version} />
        ))}
      </Stack>
    );
  }
  return Array.isArray(value) && value.length === 0 ? <>none</> : <AnyValue value={value} />;
}

function asVersion(value: Json): { name: string; version_id: string } | null {
  if (!value || typeof value !== "object" || Array.isArray(value)) return null;
  const { name, version_id } = value;
  return typeof name === "string" && typeof version_id === "string" ? { name, version_id } : null;
}
