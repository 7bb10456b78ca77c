// SPDX-License-Identifier: Apache-2.0
import { Badge, Box, Button, Code, Flex, Heading, HStack, Spinner, Stack, Table, Text } from "@chakra-ui/react";
import { Component, useId, useState, type ReactNode } from "react";
import { type ApiError, type Json, type Metric, type Move, type Version } from "./api";
import { bytes, day, delta, number, short, text, time } from "./format";
import { TaskLink, VersionLink } from "./links";
import { useZone } from "./timezone";

/** A time in the zone of the UI; the tooltip has it in UTC. */
export function Time({ value, brief = false }: { value: string | null | undefined; brief?: boolean }) {
  const zone = useZone();
  if (!value) return <>–</>;
  return (
    <time dateTime={value} style={{ whiteSpace: "nowrap" }} title={`${time(value, "UTC")} UTC`}>
      {brief ? day(value, zone) : time(value, zone)}
    </time>
  );
}

export function Section({
  title,
  children,
  actions,
  note,
}: {
  title: string;
  children: ReactNode;
  actions?: ReactNode;
  note?: ReactNode;
}) {
  const id = useId();
  return (
    <Box aria-labelledby={id} as="section" borderColor="border" borderRadius="md" borderWidth="1px" minW={0} p={4}>
      <Flex align="center" gap={3} justify="space-between" mb={3} wrap="wrap">
        <Box>
          <Heading as="h2" id={id} size="sm">
            {title}
          </Heading>
          {note ? (
            <Text color="fg.muted" fontSize="sm">
              {note}
            </Text>
          ) : null}
        </Box>
        {actions}
      </Flex>
      {children}
    </Box>
  );
}

export function Empty({ children }: { children: ReactNode }) {
  return (
    <Text color="fg.muted" fontSize="sm">
      {children}
    </Text>
  );
}

export function Loading({ what }: { what: string }) {
  return (
    <HStack aria-live="polite" color="fg.muted" fontSize="sm" py={2} role="status">
      <Spinner size="sm" /> <span>Loading {what} …</span>
    </HStack>
  );
}

const ADVICE: Record<string, string> = {
  not_authenticated: "Your session has ended. Load the page again to sign in.",
  forbidden: "Your role has no right to see this.",
  store_unavailable: "The artifact store does not answer now; nothing is lost. Try again in a moment.",
};

export function Failure({ error, retry }: { error: ApiError; retry?: () => void }) {
  const advice = ADVICE[error.code];
  const missing = error.status === 404 || error.status === 403;
  return (
    <Box
      borderColor={missing ? "border" : "border.error"}
      borderRadius="md"
      borderWidth="1px"
      fontSize="sm"
      p={3}
      role="alert"
    >
      <Text fontWeight="semibold">{missing ? "Nothing to show here" : "This could not be loaded"}</Text>
      <Text overflowWrap="anywhere">{error.message}</Text>
      {advice ? <Text color="fg.muted">{advice}</Text> : null}
      {retry && !missing ? (
        <Button mt={2} onClick={retry} size="xs" variant="outline">
          Try again
        </Button>
      ) : null}
    </Box>
  );
}

/** A number with its noun: "1 model", "2 models". */
export function counted(count: number, noun: string): string {
  return `${number(count)} ${noun}${count === 1 ? "" : "s"}`;
}

/** Show what loads, fails or has come, in one place. */
export function Await<T>({
  what,
  of,
  children,
}: {
  what: string;
  of: { data?: T; error?: ApiError; isLoading?: boolean; mutate?: () => unknown };
  children: (data: T) => ReactNode;
}) {
  if (of.data !== undefined) return <>{children(of.data)}</>;
  if (of.error) return <Failure error={of.error} retry={of.mutate ? () => void of.mutate!() : undefined} />;
  return <Loading what={what} />;
}

export function Hidden({ count }: { count: number | null | undefined }) {
  if (!count) return null;
  return (
    <Text color="fg.muted" fontSize="sm">
      {count} more in DAGs that you may not see.
    </Text>
  );
}

export function More({ more, loading }: { more: (() => void) | null; loading: boolean }) {
  if (!more) return null;
  return (
    <Button alignSelf="start" loading={loading} mt={2} onClick={more} size="xs" variant="outline">
      Load more
    </Button>
  );
}

export interface Column<Row> {
  name: string;
  cell: (row: Row) => ReactNode;
  right?: boolean;
  /** Sorts when the header is clicked; rows without a value come last. */
  by?: (row: Row) => number | string | null | undefined;
}

