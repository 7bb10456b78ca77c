// SPDX-License-Identifier: Apache-2.0
import { useSyncExternalStore } from "react";
import { usableZone } from "./format";

// Where Airflow's own UI keeps the zone that its user chose; it tells of changes by these two events.
const KEY = "timezone";

function read(): string {
  const stored = globalThis.localStorage.getItem(KEY);
  let chosen: unknown = null;
  try {
    chosen = stored === null ? null : JSON.parse(stored);
  } catch {
    chosen = stored;
  }
  return usableZone(typeof chosen === "string" ? chosen : Intl.DateTimeFormat().resolvedOptions().timeZone);
}

function subscribe(changed: () => void): () => void {
  globalThis.addEventListener("storage", changed);
  globalThis.addEventListener("local-storage", changed);
  return () => {
    globalThis.removeEventListener("storage", changed);
    globalThis.removeEventListener("local-storage", changed);
  };
}

export const useZone = (): string => useSyncExternalStore(subscribe, read);
