// SPDX-License-Identifier: Apache-2.0
import { Box, Button, Heading, HStack, SimpleGrid, Stack, Text } from "@chakra-ui/react";
import { useSearchParams } from "react-router-dom";
import { type Query, type TaskAnswer, type TaskMetricsAnswer, type TaskRecord, url, useApi } from "../api";
import { LineChart } from "../charts/LineChart";
import { finite, number, seconds, text } from "../format";
import { GraphOf } from "../graph/GraphView";
import { ModelLink, Out, runPath, TaskLink, To } from "../links";
import {
  AnyValue,
  Await,
  counted,
  Decision,
  Empty,
  Facts,
  Failure,
  Loading,
  Mark,
  Num,
  Pre,
  Section,
  Time,
  Values,
  VersionCards,
} from "../parts";
import { EvaluationFacts } from "./shared";

interface Props {
  dagId: string;
  runId: string;
  taskId: string;
  mapIndex: string;
}

/** What one attempt of a task read and wrote, and what it measured. */
export function TaskTab({ dagId, runId, taskId, mapIndex }: Props) {
  const [search, setSearch] = useSearchParams();
  const wanted = search.get("try_number");
  const path = ["dags", dagId, "runs", runId, "tasks", taskId];
  const query = { map_index: mapIndex, try_number: wanted };
  const answer = useApi<TaskAnswer>(url(path, query));
  return (
    <Await of={answer} what="what this task read and wrote">
      {(data) =>
        data.record ? (
          <Found data={data} path={path} query={query} pick={(one) => setSearch({ try_number: String(one) })} record={data.record} />
        ) : (
          <Box p={4}>
            <Text fontWeight="semibold">Nothing of machine learning here</Text>
            <Empty>
              {data.tries.length > 0
                ? "This attempt has left no record of artifacts or models."
                : "This task has not read or written an artifact or a model so far. A record is made when an attempt ends."}
            </Empty>
            {data.tries.length > 0 ? <Tries pick={(one) => setSearch({ try_number: String(one) })} shown={null} tries={data.tries} /> : null}
          </Box>
        )
      }
    </Await>
  );
}

function Tries({ tries, shown, pick }: { tries: number[]; shown: number | null; pick: (one: number) => void }) {
  if (tries.length === 0 || (tries.length === 1 && shown === tries[0])) return null;
  return (
    <HStack aria-label="Attempts" role="group">
      <Text color="fg.muted" fontSize="sm">
        Attempt
      </Text>
      {tries.map((one) => (
        <Button aria-pressed={one === shown} key={one} onClick={() => pick(one)} size="2xs" variant={one === shown ? "solid" : "outline"}>
          {one}
        </Button>
      ))}
    </HStack>
  );
}

function Found({
  data,
  record,
  path,
  query,
  pick,
}: {
  data: TaskAnswer;
  record: TaskRecord;
  path: string[];
  query: Query;
  pick: (one: number) => void;
}) {
  const { task } = data;
  const inOut = [...(record.inlets ?? []).map((uri) => ["in", uri]), ...(record.outlets ?? []).map((uri) => ["out", uri])];
  return (
    <Stack gap={4}>
      <HStack gap={4} wrap="wrap">
        <Mark of={record.outcome} />
        <Text fontSize="sm">
          {record.effective_at ? (
            <>
              Data until <Time brief value={record.effective_at} />
            </>
          ) : null}
          {record.recorded_at ? (
            <>
              {record.effective_at ? " · " : ""}recorded <Time value={record.recorded_at} />
            </>
          ) : null}
        </Text>
        {record.mlflow?.run_url ? (
          <Text fontSize="sm">
            <Out href={record.mlflow.run_url}>MLflow run</Out>
          </Text>
        ) : null}
        {record.models_written.map((model, index) =>
          model.mlflow_model_url ? (
            <Text fontSize="sm" key={index}>
              <Out href={model.mlflow_model_url}>MLflow model</Out>
            </Text>
          ) : null,
        )}
        <Text fontSize="sm">
          <To to={runPath(task.dag_id, task.run_id)}>ML page of this run</To>
        </Text>
        <Tries pick={pick} shown={task.try_number ?? null} tries={data.tries} />
      </HStack>
      {record.error ? (
        <Section title="Error">
          <Pre>{record.error}</Pre>
        </Section>
      ) : null}
      {record.decision ? (
        <Section title="Decision">
          <Decision of={record.decision} withTask={false} />
        </Section>
      ) : null}
      {record.cache ? <CacheFacts of={record.cache} /> : null}
      <SimpleGrid columns={{ base: 1, lg: 2 }} gap={4}>
        <Section note="Versions that this attempt loaded" title="Read">
          <VersionCards hidden={record.hidden} more={record.more?.reads} versions={record.reads} />
          <Models models={record.models_read} />
        </Section>
        <Section note="Versions that this attempt stored" title="Wrote">
          <VersionCards more={record.more?.writes} versions={record.writes} />
          <Models models={record.models_written} />
        </Section>
        {(record.reused ?? []).length > 0 ? (
          <Section note="Versions that an earlier execution stored" title="Reused">
            <VersionCards more={record.more?.reused} versions={record.reused!} />
          </Section>
        ) : null}
        {record.evaluation ? (
          <Section title="Evaluation">
            <EvaluationFacts of={record.evaluation} />
          </Section>
        ) : null}
        {Object.keys(record.params ?? {}).length > 0 ? (
          <Section title="Parameters">
            <Values of={record.params} />
          </Section>
        ) : null}
        {Object.keys(record.metrics ?? {}).length > 0 ? (
          <Section title="Metrics">
            <Facts of={Object.entries(record.metrics ?? {}).map(([name, value]) => [name, <Num key={name} value={value} />])} />
          </Section>
        ) : null}
      </SimpleGrid>
      {record.mlflow ? <Steps metricsKey={url([...path, "metrics"], query)} running={record.outcome === "running"} /> : null}
      <Section note="What this task is connected with" title="Neighbours">
        <GraphOf height="20rem" of={url([...path, "graph"], { ...query, depth: 1 })} />
      </Section>
      <SimpleGrid columns={{ base: 1, lg: 2 }} gap={4}>
        {Object.keys(record.code ?? {}).length > 0 ? (
          <Section title="Code">
            <Values of={record.code} />
          </Section>
        ) : null}
        {Object.keys(record.environment ?? {}).length > 0 ? (
          <Section title="Environment">
            <Environment of={record.environment!} />
          </Section>
        ) : null}
        {(record.triggered_by ?? []).length > 0 ? (
          <Section note="Asset events that started this run" title="Triggered by">
            <Facts
              of={record.triggered_by!.map((event) => [
                event.name ?? event.uri ?? "asset",
                <span key="event">
                  <Time value={event.timestamp} /> <AnyValue value={event.extra} />
                </span>,
              ])}
            />
          </Section>
        ) : null}
        {inOut.length > 0 ? (
          <Section title="Declared assets">
            <Facts of={inOut.map(([way, uri]) => [way === "in" ? "inlet" : "outlet", uri])} />
          </Section>
        ) : null}
      </SimpleGrid>
    </Stack>
  );
}

