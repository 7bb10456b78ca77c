// SPDX-License-Identifier: Apache-2.0
import { Box, Heading, HStack, SimpleGrid, Stack, Text } from "@chakra-ui/react";
import { useSearchParams } from "react-router-dom";
import {
  type ModelDiff,
  type ModelItem,
  type ModelVersion,
  type Move,
  type Page,
  type TaskAnswer,
  url,
  useApi,
  usePages,
} from "../api";
import { byFame, firstMetric, newestFirst, number } from "../format";
import { lineagePath, mlPage, modelPath, Out, TaskLink, To } from "../links";
import {
  AnyValue,
  Await,
  Command,
  DataTable,
  Decision,
  Empty,
  Facts,
  Failure,
  Hidden,
  Loading,
  Mark,
  More,
  Num,
  Section,
  Time,
  Values,
  VersionCards,
} from "../parts";
import { Diff } from "./Diff";
import { Choice, DayByDay, metricNames, Search } from "./shared";

export function Models() {
  const [search, setSearch] = useSearchParams();
  const name = search.get("model");
  if (name) return <OneModel key={name} name={name} />;
  const wanted = search.get("search") ?? "";
  return (
    <Stack gap={3}>
      <Search
        label="Search registered models"
        search={(value) => setSearch({ tab: "models", ...(value ? { search: value } : {}) }, { replace: true })}
        value={wanted}
      />
      <ModelList search={wanted} />
    </Stack>
  );
}

function ModelList({ search }: { search: string }) {
  const pages = usePages<Page<ModelItem>>(url(["models"], { search }));
  if (pages.error && pages.pages.length === 0) return <Failure error={pages.error} retry={pages.retry} />;
  if (pages.isLoading) return <Loading what="models" />;
  if (pages.items.length === 0) {
    return (
      <Empty>
        {search
          ? `No model's name holds "${search}".`
          : "No model was registered by a task so far. PromoteModelOperator and RegisterModelOperator do that."}
      </Empty>
    );
  }
  return (
    <Stack gap={2}>
      <DataTable
        caption="Registered models"
        columns={[
          { name: "Model", cell: (row: ModelItem) => <To to={modelPath(row.name)}>{row.name}</To>, by: (row) => row.name },
          {
            name: "Aliases",
            cell: (row) => (
              <Stack gap={1}>
                {row.aliases.map((alias) => (
                  <HStack gap={2} key={alias.alias} wrap="wrap">
                    <Mark of={alias.alias} />
                    <span>{alias.version ? `version ${alias.version}` : "nothing"}</span>
                    {alias.since ? (
                      <Text as="span" color="fg.muted" fontSize="sm">
                        since <Time brief value={alias.since} />
                      </Text>
                    ) : null}
                  </HStack>
                ))}
                {row.aliases.length === 0 ? "–" : null}
              </Stack>
            ),
          },
          {
            name: "Metrics",
            cell: (row) => {
              const metrics = row.aliases[0]?.metrics ?? {};
              const main = firstMetric(Object.keys(metrics));
              return main ? `${main} ${number(metrics[main])}` : "–";
            },
          },
          { name: "Latest version", cell: (row) => row.latest_version ?? "–", by: (row) => Number(row.latest_version), right: true },
          { name: "Last change", cell: (row) => <Time value={row.last_change} />, by: (row) => row.last_change },
          { name: "MLflow", cell: (row) => (row.mlflow_model_url ? <Out href={row.mlflow_model_url}>open</Out> : "–") },
        ]}
        rowKey={(row) => row.name}
        rows={pages.items}
      />
      <Hidden count={pages.hidden} />
      <More loading={pages.loadingMore} more={pages.more} />
    </Stack>
  );
}

const REFUSED = new Set(["rejected", "withheld"]);
const MOVES = new Set(["promotion", "rollback", "observed"]);

