// SPDX-License-Identifier: Apache-2.0
import type { Json, Metric } from "./api";

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

/** Write a size in decimal units: 1834112 is "1.83 MB". */
export function bytes(size: number | null | undefined): string {
  if (size === null || size === undefined || !Number.isFinite(size)) return "–";
  let value = size;
  let unit = 0;
  while (Math.abs(value) >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return unit === 0 ? `${value} B` : `${Number(value.toPrecision(3))} ${UNITS[unit]}`;
}

/** Write a number for a table: four significant digits, integers whole with thin groups. */
export function number(value: Metric | null | undefined): string {
  if (value === null || value === undefined) return "–";
  if (typeof value === "string") return value;
  if (!Number.isFinite(value)) return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e15) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e7)) return value.toExponential(3);
  if (size >= 1000) return value.toLocaleString("en-US", { maximumFractionDigits: 1 });
  return String(Number(value.toPrecision(4)));
}

/** Write a number for an axis: thousands from 10,000 on, so that it fits beside it. */
export function compact(value: number): string {
  if (Math.abs(value) < 10_000) return number(value);
  return new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 2 }).format(value).replace("K", "k");
}

/** Write a difference with its sign. */
export function delta(value: Metric | null | undefined): string {
  if (typeof value !== "number" || !Number.isFinite(value)) return number(value);
  const text = number(Math.abs(value));
  return value === 0 ? "0" : value > 0 ? `+${text}` : `−${text}`;
}

export function seconds(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 90) return `${Number(value.toPrecision(3))} s`;
  if (value < 5400) return `${Math.round(value / 60)} min`;
  return `${Number((value / 3600).toPrecision(2))} h`;
}

/** A finite number, or null for what cannot be drawn. */
export function finite(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

/** Write any JSON on one line. */
export function text(value: Json | undefined): string {
  if (value === null || value === undefined) return "–";
  if (typeof value === "string") return value;
  if (typeof value === "number") return number(value);
  return JSON.stringify(value);
}

/** Shorten what is long in the middle, where digests and ids say least. */
export function short(value: string, length = 16): string {
  if (value.length <= length) return value;
  const half = Math.floor((length - 1) / 2);
  return `${value.slice(0, length - 1 - half)}…${value.slice(value.length - half)}`;
}

/** Write a time in a zone, as the rest of Airflow's UI does: 2013-05-14 00:00:00. */
export function time(value: string | null | undefined, zone: string, withSeconds = true): string {
  if (!value) return "–";
  const date = new Date(value);
  if (Number.isNaN(date.getTime())) return value;
  const found = new Intl.DateTimeFormat("en-GB", {
    timeZone: zone,
    hourCycle: "h23",
    year: "numeric",
    month: "2-digit",
    day: "2-digit",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
  }).formatToParts(date);
  const part = (type: string) => found.find((each) => each.type === type)?.value ?? "";
  const day = `${part("year")}-${part("month")}-${part("day")}`;
  return `${day} ${part("hour")}:${part("minute")}${withSeconds ? `:${part("second")}` : ""}`;
}

/** Write a time as short as it can be: the day alone at midnight. */
export function day(value: string | null | undefined, zone: string): string {
  const full = time(value, zone);
  return full.endsWith(" 00:00:00") ? full.slice(0, -9) : full.replace(/:\d\d$/, "");
}

/** How far a zone is ahead of UTC at a moment, in milliseconds. */
export function zoneOffset(moment: number, zone: string): number {
  const second = Math.floor(moment / 1000) * 1000;
  return Date.parse(`${time(new Date(second).toISOString(), zone).replace(" ", "T")}Z`) - second;
}

/** Name the zone if it can be used, else UTC. */
export function usableZone(name: string | null | undefined): string {
  if (!name) return "UTC";
  try {
    new Intl.DateTimeFormat("en-GB", { timeZone: name });
    return name;
  } catch {
    return "UTC";
  }
}

/** Let only addresses of web pages become links: names and tags are users' text. */
export function safeHref(href: string | null | undefined): string | null {
  if (!href) return null;
  try {
    const address = new URL(href);
    return address.protocol === "http:" || address.protocol === "https:" ? href : null;
  } catch {
    return null;
  }
}

/** Sort decisions by data time, then by when they were made: pages of several lists follow each other. */
export function newestFirst<T extends { effective_at?: string | null; recorded_at?: string | null }>(all: T[]): T[] {
  const later = (a: string | null | undefined, b: string | null | undefined) => (b ?? "").localeCompare(a ?? "");
  return [...all].sort((a, b) => later(a.effective_at, b.effective_at) || later(a.recorded_at, b.recorded_at));
}

// One of the last two is enough: both would run everything twice.
const PURPOSES: Record<string, string> = {
  origin: "To make the bad version again, once its cause is mended",
  clear: "To make just these again, in the same runs",
  backfill: "Or as backfills, which move no alias",
};

/** Group commands by what they are for, in the order in which they are run. */
export function byPurpose<T extends { purpose: string }>(all: T[]): { title: string; commands: T[] }[] {
  return Object.entries(PURPOSES)
    .map(([purpose, title]) => ({ title, commands: all.filter((each) => each.purpose === purpose) }))
    .filter((each) => each.commands.length > 0);
}

/** The metrics a reader most likely asks for first. */
const FAMOUS = ["roc_auc", "f1_score", "accuracy_score", "accuracy", "r2_score", "root_mean_squared_error", "mean_absolute_error"];

/** Metrics with those first that most readers ask for; `task.metric` counts as its metric. */
export function byFame(names: string[]): string[] {
  const rank = (name: string) => {
    const found = FAMOUS.findIndex((each) => name === each || name.endsWith(`.${each}`));
    return found < 0 ? FAMOUS.length : found;
  };
  return [...names].sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
}

export const firstMetric = (names: string[]): string | undefined => byFame(names)[0];

export interface Option {
  value: string;
  label: string;
}

/** What a list to choose from shows: a dash first where nothing is chosen, since browsers show the first as the chosen one. */
export function choices(value: string, options: (string | Option)[]): Option[] {
  const all = options.map((each) => (typeof each === "string" ? { value: each, label: each } : each));
  return all.some((each) => each.value === value) ? all : [{ value, label: value || "–" }, ...all];
}
