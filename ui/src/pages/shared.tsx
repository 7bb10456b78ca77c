// SPDX-License-Identifier: Apache-2.0
import { Box, Button, HStack, Input, NativeSelect, SimpleGrid, Stack, Text } from "@chakra-ui/react";
import { useEffect, useId, useState } from "react";
import type { Champions, Evaluation, EvaluationsPage, Metric, Metrics } from "../api";
import { usePages } from "../api";
import { LineChart, type LineMark, type Series } from "../charts/LineChart";
import { choices, finite, firstMetric, number, type Option, short } from "../format";
import { modelPath, Out, TaskLink, To } from "../links";
import { type Column, DataTable, Delta, Empty, Facts, Failure, Hidden, Loading, More, Num, Time } from "../parts";

export function Choice({
  label,
  value,
  options,
  choose,
}: {
  label: string;
  value: string;
  options: (string | Option)[];
  choose: (value: string) => void;
}) {
  const id = useId();
  return (
    <HStack gap={2}>
      <Text asChild color="fg.muted" fontSize="sm" whiteSpace="nowrap">
        <label htmlFor={id}>{label}</label>
      </Text>
      <NativeSelect.Root size="xs" width="auto">
        <NativeSelect.Field id={id} onChange={(event) => choose(event.target.value)} value={value}>
          {choices(value, options).map((each) => (
            <option key={each.value} value={each.value}>
              {each.label}
            </option>
          ))}
        </NativeSelect.Field>
        <NativeSelect.Indicator />
      </NativeSelect.Root>
    </HStack>
  );
}

/** A search box that asks once its reader stops typing. */
export function Search({ label, value, search }: { label: string; value: string; search: (value: string) => void }) {
  const [typed, setTyped] = useState(value);
  useEffect(() => setTyped(value), [value]);
  useEffect(() => {
    if (typed === value) return;
    const timer = setTimeout(() => search(typed), 300);
    return () => clearTimeout(timer);
  }, [typed, value, search]);
  return <Input aria-label={label} maxW="24rem" onChange={(event) => setTyped(event.target.value)} placeholder={label} size="sm" type="search" value={typed} />;
}

export function difference(after: Metric | null | undefined, before: Metric | null | undefined): number | null {
  const [a, b] = [finite(after), finite(before)];
  return a === null || b === null ? null : a - b;
}

export function EvaluationFacts({ of }: { of: Evaluation }) {
  const model = of.registered_model_name
    ? `${of.registered_model_name}${of.version ? ` version ${of.version}` : ""}`
    : (of.model_uri ?? "model");
  const baseline = of.baseline_uri
    ? `${of.baseline_uri}${of.baseline_version ? ` (version ${of.baseline_version})` : ""}`
    : null;
  const rows = Object.entries(of.metrics).sort(([a], [b]) => a.localeCompare(b));
  return (
    <Stack gap={3}>
      <Facts
        of={[
          ["Model", of.registered_model_name ? <To key="model" to={modelPath(of.registered_model_name)}>{model}</To> : model],
          ...(baseline ? [["Baseline", baseline] as [string, string]] : []),
          ...(of.rows ? [["Rows", number(of.rows)] as [string, string]] : []),
          ...(of.effective_at ? ([["Data until", <Time brief key="until" value={of.effective_at} />]] as [string, React.ReactNode][]) : []),
          ...(of.mlflow_run_url ? ([["MLflow", <Out href={of.mlflow_run_url} key="run">run of this evaluation</Out>]] as [string, React.ReactNode][]) : []),
        ]}
      />
      <DataTable
        caption="Metrics of the evaluation"
        columns={[
          { name: "Metric", cell: ([name]) => name },
          { name: "Model", cell: ([, value]) => <Num value={value} />, right: true },
          ...(of.baseline_metrics
            ? ([
                { name: "Baseline", cell: ([name]) => <Num value={of.baseline_metrics?.[name]} />, right: true },
                { name: "Gain", cell: ([name, value]) => <Delta value={difference(value, of.baseline_metrics?.[name])} />, right: true },
              ] satisfies Column<[string, Metric]>[])
            : []),
        ]}
        rowKey={([name]) => name}
        rows={rows}
      />
    </Stack>
  );
}

export function metricNames(all: (Metrics | undefined | null)[]): string[] {
  return [...new Set(all.flatMap((metrics) => Object.keys(metrics ?? {})))].sort();
}

/** One line for each model version over data time. */
export function evaluationLines(evaluations: Evaluation[], metric: string): Series[] {
  const lines = new Map<string, Series>();
  for (const each of evaluations) {
    const y = finite(each.metrics[metric]);
    const x = Date.parse(each.effective_at ?? each.recorded_at ?? "");
    if (y === null || Number.isNaN(x)) continue;
    const name = each.version
      ? `version ${each.version}`
      : short(each.model_id ?? each.model_uri ?? "unregistered", 14);
    const series = lines.get(name) ?? { name, dots: [] };
    series.dots.push({ x, y, note: each.rows ? `${number(each.rows)} rows` : undefined });
    lines.set(name, series);
  }
  for (const series of lines.values()) series.dots.sort((a, b) => a.x - b.x);
  return [...lines.values()].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
}