/** All that is asked about one model: what made its champion, what was refused and why, what changed, how it did. */
function OneModel({ name }: { name: string }) {
  const [search, setSearch] = useSearchParams();
  const item = useApi<ModelItem>(url(["models", name]));
  const versions = usePages<Page<ModelVersion>>(url(["models", name, "versions"], { limit: 25 }));
  const timeline = usePages<Page<Move>>(url(["models", name, "timeline"], { limit: 100 }));
  const aliases = item.data?.aliases ?? [];
  const alias = search.get("alias") ?? (aliases.some((each) => each.alias === "champion") ? "champion" : aliases[0]?.alias) ?? null;
  const held = aliases.find((each) => each.alias === alias);
  const shown = search.get("version") ?? held?.version ?? versions.items[0]?.version ?? null;
  const listed = versions.items.find((each) => each.version === shown);
  // Of many versions the champion may be far from the latest.
  const alone = useApi<Page<ModelVersion>>(
    shown && !listed && !versions.isLoading ? url(["models", name, "versions"], { version: shown }) : null,
  );
  const version = listed ?? alone.data?.items[0];
  const decisions = newestFirst(timeline.items);
  const moves = decisions.filter((move) => move.alias === alias && MOVES.has(move.kind) && move.version);
  const refused = decisions.find((move) => REFUSED.has(move.kind));
  const set = (change: Record<string, string | null>) => {
    const next = new URLSearchParams(search);
    for (const [key, value] of Object.entries(change)) if (value === null) next.delete(key);
      else next.set(key, value);
    setSearch(next, { replace: true });
  };
  if (item.error) {
    return (
      <Stack>
        <Back />
        <Failure error={item.error} retry={() => void item.mutate()} />
      </Stack>
    );
  }
  if (!item.data) return <Loading what={`the model ${name}`} />;
  const from = search.get("from") ?? moves[0]?.previous_version ?? null;
  const to = search.get("to") ?? moves[0]?.version ?? null;
  const known = [...new Set([...versions.items.map((each) => each.version), ...[shown, from, to].filter((each) => each !== null)])];
  return (
    <Stack gap={4}>
      <Box>
        <Back />
        <HStack gap={4} wrap="wrap">
          <Heading as="h2" overflowWrap="anywhere" size="lg">
            {name}
          </Heading>
          {aliases.map((each) => (
            <HStack gap={1} key={each.alias}>
              <Mark of={each.alias} />
              <Text fontSize="sm">{each.version ? `version ${each.version}` : "nothing"}</Text>
            </HStack>
          ))}
          {item.data.mlflow_model_url ? (
            <Text fontSize="sm">
              <Out href={item.data.mlflow_model_url}>MLflow</Out>
            </Text>
          ) : null}
        </HStack>
      </Box>
      <SimpleGrid columns={{ base: 1, xl: 2 }} gap={4}>
        <Section
          actions={known.length > 1 && shown ? <Choice choose={(value) => set({ version: value })} label="Version" options={known} value={shown} /> : undefined}
          title={shown === held?.version && alias ? `What made the ${alias}` : `What made version ${shown ?? ""}`}
        >
          {version ? (
            <MadeFrom version={version} />
          ) : versions.isLoading || alone.isLoading ? (
            <Loading what="versions" />
          ) : alone.error ? (
            <Failure error={alone.error} retry={() => void alone.mutate()} />
          ) : (
            <Empty>{shown ? `No record tells of version ${shown}.` : "No version is known."}</Empty>
          )}
        </Section>
        <Stack gap={4} minW={0}>
          <Section title="Last challenger that was refused">
            {refused ? (
              <Stack gap={2}>
                <Decision of={refused} />
                <Text color="fg.muted" fontSize="sm">
                  Data until <Time brief value={refused.effective_at} />, decided <Time value={refused.recorded_at} />
                </Text>
              </Stack>
            ) : timeline.isLoading ? (
              <Loading what="decisions" />
            ) : timeline.error ? (
              <Failure error={timeline.error} retry={timeline.retry} />
            ) : (
              <Empty>None of the decisions shown below refused one.</Empty>
            )}
          </Section>
          {(item.data.hints ?? []).length > 0 ? (
            <Section title="What can be done">
              <Stack gap={3}>
                {item.data.hints!.map((hint, index) => (
                  <Stack fontSize="sm" gap={1} key={index}>
                    <Text overflowWrap="anywhere">
                      {hint.href && /^\/(?!\/)/.test(hint.href) ? <To to={hint.href}>{hint.text}</To> : hint.text}
                    </Text>
                    {hint.command ? <Command text={hint.command} /> : null}
                  </Stack>
                ))}
              </Stack>
            </Section>
          ) : null}
        </Stack>
      </SimpleGrid>
      <Section
        note="Evaluations over data time: a line for each version, dashed where the alias moved"
        title={`How it did day by day`}
      >
        <DayByDay model={name} of={url(["models", name, "evaluations"], { limit: 80 })} />
      </Section>
      <Section
        actions={
          known.length > 1 ? (
            <HStack wrap="wrap">
              <Choice choose={(value) => set({ from: value })} label="From version" options={known} value={from ?? known[0]!} />
              <Choice choose={(value) => set({ to: value })} label="to version" options={known} value={to ?? known[0]!} />
            </HStack>
          ) : undefined
        }
        note={search.get("from") || search.get("to") ? undefined : `The present ${alias ?? "version"} against the one before`}
        title={from && to ? `What changed from version ${from} to ${to}` : "What changed"}
      >
        {from && to && from !== to ? (
          <DiffOf from={from} name={name} to={to} />
        ) : timeline.isLoading ? (
          <Loading what="versions" />
        ) : (
          <Empty>Choose two different versions.</Empty>
        )}
      </Section>
      <Section note="Newest first; decisions that moved nothing are in it" title="Timeline of aliases">
        {timeline.items.length > 0 ? (
          <Stack as="ol" gap={0} listStyleType="none">
            {decisions.map((move, index) => (
              <Box as="li" borderColor="border" borderStartWidth="2px" key={index} pb={4} position="relative" ps={4}>
                <Box
                  aria-hidden
                  bg={MOVES.has(move.kind) ? "green.solid" : REFUSED.has(move.kind) ? "red.solid" : "gray.solid"}
                  borderRadius="full"
                  boxSize="9px"
                  insetStart="-5.5px"
                  position="absolute"
                  top="6px"
                />
                <Text color="fg.muted" fontSize="sm">
                  Data until <Time brief value={move.effective_at} /> · recorded <Time value={move.recorded_at} />
                </Text>
                <Decision of={move} />
              </Box>
            ))}
          </Stack>
        ) : timeline.isLoading ? (
          <Loading what="the ledger" />
        ) : timeline.error ? (
          <Failure error={timeline.error} retry={timeline.retry} />
        ) : (
          <Empty>No alias was moved so far.</Empty>
        )}
        <Hidden count={timeline.hidden} />
        <More loading={timeline.loadingMore} more={timeline.more} />
      </Section>
      <Section title="Versions">
        {versions.error && versions.pages.length === 0 ? (
          <Failure error={versions.error} retry={versions.retry} />
        ) : (
          <VersionTable name={name} versions={versions.items} />
        )}
        <More loading={versions.loadingMore} more={versions.more} />
      </Section>
    </Stack>
  );
}