export function DataTable<Row>({
  caption,
  columns,
  rows,
  rowKey,
  maxHeight,
}: {
  caption: string;
  columns: Column<Row>[];
  rows: Row[];
  rowKey: (row: Row, index: number) => string;
  maxHeight?: string;
}) {
  const [sorted, setSorted] = useState<{ name: string; up: boolean } | null>(null);
  const column = columns.find((each) => each.name === sorted?.name);
  const by = column?.by;
  const shown = by
    ? [...rows].sort((a, b) => {
        const [x, y] = [by(a), by(b)];
        if (x === y) return 0;
        if (x === null || x === undefined) return 1;
        if (y === null || y === undefined) return -1;
        const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
        return sorted!.up ? order : -order;
      })
    : rows;
  const turn = (name: string) =>
    setSorted((old) => (old?.name !== name ? { name, up: true } : old.up ? { name, up: false } : null));
  return (
    // Focus lets the keyboard scroll what is wider or longer than its place.
    <Box aria-label={caption} maxH={maxHeight} overflow="auto" role="region" tabIndex={0}>
      <Table.Root size="sm" stickyHeader={maxHeight !== undefined}>
        <Table.Header>
          <Table.Row bg="bg">
            {columns.map((each) => (
              <Table.ColumnHeader
                aria-sort={sorted?.name === each.name ? (sorted.up ? "ascending" : "descending") : undefined}
                key={each.name}
                scope="col"
                textAlign={each.right ? "end" : "start"}
                whiteSpace="nowrap"
              >
                {each.by ? (
                  <Button
                    fontSize="inherit"
                    fontWeight="inherit"
                    h="auto"
                    minW={0}
                    onClick={() => turn(each.name)}
                    p={0}
                    size="sm"
                    variant="plain"
                  >
                    {each.name}
                    <span aria-hidden>{sorted?.name === each.name ? (sorted.up ? "▲" : "▼") : "↕"}</span>
                  </Button>
                ) : (
                  each.name
                )}
              </Table.ColumnHeader>
            ))}
          </Table.Row>
        </Table.Header>
        <Table.Body>
          {shown.map((row, index) => (
            <Table.Row bg="transparent" key={rowKey(row, index)}>
              {columns.map((each) => (
                <Table.Cell key={each.name} textAlign={each.right ? "end" : "start"} verticalAlign="top">
                  {each.cell(row)}
                </Table.Cell>
              ))}
            </Table.Row>
          ))}
        </Table.Body>
      </Table.Root>
    </Box>
  );
}

/** Names and values, one below the other. */
export function Facts({ of }: { of: [string, ReactNode][] }) {
  return (
    <Box as="dl" display="grid" fontSize="sm" gap={1} gridTemplateColumns="minmax(8rem, max-content) 1fr">
      {of.map(([name, value]) => (
        <Box display="contents" key={name}>
          <Box as="dt" color="fg.muted" overflowWrap="anywhere">
            {name}
          </Box>
          <Box as="dd" minW={0} overflowWrap="anywhere">
            {value}
          </Box>
        </Box>
      ))}
    </Box>
  );
}

const PALETTES: Record<string, string> = {
  success: "green",
  promotion: "green",
  promoted: "green",
  champion: "green",
  same: "gray",
  failed: "red",
  rejected: "red",
  removed: "red",
  removal: "red",
  missing: "red",
  killed: "red",
  upstream_failed: "orange",
  withheld: "orange",
  rollback: "orange",
  changed: "orange",
  running: "blue",
  added: "blue",
  approval_pending: "yellow",
  skipped: "pink",
};

export function Mark({ of, children }: { of: string; children?: ReactNode }) {
  return (
    <Badge colorPalette={PALETTES[of] ?? "gray"} variant="subtle">
      {children ?? of.replaceAll("_", " ")}
    </Badge>
  );
}

export function Num({ value }: { value: Metric | null | undefined }) {
  return <span title={typeof value === "number" ? String(value) : undefined}>{number(value)}</span>;
}

export function Delta({ value }: { value: Metric | null | undefined }) {
  if (value === null || value === undefined) return <>–</>;
  return <span title={String(value)}>{delta(value)}</span>;
}

/** Metrics or parameters as a small table of names and values. */
export function Values({ of }: { of: Record<string, Json> | undefined }) {
  const entries = Object.entries(of ?? {}).sort(([a], [b]) => a.localeCompare(b));
  if (entries.length === 0) return <Empty>None.</Empty>;
  return <Facts of={entries.map(([name, value]) => [name, <AnyValue key={name} value={value} />])} />;
}

