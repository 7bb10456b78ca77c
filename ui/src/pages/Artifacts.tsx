// SPDX-License-Identifier: Apache-2.0
import { Box, Code, Flex, Heading, HStack, SimpleGrid, Stack, Text } from "@chakra-ui/react";
import { useSearchParams } from "react-router-dom";
import { type ArtifactItem, type Growth, type Page, url, useApi, usePages, type Version, type VersionAnswer } from "../api";
import { LineChart } from "../charts/LineChart";
import { bytes, number, short } from "../format";
import { lineagePath, mlPage, TaskLink, To, VersionLink } from "../links";
import {
  Await,
  DataTable,
  Empty,
  Facts,
  Failure,
  Hidden,
  Loading,
  Mark,
  More,
  Preview,
  rowCount,
  Schema,
  Section,
  Time,
} from "../parts";
import { Search } from "./shared";

export function Artifacts() {
  const [search, setSearch] = useSearchParams();
  const name = search.get("artifact");
  const wanted = search.get("search") ?? "";
  if (name) return <OneArtifact key={name} name={name} versionId={search.get("version")} />;
  return (
    <Stack gap={3}>
      <Search
        label="Search artifacts by name"
        search={(value) => setSearch({ tab: "artifacts", ...(value ? { search: value } : {}) }, { replace: true })}
        value={wanted}
      />
      <ArtifactList search={wanted} />
    </Stack>
  );
}

function ArtifactList({ search }: { search: string }) {
  const pages = usePages<Page<ArtifactItem>>(url(["artifacts"], { search }));
  if (pages.error && pages.pages.length === 0) return <Failure error={pages.error} retry={pages.retry} />;
  if (pages.isLoading) return <Loading what="artifacts" />;
  if (pages.items.length === 0) {
    return (
      <Stack>
        <Empty>{search ? `No artifact's name holds "${search}".` : "No artifact was stored so far. Every value that a task returns becomes one."}</Empty>
        <Hidden count={pages.hidden} />
      </Stack>
    );
  }
  return (
    <Stack gap={2}>
      <DataTable
        caption="Artifacts"
        columns={[
          {
            name: "Artifact",
            cell: (row: ArtifactItem) => <To to={mlPage({ tab: "artifacts", artifact: row.name })}>{row.name}</To>,
            by: (row) => row.name,
          },
          { name: "Type", cell: (row) => row.latest?.type ?? "–", by: (row) => row.latest?.type },
          { name: "Latest size", cell: (row) => bytes(row.latest?.size_bytes), by: (row) => row.latest?.size_bytes, right: true },
          { name: "Data until", cell: (row) => <Time brief value={row.latest?.effective_at} />, by: (row) => row.latest?.effective_at },
          { name: "Written", cell: (row) => <Time value={row.latest?.recorded_at} />, by: (row) => row.latest?.recorded_at },
          { name: "By", cell: (row) => <TaskLink task={row.latest?.producer} /> },
        ]}
        rowKey={(row) => row.name}
        rows={pages.items}
      />
      <Hidden count={pages.hidden} />
      <More loading={pages.loadingMore} more={pages.more} />
    </Stack>
  );
}

function OneArtifact({ name, versionId }: { name: string; versionId: string | null }) {
  const answer = useApi<VersionAnswer>(url(["artifacts", "version"], { name, version_id: versionId }));
  return (
    <Stack gap={4}>
      <Box>
        <Text fontSize="sm">
          <To to={mlPage({ tab: "artifacts" })}>← All artifacts</To>
        </Text>
        <Heading as="h2" overflowWrap="anywhere" size="lg">
          {name}
        </Heading>
      </Box>
      <Await of={answer} what="this version">
        {(data) => <VersionFacts data={data} latest={versionId === null} />}
      </Await>
      <Sizes name={name} />
      <Versions name={name} shown={answer.data?.version.version_id ?? versionId} />
    </Stack>
  );
}