function Back() {
  return (
    <Text fontSize="sm">
      <To to={mlPage({ tab: "models" })}>← All models</To>
    </Text>
  );
}

function DiffOf({ name, from, to }: { name: string; from: string; to: string }) {
  const answer = useApi<ModelDiff>(url(["models", name, "diff"], { from, to }));
  return (
    <Await of={answer} what="the differences">
      {(data) => <Diff of={data} />}
    </Await>
  );
}

/** The data and the code of a version: what its training read, and which code ran. */
function MadeFrom({ version }: { version: ModelVersion }) {
  const { trained_by: task } = version;
  const answer = useApi<TaskAnswer>(
    task ? url(["dags", task.dag_id, "runs", task.run_id, "tasks", task.task_id], { map_index: task.map_index, try_number: task.try_number }) : null,
  );
  const record = answer.data?.record;
  return (
    <Stack gap={3}>
      <Facts
        of={[
          ["Version", version.version],
          ...(task ? ([["Trained by", <TaskLink key="task" task={task} />]] as [string, React.ReactNode][]) : []),
          ...(task ? [["In the run", task.run_id] as [string, string]] : []),
          ["Data until", <Time brief key="until" value={version.effective_at} />],
          ...Object.entries(version.metrics ?? {})
            .slice(0, 6)
            .map(([name, value]) => [name, <Num key={name} value={value} />] as [string, React.ReactNode]),
          ...(version.mlflow_run_url ? ([["MLflow", <Out href={version.mlflow_run_url} key="mlflow">run</Out>]] as [string, React.ReactNode][]) : []),
        ]}
      />
      {version.node ? (
        <Text fontSize="sm">
          <To to={lineagePath(version.node)}>Lineage of this version</To>
        </Text>
      ) : null}
      {!task ? <Empty>No task of this Airflow trained it, as far as records tell.</Empty> : null}
      {task && answer.error ? <Failure error={answer.error} /> : null}
      {task && answer.isLoading ? <Loading what="its data and code" /> : null}
      {task && answer.data && !record ? <Empty>The record of its training is gone.</Empty> : null}
      {record ? (
        <>
          <Heading as="h3" size="xs">
            Data
          </Heading>
          <VersionCards hidden={record.hidden} versions={record.reads} />
          <Heading as="h3" size="xs">
            Code
          </Heading>
          <Values of={record.code} />
          {Object.keys(record.params ?? {}).length > 0 ? (
            <>
              <Heading as="h3" size="xs">
                Parameters
              </Heading>
              <Values of={record.params} />
            </>
          ) : null}
        </>
      ) : null}
    </Stack>
  );
}