/** Any JSON of a user: short on one line, longer ones to be unfolded. */
export function AnyValue({ value }: { value: Json | undefined }) {
  const line = text(value);
  // Digests and the names that Airflow gives to modules of DAG files say least and take most room.
  if (/^blake3:[0-9a-f]{40,}$/.test(line)) return <span title={line}>{short(line, 24)}</span>;
  if (line.startsWith("unusual_prefix_")) return <span title={line}>{line.replace(/^unusual_prefix_[0-9a-f]+_/, "")}</span>;
  if (line.length <= 120) return <>{line}</>;
  return (
    <details>
      <summary>{short(line, 100)}</summary>
      <Pre>{typeof value === "string" ? value : JSON.stringify(value, null, 2)}</Pre>
    </details>
  );
}

export function Pre({ children }: { children: string }) {
  return (
    <Code as="pre" display="block" maxH="20rem" overflow="auto" p={2} tabIndex={0} whiteSpace="pre-wrap" width="full">
      {children}
    </Code>
  );
}

export function CopyButton({ value, label = "Copy" }: { value: string; label?: string }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    await navigator.clipboard.writeText(value);
    setCopied(true);
    setTimeout(() => setCopied(false), 2000);
  };
  // Without TLS, browsers have no clipboard; the text beside the button can be marked by hand.
  if (!globalThis.isSecureContext) return null;
  return (
    <Button onClick={() => void copy()} size="2xs" variant="outline">
      <span aria-live="polite">{copied ? "Copied" : label}</span>
    </Button>
  );
}

export function Command({ text: command }: { text: string }) {
  return (
    <HStack align="start" gap={2}>
      <Code flex="1" overflowWrap="anywhere" p={1} whiteSpace="pre-wrap">
        {command}
      </Code>
      <CopyButton value={command} />
    </HStack>
  );
}

const isRecord = (value: Json | undefined): value is Record<string, Json> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

/** What the first rows look like: a table for rows, else the JSON. */
export function Preview({ value, of }: { value: Json | undefined; of: string }) {
  if (value === null || value === undefined) return <Empty>No preview was kept.</Empty>;
  if (Array.isArray(value) && value.length > 0 && value.every(isRecord)) {
    const rows = value as Record<string, Json>[];
    const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
    return (
      <DataTable
        caption={`First rows of ${of}`}
        columns={names.map((name) => ({ name, cell: (row: Record<string, Json>) => <AnyValue value={row[name]} /> }))}
        maxHeight="20rem"
        rowKey={(_, index) => String(index)}
        rows={rows}
      />
    );
  }
  return <Pre>{typeof value === "string" ? value : JSON.stringify(value, null, 2)}</Pre>;
}

export function Schema({ value }: { value: Json | undefined }) {
  if (value === null || value === undefined) return <Empty>No schema was kept.</Empty>;
  const columns = isRecord(value) ? value.columns : null;
  if (Array.isArray(columns) && columns.every(isRecord)) {
    const rows = columns as Record<string, Json>[];
    return (
      <DataTable
        caption="Schema"
        columns={[
          { name: "Column", cell: (row) => text(row.name) },
          { name: "Type", cell: (row) => <Code>{text(row.type)}</Code> },
        ]}
        maxHeight="20rem"
        rowKey={(row, index) => `${text(row.name)}-${index}`}
        rows={rows}
      />
    );
  }
  return <Pre>{JSON.stringify(value, null, 2)}</Pre>;
}

export function rowCount(schema: Json | undefined): number | null {
  return isRecord(schema) && typeof schema.rows === "number" ? schema.rows : null;
}