function VersionFacts({ data, latest }: { data: VersionAnswer; latest: boolean }) {
  const { version } = data;
  const rows = rowCount(version.schema);
  return (
    <SimpleGrid columns={{ base: 1, xl: 2 }} gap={4}>
      <Section title={latest ? "Latest version" : "This version"}>
        <Facts
          of={[
            ["Version", <Whole key="id">{version.version_id}</Whole>],
            ["Type", version.type ?? "–"],
            ["Format", version.format ?? "–"],
            ["Size", bytes(version.size_bytes)],
            ...(rows === null ? [] : [["Rows", number(rows)] as [string, string]]),
            ["Data until", <Time brief key="until" value={version.effective_at} />],
            ...(version.data_interval
              ? [
                  [
                    "Data interval",
                    <span key="interval">
                      <Time brief value={version.data_interval[0]} /> to <Time brief value={version.data_interval[1]} />
                    </span>,
                  ] as [string, React.ReactNode],
                ]
              : []),
            ["Written", <Time key="written" value={version.recorded_at} />],
            ["By", <TaskLink key="by" task={version.producer} />],
            ...(version.producer ? [["In the run", version.producer.run_id] as [string, string]] : []),
            ["Digest", <Whole key="digest">{version.digest ?? "–"}</Whole>],
          ]}
        />
        {version.node ? (
          <Text fontSize="sm" mt={2}>
            <To to={lineagePath(version.node)}>Lineage: what made it, and what used it</To>
          </Text>
        ) : null}
        <Heading as="h3" mt={4} size="xs">
          Read by
        </Heading>
        {data.readers.length > 0 ? (
          <DataTable
            caption="Tasks that read this version"
            columns={[
              { name: "Task", cell: (row) => <TaskLink task={row.task} />, by: (row) => `${row.task.dag_id} ${row.task.task_id}` },
              { name: "Run", cell: (row) => row.task.run_id, by: (row) => row.task.run_id },
              { name: "Outcome", cell: (row) => (row.outcome ? <Mark of={row.outcome} /> : "–") },
              { name: "When", cell: (row) => <Time value={row.recorded_at} />, by: (row) => row.recorded_at },
            ]}
            maxHeight="20rem"
            rowKey={(row, index) => `${row.task.run_id}-${row.task.task_id}-${index}`}
            rows={data.readers}
          />
        ) : data.hidden ? null : (
          <Empty>No task has read it.</Empty>
        )}
        {data.readers_more ? <Empty>There are more than are shown.</Empty> : null}
        <Hidden count={data.hidden} />
      </Section>
      <Section title="Schema and preview">
        <Stack gap={4}>
          <Schema value={version.schema} />
          <Preview of={version.name} value={version.preview} />
        </Stack>
      </Section>
    </SimpleGrid>
  );
}

function Whole({ children }: { children: string }) {
  return (
    <Code display="inline" wordBreak="break-all">
      {children}
    </Code>
  );
}

function Sizes({ name }: { name: string }) {
  const answer = useApi<Growth>(url(["artifacts", "growth"], { name }));
  return (
    <Section title="Growth">
      <Await of={answer} what="sizes">
        {(data) => {
          const shared = data.bytes_logical ? (data.bytes_shared ?? 0) / data.bytes_logical : 0;
          const dots = (of: "size_bytes" | "new_bytes") =>
            data.points.flatMap((point) => {
              const x = Date.parse(point.recorded_at);
              const y = point[of];
              return Number.isNaN(x) || y === null || y === undefined ? [] : [{ x, y }];
            });
          return (
            <Stack gap={3}>
              <Flex fontSize="sm" gap={6} wrap="wrap">
                <Total name="Versions" value={`${number(data.versions)}${data.complete === false ? " or more" : ""}`} />
                <Total name="All versions together" value={bytes(data.bytes_logical)} />
                <Total name="Stored" value={bytes(data.bytes_stored)} />
                <Total name="Shared between versions" value={`${bytes(data.bytes_shared)}${data.bytes_logical ? ` (${Math.round(shared * 100)} %)` : ""}`} />
              </Flex>
              {data.complete === false ? <Empty>Measured on the newest {number(data.versions)} versions; there are more.</Empty> : null}
              {data.points.length > 1 ? (
                <LineChart
                  axis={bytes}
                  height={180}
                  series={[
                    { name: "size", dots: dots("size_bytes") },
                    ...(dots("new_bytes").length > 0 ? [{ name: "new bytes", dots: dots("new_bytes") }] : []),
                  ]}
                  times
                  title="Size of each version"
                  xName="Written"
                />
              ) : null}
            </Stack>
          );
        }}
      </Await>
    </Section>
  );
}

function Total({ name, value }: { name: string; value: string }) {
  return (
    <Box>
      <Text color="fg.muted">{name}</Text>
      <Text fontWeight="semibold">{value}</Text>
    </Box>
  );
}

function Versions({ name, shown }: { name: string; shown: string | null }) {
  const pages = usePages<Page<Version>>(url(["artifacts", "versions"], { name, limit: 50 }));
  if (pages.error && pages.pages.length === 0) return <Failure error={pages.error} retry={pages.retry} />;
  if (pages.isLoading) return <Loading what="versions" />;
  return (
    <Section note="Newest first" title="Versions">
      <DataTable
        caption={`Versions of ${name}`}
        columns={[
          {
            name: "Version",
            cell: (row: Version) => (
              <HStack gap={2}>
                <VersionLink named={false} version={row} />
                {row.version_id === shown ? <Mark of="shown" /> : null}
              </HStack>
            ),
          },
          { name: "Data until", cell: (row) => <Time brief value={row.effective_at} />, by: (row) => row.effective_at },
          { name: "Written", cell: (row) => <Time value={row.recorded_at} />, by: (row) => row.recorded_at },
          { name: "Type", cell: (row) => row.type ?? "–" },
          { name: "Size", cell: (row) => bytes(row.size_bytes), by: (row) => row.size_bytes, right: true },
          { name: "Digest", cell: (row) => (row.digest ? <Code title={row.digest}>{short(row.digest, 20)}</Code> : "–") },
          { name: "By", cell: (row) => <TaskLink task={row.producer} /> },
        ]}
        maxHeight="30rem"
        rowKey={(row) => row.version_id}
        rows={pages.items}
      />
      <Hidden count={pages.hidden} />
      <More loading={pages.loadingMore} more={pages.more} />
    </Section>
  );
}