/** Where the champion changed: only moves, not the decisions that moved nothing. */
export function championMarks(champions: Champions[] | undefined, model: string): LineMark[] {
  return (champions ?? [])
    // Models that are judged before they are registered have no name yet.
    .filter((each) => each.registered_model_name === model || model === "")
    .flatMap((each) =>
      each.moves
        .filter((move) => ["promotion", "rollback", "observed"].includes(move.kind) && move.version && move.effective_at)
        .map((move) => ({ x: Date.parse(move.effective_at!), label: `${each.alias} v${move.version}` })),
    )
    .filter((mark) => !Number.isNaN(mark.x));
}

/** Evaluations over data time with a line for each model version and marks where the champion changed. */
export function DayByDay({ of, model, height = 280 }: { of: string; model?: string; height?: number }) {
  const pages = usePages<EvaluationsPage>(of);
  const [chosenModel, setModel] = useState<string | null>(null);
  const [chosenMetric, setMetric] = useState<string | null>(null);
  const [slice, setSlice] = useState<"table" | null>(null);
  if (pages.error && pages.pages.length === 0) return <Failure error={pages.error} retry={pages.retry} />;
  if (pages.isLoading) return <Loading what="evaluations" />;
  const models = [...new Set(pages.items.map((each) => each.registered_model_name ?? ""))].sort();
  const shownModel = model ?? chosenModel ?? models.find(Boolean) ?? models[0] ?? "";
  const evaluations = pages.items.filter((each) => (each.registered_model_name ?? "") === shownModel);
  const names = metricNames(evaluations.map((each) => each.metrics));
  const metric = chosenMetric && names.includes(chosenMetric) ? chosenMetric : firstMetric(names);
  if (pages.items.length === 0 || metric === undefined) {
    return (
      <>
        <Empty>No evaluations were recorded. A task of EvaluateModelOperator or @task.evaluate makes them.</Empty>
        <Hidden count={pages.hidden} />
      </>
    );
  }
  const champions = pages.pages.flatMap((page) => page.champions ?? []);
  const known = new Map(champions.map((each) => [`${each.registered_model_name}@${each.alias}`, each]));
  return (
    <Stack gap={2}>
      <HStack gap={4} wrap="wrap">
        {model === undefined && models.length > 1 ? (
          <Choice choose={setModel} label="Model" options={models.map((each) => ({ value: each, label: each || "not registered" }))} value={shownModel} />
        ) : null}
        <Choice choose={setMetric} label="Metric" options={names} value={metric} />
        <Button aria-expanded={slice === "table"} onClick={() => setSlice(slice ? null : "table")} size="2xs" variant="outline">
          {slice ? "Hide the evaluations" : "List the evaluations"}
        </Button>
      </HStack>
      <LineChart
        height={height}
        marks={championMarks([...known.values()], shownModel)}
        series={evaluationLines(evaluations, metric)}
        times
        title={`${metric} of ${shownModel || "models that are not registered"} over data time`}
        xName="Data until"
      />
      {slice ? (
        <DataTable
          caption="Evaluations"
          columns={[
            { name: "Data until", cell: (row: Evaluation) => <Time brief value={row.effective_at} />, by: (row) => row.effective_at },
            { name: "Version", cell: (row) => row.version ?? row.model_id ?? "–", by: (row) => row.version },
            { name: metric, cell: (row) => <Num value={row.metrics[metric]} />, by: (row) => finite(row.metrics[metric]), right: true },
            { name: "Baseline", cell: (row) => <Num value={row.baseline_metrics?.[metric]} />, right: true },
            { name: "Rows", cell: (row) => number(row.rows), by: (row) => row.rows, right: true },
            { name: "Task", cell: (row) => <TaskLink task={row.task} /> },
          ]}
          maxHeight="24rem"
          rowKey={(row, index) => `${row.task.run_id}-${row.task.task_id}-${row.task.map_index}-${index}`}
          rows={evaluations}
        />
      ) : null}
      <Hidden count={pages.hidden} />
      <More loading={pages.loadingMore} more={pages.more} />
    </Stack>
  );
}

/** Several metrics over runs or steps, each in a chart of its own: their scales differ. */
export function SmallCharts({ charts, times }: { charts: { name: string; series: Series[] }[]; times: boolean }) {
  const [all, setAll] = useState(false);
  const shown = all ? charts : charts.slice(0, 6);
  return (
    <Box>
      <SimpleGrid columns={{ base: 1, lg: 2, "2xl": 3 }} gap={4}>
        {shown.map((chart) => (
          <LineChart height={180} key={chart.name} series={chart.series} times={times} title={chart.name} xName={times ? "Run" : "Step"} />
        ))}
      </SimpleGrid>
      {charts.length > shown.length ? (
        <Button mt={2} onClick={() => setAll(true)} size="xs" variant="outline">
          Show all {charts.length} metrics
        </Button>
      ) : null}
    </Box>
  );
}
