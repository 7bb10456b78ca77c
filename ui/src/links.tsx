// SPDX-License-Identifier: Apache-2.0
import { Link as ChakraLink } from "@chakra-ui/react";
import type { ReactNode } from "react";
import { Link as RouterLink } from "react-router-dom";
import type { GraphNode, Model, Task, Version } from "./api";
import { safeHref, short } from "./format";

const part = encodeURIComponent;

/** Address of a page of ours; empty values are left out. */
export function mlPage(query: Record<string, string | null | undefined>): string {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value) search.set(name, value);
  return `/plugin/ml?${search.toString()}`;
}

export const dagPath = (dag: string) => `/dags/${part(dag)}/plugin/ml-dag`;
export const runPath = (dag: string, run: string) => `/dags/${part(dag)}/runs/${part(run)}/plugin/ml-run`;

export function taskPath(task: Task): string {
  const mapped = task.map_index >= 0 ? `/mapped/${task.map_index}` : "";
  const tab = `/dags/${part(task.dag_id)}/runs/${part(task.run_id)}/tasks/${part(task.task_id)}${mapped}/plugin/ml-task`;
  return task.try_number ? `${tab}?try_number=${task.try_number}` : tab;
}

export const modelPath = (name: string) => mlPage({ tab: "models", model: name });
export const versionPath = (version: Pick<Version, "name" | "version_id">) =>
  mlPage({ tab: "artifacts", artifact: version.name, version: version.version_id });
export const lineagePath = (node: string) => mlPage({ tab: "lineage", node });

/** A link inside of Airflow's UI: no page is loaded anew. */
export function To({ to, children, label }: { to: string; children: ReactNode; label?: string }) {
  return (
    <ChakraLink asChild color="fg.info" overflowWrap="break-word" textAlign="start" title={label}>
      <RouterLink aria-label={label} to={to}>
        {children}
      </RouterLink>
    </ChakraLink>
  );
}

/** A link to another site (MLflow), in a window of its own; plain text if it is no web address. */
export function Out({ href, children }: { href: string | null | undefined; children: ReactNode }) {
  const safe = safeHref(href);
  if (!safe) return <>{children}</>;
  return (
    <ChakraLink color="fg.info" href={safe} rel="noopener noreferrer" target="_blank">
      {children} <span aria-label="(opens in a new window)">↗</span>
    </ChakraLink>
  );
}

export function TaskLink({ task, full = true }: { task: Task | null | undefined; full?: boolean }) {
  if (!task) return <>–</>;
  const name = task.map_index >= 0 ? `${task.task_id} [${task.map_index}]` : task.task_id;
  return <To to={taskPath(task)}>{full ? `${task.dag_id} · ${name}` : name}</To>;
}

export function RunLink({ dag, run }: { dag: string; run: string }) {
  return <To to={runPath(dag, run)}>{run}</To>;
}

export function VersionLink({ version, named = true }: { version: Version; named?: boolean }) {
  const label = named ? version.name : short(version.version_id, 18);
  if (version.gone) return <>{label}</>;
  return (
    <To label={`${version.name}, version ${version.version_id}`} to={versionPath(version)}>
      {label}
    </To>
  );
}

export function modelName(model: Partial<Model>): string {
  if (model.registered_model_name) {
    return model.version ? `${model.registered_model_name} version ${model.version}` : model.registered_model_name;
  }
  return model.model_uri ?? model.model_id ?? "model";
}

export function ModelLink({ model }: { model: Partial<Model> }) {
  const name = modelName(model);
  if (model.registered_model_name) return <To to={modelPath(model.registered_model_name)}>{name}</To>;
  return model.node ? <To to={lineagePath(model.node)}>{name}</To> : <>{name}</>;
}

/** Where a node of a graph leads, if it has a page of its own. */
export function nodePath(node: GraphNode): string | null {
  if (node.missing) return null;
  if (node.version) return versionPath(node.version);
  if (node.model?.registered_model_name) return modelPath(node.model.registered_model_name);
  if (node.kind === "run") return node.dag_id && node.run_id ? runPath(node.dag_id, node.run_id) : null;
  return node.task ? taskPath(node.task) : null;
}
