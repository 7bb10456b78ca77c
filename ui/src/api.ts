// SPDX-License-Identifier: Apache-2.0
import useSWR from "swr";
import useSWRInfinite from "swr/infinite";

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
/** JSON lacks NaN and the infinities, so those arrive as text. */
export type Metric = number | string;
export type Metrics = Record<string, Metric>;
export type Params = Record<string, Json>;

export interface Task {
  dag_id: string;
  run_id: string;
  task_id: string;
  map_index: number;
  try_number?: number | null;
}

export interface Version {
  name: string;
  version_id: string;
  type?: string | null;
  format?: string | null;
  size_bytes?: number | null;
  digest?: string | null;
  recorded_at?: string | null;
  effective_at?: string | null;
  data_interval?: [string, string] | null;
  producer?: Task | null;
  node?: string | null;
  gone?: boolean;
  /** Its manifest is there and cannot be believed. */
  unreadable?: boolean;
  /** False: the task was handed a reference and did not fetch the content. */
  loaded?: boolean;
}

export interface VersionDetail extends Version {
  uri?: string | null;
  schema?: Json;
  preview?: Json;
  parts?: number | null;
}

export interface Model {
  model_uri?: string | null;
  registered_model_name?: string | null;
  version?: string | null;
  model_id?: string | null;
  mlflow_run_id?: string | null;
  metrics?: Metrics;
  mlflow_run_url?: string | null;
  mlflow_model_url?: string | null;
  alias?: string | null;
  role?: string | null;
  node?: string | null;
}

export interface Evaluation {
  task: Task;
  effective_at?: string | null;
  recorded_at?: string | null;
  registered_model_name?: string | null;
  version?: string | null;
  model_uri?: string | null;
  model_id?: string | null;
  metrics: Metrics;
  baseline_uri?: string | null;
  baseline_version?: string | null;
  baseline_metrics?: Metrics | null;
  rows?: number | null;
  mlflow_run_url?: string | null;
  node?: string | null;
}

export interface Gate {
  metric: string;
  passed: boolean;
  reason?: string | null;
}

export interface Move {
  kind: string;
  /** False: a decision that left the alias where it was. */
  moved?: boolean;
  alias: string;
  version?: string | null;
  previous_version?: string | null;
  effective_at?: string | null;
  recorded_at?: string | null;
  by?: string | null;
  task?: Task | null;
  reasons?: string[];
  gates?: Gate[];
  metrics?: Metrics;
  model_uri?: string | null;
  model_id?: string | null;
  node?: string | null;
}

export interface Cache {
  hit: boolean;
  why?: string | null;
  key?: string | null;
  reused_from?: Task | null;
  seconds_saved?: number | null;
  not_in_key?: Json;
}

export interface GraphNode {
  id: string;
  kind: string;
  label: string;
  detail?: string | null;
  time?: string | null;
  effective_at?: string | null;
  state?: string | null;
  /** Why it is gone or broken; null for what is there. */
  missing?: string | null;
  dag_id?: string | null;
  run_id?: string | null;
  uri?: string | null;
  task?: Task | null;
  version?: { name: string; version_id: string } | null;
  model?: Pick<Model, "registered_model_name" | "version" | "model_id" | "model_uri"> | null;
  metrics?: Metrics;
  more?: { up?: boolean; down?: boolean };
}

export interface GraphEdge {
  source: string;
  target: string;
  kind?: string | null;
  outcome?: string | null;
}

export interface Graph {
  root?: string | null;
  nodes: GraphNode[];
  edges: GraphEdge[];
  hidden?: number;
  truncated?: boolean;
  next?: string | null;
}

export interface TriggeringEvent {
  uri?: string | null;
  name?: string | null;
  timestamp?: string | null;
  source?: Json;
  extra?: Json;
}

export interface TaskRecord {
  outcome: string;
  started_at?: string | null;
  recorded_at?: string | null;
  effective_at?: string | null;
  data_interval?: [string, string] | null;
  reads: VersionDetail[];
  writes: VersionDetail[];
  reused?: VersionDetail[];
  more?: { reads?: number; writes?: number; reused?: number };
  models_read: Model[];
  models_written: Model[];
  hidden?: number;
  triggered_by?: TriggeringEvent[];
  node?: string | null;
  inlets?: string[];
  outlets?: string[];
  params?: Params;
  metrics?: Metrics;
  cache?: Cache | null;
  evaluation?: Evaluation | null;
  decision?: Move | null;
  code?: Params;
  environment?: Params;
  error?: string | null;
  mlflow?: { run_id: string; experiment_id?: string | null; run_url?: string | null } | null;
}