function Environment({ of }: { of: NonNullable<TaskRecord["environment"]> }) {
  const { packages, ...rest } = of;
  return (
    <>
      <Values of={rest} />
      {packages && typeof packages === "object" && !Array.isArray(packages) ? (
        <Box as="details" fontSize="sm" mt={2}>
          <summary>{counted(Object.keys(packages).length, "package")}</summary>
          <Values of={packages} />
        </Box>
      ) : null}
    </>
  );
}

function Models({ models }: { models: TaskRecord["models_read"] }) {
  if (models.length === 0) return null;
  return (
    <Stack gap={1} mt={3}>
      <Heading as="h3" size="xs">
        Models
      </Heading>
      {models.map((model, index) => (
        <Box borderColor="purple.solid" borderStartWidth="3px" fontSize="sm" key={index} ps={3}>
          <ModelLink model={model} />
          <Text color="fg.muted" overflowWrap="anywhere">
            {[
              model.role,
              model.model_id,
              ...Object.entries(model.metrics ?? {})
                .slice(0, 6)
                .map(([name, value]) => `${name} ${number(value)}`),
            ]
              .filter(Boolean)
              .join(" · ")}
          </Text>
          <HStack gap={3}>
            {model.mlflow_model_url ? <Out href={model.mlflow_model_url}>Model in MLflow</Out> : null}
            {model.mlflow_run_url ? <Out href={model.mlflow_run_url}>Run in MLflow</Out> : null}
          </HStack>
        </Box>
      ))}
    </Stack>
  );
}

function CacheFacts({ of }: { of: NonNullable<TaskRecord["cache"]> }) {
  return (
    <Section title={of.hit ? "Reused, not computed" : "Computed"}>
      <Facts
        of={[
          ...(of.why ? [["Why", of.why] as [string, string]] : []),
          ...(of.reused_from ? [["Reused from", <TaskLink key="from" task={of.reused_from} />] as [string, React.ReactNode]] : []),
          ...(of.hit && of.seconds_saved ? [["Saved", seconds(of.seconds_saved)] as [string, string]] : []),
          ...(of.key ? [["Key", of.key] as [string, string]] : []),
          ...(Array.isArray(of.not_in_key) && of.not_in_key.length > 0
            ? [["Not in the key", of.not_in_key.map((each) => text(each)).join(", ")] as [string, string]]
            : []),
        ]}
      />
    </Section>
  );
}

/** Metrics over steps, from MLflow: they come later than the rest, and their absence harms nothing else. */
function Steps({ metricsKey, running }: { metricsKey: string; running: boolean }) {
  const answer = useApi<TaskMetricsAnswer>(metricsKey, { refreshInterval: running ? 10_000 : 0 });
  const { data, error } = answer;
  if (!data && !error) return <Loading what="metrics from MLflow" />;
  if (error) return <Failure error={error} retry={() => void answer.mutate()} />;
  if (!data || data.state === "no_run") return null;
  if (data.state === "unavailable") {
    return (
      <Section title="Metrics over steps">
        <Empty>{data.message ?? "MLflow does not answer."}</Empty>
      </Section>
    );
  }
  const stepped = data.metrics.filter((metric) => metric.points.length > 1);
  const params = data.run?.params ?? {};
  return (
    <>
      {Object.keys(params).length > 0 ? (
        <Box as="details" fontSize="sm">
          <summary>{counted(Object.keys(params).length, "parameter")} in MLflow</summary>
          <Facts of={Object.entries(params).map(([name, value]) => [name, <AnyValue key={name} value={value} />])} />
        </Box>
      ) : null}
      {stepped.length > 0 ? (
        <Section
          note={stepped.some((metric) => metric.sampled) ? "Some lines are thinned out to 1,000 points" : undefined}
          title="Metrics over steps"
        >
          <SimpleGrid columns={{ base: 1, lg: 2, "2xl": 3 }} gap={4}>
            {stepped.map((metric) => (
              <LineChart
                height={180}
                key={metric.name}
                series={[
                  {
                    name: metric.name,
                    dots: metric.points.flatMap((point) => {
                      const y = finite(point.value);
                      return y === null ? [] : [{ x: point.step, y }];
                    }),
                  },
                ]}
                title={metric.name}
              />
            ))}
          </SimpleGrid>
        </Section>
      ) : null}
    </>
  );
}