/** Versions that were read or written: what they are, and their inside to be unfolded. */
export function VersionCards({
  versions,
  hidden,
  more,
}: {
  versions: (Version & { schema?: Json; preview?: Json })[];
  hidden?: number;
  more?: number;
}) {
  return (
    <Stack gap={3}>
      {versions.map((version) => {
        const rows = rowCount(version.schema);
        const facts = [version.type, rows === null ? null : `${number(rows)} rows`, bytes(version.size_bytes)];
        return (
          <Box borderColor="border" borderStartWidth="3px" key={version.version_id} ps={3}>
            <HStack gap={2} wrap="wrap">
              <Text fontWeight="semibold">
                <VersionLink version={version} />
              </Text>
              {version.gone ? <Mark of="missing">gone from the store</Mark> : null}
              {version.unreadable ? <Mark of="missing">its manifest cannot be believed</Mark> : null}
              {version.loaded === false ? <Mark of="handed">handed over, not loaded</Mark> : null}
            </HStack>
            <Text color="fg.muted" fontSize="sm" overflowWrap="anywhere">
              {facts.filter(Boolean).join(" · ")}
              {version.digest ? <span title={version.digest}> · {short(version.digest, 20)}</span> : null}
            </Text>
            <Text color="fg.muted" fontSize="sm">
              {version.effective_at ? (
                <>
                  Data until <Time brief value={version.effective_at} />
                </>
              ) : null}
              {version.producer ? (
                <>
                  {version.effective_at ? ", written by " : "Written by "}
                  <TaskLink task={version.producer} />
                </>
              ) : null}
            </Text>
            {version.schema || version.preview ? (
              <Box as="details" fontSize="sm" mt={1}>
                <summary>Schema and preview</summary>
                <Stack gap={3} mt={2}>
                  {version.schema ? <Schema value={version.schema} /> : null}
                  {version.preview !== undefined && version.preview !== null ? (
                    <Preview of={version.name} value={version.preview} />
                  ) : null}
                </Stack>
              </Box>
            ) : null}
          </Box>
        );
      })}
      {versions.length === 0 && !hidden ? <Empty>None.</Empty> : null}
      {more ? <Empty>And {number(more)} more.</Empty> : null}
      <Hidden count={hidden} />
    </Stack>
  );
}

const MOVED: Record<string, string> = {
  promotion: "promoted",
  rollback: "rolled back",
  observed: "moved outside of Airflow",
  removal: "removed",
  rejected: "rejected",
  withheld: "withheld",
  stayed: "kept in office",
  promoted: "promoted",
  approval_pending: "waits for approval",
};

/** One decision about an alias, with the gates that made it. */
export function Decision({ of, withTask = true }: { of: Move; withTask?: boolean }) {
  const gates = of.gates ?? [];
  const said = new Set(gates.map((gate) => gate.reason));
  const reasons = (of.reasons ?? []).filter((reason) => !said.has(reason));
  return (
    <Stack fontSize="sm" gap={1}>
      <HStack gap={2} wrap="wrap">
        <Mark of={of.kind}>{MOVED[of.kind] ?? of.kind}</Mark>
        <Text as="span" fontWeight="semibold">
          {of.version ? `Version ${of.version}` : (of.model_uri ?? "no version")}
        </Text>
        <Text as="span" color="fg.muted">
          {of.kind === "stayed"
            ? `was ${of.alias} already`
            : of.moved === false
            ? `did not become ${of.alias}${of.previous_version ? `; version ${of.previous_version} stays` : ""}`
            : of.previous_version
              ? `is ${of.alias} in place of version ${of.previous_version}`
              : `is ${of.alias}`}
        </Text>
      </HStack>
      {gates.length > 0 ? (
        <Box as="ul" listStyleType="none">
          {gates.map((gate, index) => (
            <Box as="li" key={index} overflowWrap="anywhere">
              <Text as="span" color={gate.passed ? "fg.success" : "fg.error"} fontWeight="semibold">
                {gate.passed ? "✓ passed: " : "✗ failed: "}
              </Text>
              {gate.reason ?? gate.metric}
            </Box>
          ))}
        </Box>
      ) : null}
      {reasons.map((reason, index) => (
        <Text key={index} overflowWrap="anywhere">
          {reason}
        </Text>
      ))}
      {withTask && (of.task || of.by) ? (
        <Text color="fg.muted" overflowWrap="anywhere">
          By {of.task ? <TaskLink task={of.task} /> : of.by}
        </Text>
      ) : null}
    </Stack>
  );
}

/** Keeps a mistake of ours inside of our tab. */
export class Boundary extends Component<{ children: ReactNode }, { error: Error | null }> {
  override state: { error: Error | null } = { error: null };

  static getDerivedStateFromError(error: Error) {
    return { error };
  }

  override render() {
    const { error } = this.state;
    if (!error) return this.props.children;
    return (
      <Box p={4} role="alert">
        <Text fontWeight="semibold">This page has failed.</Text>
        <Text fontSize="sm">{error.message}</Text>
        <Button mt={2} onClick={() => this.setState({ error: null })} size="xs" variant="outline">
          Show it again
        </Button>
      </Box>
    );
  }
}