export interface TaskAnswer {
  task: Task;
  tries: number[];
  record: TaskRecord | null;
}

export interface Point {
  step: number;
  time?: string | null;
  value: Metric;
}

export interface TaskMetricsAnswer {
  state: "ok" | "no_run" | "unavailable";
  message?: string | null;
  run?: { run_id: string; run_url?: string | null; status?: string | null; params?: Params } | null;
  metrics: { name: string; points: Point[]; sampled?: boolean }[];
}

export interface Run {
  dag_id: string;
  run_id: string;
  state?: string | null;
  run_type?: string | null;
  run_after?: string | null;
  logical_date?: string | null;
  effective_at?: string | null;
  start_date?: string | null;
  end_date?: string | null;
}

export interface RunTask {
  task: Task;
  outcome: string;
  reads: Version[];
  writes: Version[];
  models_read: Model[];
  models_written: Model[];
  params?: Params;
  metrics?: Metrics;
  cache?: Cache | null;
  evaluation?: Evaluation | null;
  decision?: Move | null;
  error?: string | null;
  hidden?: number;
}

export interface RunAnswer {
  run: Run | null;
  hidden?: number;
  tasks: RunTask[];
  tasks_total?: number;
  truncated?: boolean;
  previous?: { run_id: string; effective_at?: string | null } | null;
}

export interface Change {
  what: string;
  name: string;
  before: Json;
  after: Json;
}

export interface ComparisonAnswer {
  run: Run;
  with: Run | null;
  tasks: { task_id: string; map_index: number; change: string; changes: Change[]; more?: number }[];
  hidden?: number;
  /** Only the first task instances of the runs were compared. */
  truncated?: boolean;
  metrics: {
    task_id: string;
    map_index: number;
    name: string;
    before: Metric | null;
    after: Metric | null;
    delta?: Metric | null;
  }[];
}

export interface RunMetrics {
  run: Run;
  tasks: { task_id: string; map_index: number; params?: Params; metrics?: Metrics; outcome?: string }[];
}

export interface Champions {
  registered_model_name: string;
  alias: string;
  moves: Move[];
}

export interface Page<T> {
  items: T[];
  next?: string | null;
  hidden?: number;
}

export interface EvaluationsPage extends Page<Evaluation> {
  models?: string[];
  names?: string[];
  champions?: Champions[];
}

export interface ModelItem {
  name: string;
  aliases: {
    alias: string;
    version: string | null;
    since?: string | null;
    recorded_at?: string | null;
    kind?: string | null;
    metrics?: Metrics;
  }[];
  hidden?: number;
  latest_version?: string | null;
  last_change?: string | null;
  dags?: string[];
  mlflow_model_url?: string | null;
  hints?: { kind: string; text: string; command?: string | null; href?: string | null }[];
}

export interface ModelVersion {
  version: string;
  model_uri?: string | null;
  model_id?: string | null;
  metrics?: Metrics;
  params?: Params;
  aliases?: string[];
  recorded_at?: string | null;
  effective_at?: string | null;
  trained_by?: Task | null;
  registered_by?: Task | null;
  decision?: Move | null;
  mlflow_run_url?: string | null;
  mlflow_model_url?: string | null;
  node?: string | null;
}

export interface Difference {
  name: string;
  before: Json;
  after: Json;
  delta?: Metric | null;
}

export interface ModelDiff {
  from: GraphNode;
  to: GraphNode;
  code: Difference[];
  params: Difference[];
  metrics: Difference[];
  evaluations?: Difference[];
  environment: Difference[];
  /** The difference of the functions' source, as text. */
  source?: string | null;
  upstream?: { name: string; what: string; before: Json; after: Json }[];
  data: {
    name: string;
    before: Version | null;
    after: Version | null;
    same_content?: boolean;
    schema?: { column: string; before: Json; after: Json }[];
    rows?: { before: number | null; after: number | null } | null;
    statistics?: { column: string; name: string; before: Json; after: Json }[];
  }[];
  same?: string[];
  notes?: string[];
  hidden?: number;
}

export interface ArtifactItem {
  name: string;
  latest?: Version | null;
}