function VersionTable({ name, versions }: { name: string; versions: ModelVersion[] }) {
  const names = metricNames(versions.flatMap((each) => [each.metrics, each.decision?.metrics]));
  const few = byFame(names).slice(0, 4);
  const value = (row: ModelVersion, metric: string) => row.metrics?.[metric] ?? row.decision?.metrics?.[metric];
  return (
    <DataTable
      caption={`Versions of ${name}`}
      columns={[
        {
          name: "Version",
          cell: (row: ModelVersion) => <To to={mlPage({ tab: "models", model: name, version: row.version })}>{row.version}</To>,
          by: (row) => Number(row.version),
        },
        {
          name: "Aliases",
          cell: (row) => (
            <HStack gap={1} wrap="wrap">
              {(row.aliases ?? []).map((alias) => (
                <Mark key={alias} of={alias} />
              ))}
            </HStack>
          ),
        },
        { name: "Data until", cell: (row) => <Time brief value={row.effective_at} />, by: (row) => row.effective_at },
        { name: "Registered", cell: (row) => <Time value={row.recorded_at} />, by: (row) => row.recorded_at },
        ...few.map((metric) => ({
          name: metric,
          right: true,
          cell: (row: ModelVersion) => <Num value={value(row, metric)} />,
          by: (row: ModelVersion) => {
            const found = value(row, metric);
            return typeof found === "number" ? found : null;
          },
        })),
        {
          name: "Parameters",
          cell: (row) =>
            Object.keys(row.params ?? {}).length > 0 ? (
              <AnyValue value={Object.entries(row.params!).map(([key, each]) => `${key}=${String(each)}`).join(", ")} />
            ) : (
              "–"
            ),
        },
        { name: "Trained by", cell: (row) => <TaskLink task={row.trained_by} /> },
        { name: "MLflow", cell: (row) => (row.mlflow_run_url ? <Out href={row.mlflow_run_url}>run</Out> : "–") },
      ]}
      rowKey={(row) => row.version}
      rows={versions}
    />
  );
}
