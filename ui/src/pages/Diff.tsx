// SPDX-License-Identifier: Apache-2.0
import { Box, Heading, Stack, Text } from "@chakra-ui/react";
import type { Difference, GraphNode, ModelDiff } from "../api";
import { bytes, number } from "../format";
import { TaskLink, VersionLink } from "../links";
import { AnyValue, counted, DataTable, Delta, Empty, Hidden, Mark, Num, Pre, Time } from "../parts";
import { difference } from "./shared";

const NAMES: Record<string, string> = {
  data: "the data",
  code: "the code",
  params: "the parameters",
  metrics: "the metrics",
  environment: "the environment",
  evaluations: "the evaluations",
};

/** What two model versions differ in: data first, since that is what changes most often. */
export function Diff({ of }: { of: ModelDiff }) {
  const same = (of.same ?? []).map((name) => NAMES[name] ?? name);
  return (
    <Stack gap={4}>
      <Text fontSize="sm">
        <Trained node={of.from} />; <Trained node={of.to} />.{same.length > 0 ? ` The same: ${same.join(", ")}.` : ""}
      </Text>
      {(of.notes ?? []).map((note, index) => (
        <Text color="fg.muted" fontSize="sm" key={index}>
          {note}
        </Text>
      ))}
      {of.data.some((each) => !each.same_content) ? (
        <Part title="Data">
          <DataTable
            caption="Data that changed"
            columns={[
              { name: "Artifact", cell: (row) => row.name },
              {
                name: "Before",
                cell: (row) => (row.before ? <VersionLink named={false} version={row.before} /> : "not read"),
              },
              { name: "After", cell: (row) => (row.after ? <VersionLink named={false} version={row.after} /> : "not read") },
              { name: "Content", cell: (row) => <Mark of={row.same_content ? "same" : "changed"} /> },
              {
                name: "Rows",
                cell: (row) =>
                  row.rows ? (
                    <>
                      {number(row.rows.before)} → {number(row.rows.after)}
                    </>
                  ) : (
                    "–"
                  ),
              },
              { name: "Size", cell: (row) => `${bytes(row.before?.size_bytes)} → ${bytes(row.after?.size_bytes)}` },
              {
                name: "Schema",
                cell: (row) =>
                  (row.schema ?? []).length > 0
                    ? row.schema!.map((each) => `${each.column}: ${String(each.before ?? "absent")} → ${String(each.after ?? "absent")}`).join("; ")
                    : "same",
              },
            ]}
            rowKey={(row) => row.name}
            rows={of.data}
          />
          <Statistics of={of.data} />
        </Part>
      ) : null}
      <Rows of={of.code} title="Code" />
      {of.source ? (
        <Part title="Source">
          <Pre>{of.source}</Pre>
        </Part>
      ) : null}
      <Rows of={(of.upstream ?? []).map((each) => ({ ...each, name: `${each.name}: ${each.what}` }))} title="What made the data" />
      <Rows of={of.params} title="Parameters" />
      <MetricRows of={of.metrics} title="Metrics of the training" />
      <MetricRows of={of.evaluations ?? []} title="Metrics of the evaluation" />
      <Rows of={of.environment} title="Environment" />
      {of.data.every((each) => each.same_content) &&
      of.code.length + of.params.length + of.metrics.length + of.environment.length === 0 ? (
        <Empty>No difference is known.</Empty>
      ) : null}
      <Hidden count={of.hidden} />
    </Stack>
  );
}

function Trained({ node }: { node: GraphNode }) {
  return (
    <>
      {node.label}
      {node.task ? (
        <>
          {" "}
          was made by <TaskLink task={node.task} />
        </>
      ) : null}
      {node.effective_at ? (
        <>
          {" "}
          from data until <Time brief value={node.effective_at} />
        </>
      ) : null}
    </>
  );
}

function MetricRows({ of, title }: { of: Difference[]; title: string }) {
  if (of.length === 0) return null;
  return (
    <Part title={title}>
      <DataTable
        caption={`${title} that changed`}
        columns={[
          { name: "Metric", cell: (row) => row.name, by: (row) => row.name },
          { name: "Before", cell: (row) => <Value of={row.before} />, right: true },
          { name: "After", cell: (row) => <Value of={row.after} />, right: true },
          {
            name: "Difference",
            cell: (row) => <Delta value={row.delta ?? difference(row.after as number | null, row.before as number | null)} />,
            right: true,
          },
        ]}
        maxHeight="20rem"
        rowKey={(row) => row.name}
        rows={of}
      />
    </Part>
  );
}

function Value({ of }: { of: Difference["before"] }) {
  return typeof of === "number" || of === null ? <Num value={of} /> : <AnyValue value={of} />;
}

function Part({ title, children }: { title: string; children: React.ReactNode }) {
  return (
    <Box>
      <Heading as="h3" mb={1} size="xs">
        {title}
      </Heading>
      {children}
    </Box>
  );
}

function Rows({ title, of }: { title: string; of: Difference[] }) {
  if (of.length === 0) return null;
  return (
    <Part title={title}>
      <DataTable
        caption={`${title} that changed`}
        columns={[
          { name: "Name", cell: (row) => row.name, by: (row) => row.name },
          { name: "Before", cell: (row) => <Value of={row.before} /> },
          { name: "After", cell: (row) => <Value of={row.after} /> },
        ]}
        maxHeight="20rem"
        rowKey={(row) => row.name}
        rows={of}
      />
    </Part>
  );
}

function Statistics({ of }: { of: ModelDiff["data"] }) {
  const rows = of.flatMap((each) => (each.statistics ?? []).map((statistic) => ({ artifact: each.name, ...statistic })));
  if (rows.length === 0) return null;
  return (
    <Box as="details" fontSize="sm" mt={2}>
      <summary>{counted(rows.length, "statistic")} of columns changed</summary>
      <DataTable
        caption="Statistics of columns"
        columns={[
          { name: "Artifact", cell: (row) => row.artifact, by: (row) => row.artifact },
          { name: "Column", cell: (row) => row.column, by: (row) => row.column },
          { name: "Statistic", cell: (row) => row.name, by: (row) => row.name },
          { name: "Before", cell: (row) => <Value of={row.before} />, right: true },
          { name: "After", cell: (row) => <Value of={row.after} />, right: true },
        ]}
        maxHeight="20rem"
        rowKey={(row, index) => `${row.artifact}-${row.column}-${row.name}-${index}`}
        rows={rows}
      />
    </Box>
  );
}