export interface VersionAnswer {
  version: VersionDetail;
  readers: { task: Task; outcome?: string | null; recorded_at?: string | null }[];
  readers_more?: boolean;
  hidden?: number;
}

export interface Growth {
  name: string;
  versions?: number | null;
  /** Whether these are all versions, or only the newest. */
  complete?: boolean;
  bytes_logical?: number | null;
  bytes_stored?: number | null;
  bytes_shared?: number | null;
  points: {
    recorded_at: string;
    effective_at?: string | null;
    version_id: string;
    size_bytes: number;
    new_bytes?: number | null;
  }[];
}

export interface FoundNode {
  node: string;
  kind: string;
  label: string;
  detail?: string | null;
  time?: string | null;
}

export interface Blast {
  root: string;
  versions: GraphNode[];
  predictions?: GraphNode[];
  models: GraphNode[];
  evaluations: GraphNode[];
  runs: { dag_id: string; run_id: string; run_type?: string | null; tasks: string[] }[];
  aliases?: { registered_model_name: string; alias: string; version: string; since?: string | null }[];
  started?: { dag_id: string; run_id: string; uri: string }[];
  commands: { purpose: string; shell: string; note?: string | null }[];
  notes?: string[];
  hidden?: number;
  truncated?: boolean;
}

export interface RunRow {
  run: Run;
  params: Params;
  metrics: Metrics;
  tasks?: number;
  decision?: string | null;
}

export interface RunRowsPage extends Page<RunRow> {
  param_names?: string[];
  metric_names?: string[];
}

/** What the server answered instead of data. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
    this.name = "ApiError";
  }
}

export type Query = Record<string, string | number | null | undefined>;

/** Make the key of a request: the path below the API with its query; empty values are left out. */
export function url(parts: (string | number)[], query: Query = {}): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined && value !== "") search.set(name, String(value));
  }
  const path = parts.map((part) => encodeURIComponent(part)).join("/");
  const text = search.toString();
  return text ? `${path}?${text}` : path;
}

export async function load<T>(key: string): Promise<T> {
  const address = new URL(`ml-provider/api/v1/${key}`, document.baseURI);
  let answer: Response;
  try {
    answer = await fetch(address, { credentials: "same-origin", headers: { accept: "application/json" } });
  } catch (error) {
    throw new ApiError(0, "unreachable", `The API server does not answer: ${String(error)}`);
  }
  const text = await answer.text();
  let body: unknown;
  try {
    body = JSON.parse(text);
  } catch {
    throw new ApiError(answer.status, "not_json", `The API server answered ${answer.status} and no JSON.`);
  }
  if (!answer.ok) {
    const { code, detail } = (body ?? {}) as { code?: unknown; detail?: unknown };
    const message = typeof detail === "string" ? detail : `The API server answered ${answer.status}.`;
    throw new ApiError(answer.status, typeof code === "string" ? code : "unknown", message);
  }
  return body as T;
}

export const settings = {
  revalidateOnFocus: false,
  revalidateIfStale: true,
  shouldRetryOnError: false,
  keepPreviousData: false,
  dedupingInterval: 5000,
} as const;

/** Load one answer; a null key loads nothing. */
export function useApi<T>(key: string | null, options: { refreshInterval?: number } = {}) {
  return useSWR<T, ApiError>(key, load, { ...settings, ...options });
}

/** Load pages one after another; `next` of a page leads to the one after it. */
export function usePages<P extends Page<unknown>>(key: string | null) {
  const result = useSWRInfinite<P, ApiError>(
    (index, previous: P | null) => {
      if (key === null || (index > 0 && !previous?.next)) return null;
      if (index === 0) return key;
      return `${key}${key.includes("?") ? "&" : "?"}cursor=${encodeURIComponent(previous!.next!)}`;
    },
    load,
    { ...settings, revalidateFirstPage: false },
  );
  const pages = result.data ?? [];
  const loadingMore = result.isLoading || (result.size > 0 && pages.length < result.size && !result.error);
  return {
    pages,
    items: pages.flatMap((page) => page.items) as P["items"],
    hidden: pages.reduce((sum, page) => sum + (page.hidden ?? 0), 0),
    error: result.error,
    isLoading: result.isLoading,
    loadingMore,
    more: pages.at(-1)?.next ? () => void result.setSize((size) => size + 1) : null,
    retry: () => void result.mutate(),
  };
}
