// SPDX-License-Identifier: Apache-2.0
import { useEffect, useRef, useState } from "react";

const HUES = ["blue", "orange", "teal", "purple", "pink", "green", "cyan", "red", "yellow", "gray"];
const DASHES = ["", "6 3", "2 3", "8 3 2 3"];

/** Colours that can be told apart in light and dark; after ten they repeat with another dash. */
export const colour = (index: number) => `var(--chakra-colors-${HUES[index % HUES.length]}-500)`;
export const dash = (index: number) => DASHES[Math.floor(index / HUES.length) % DASHES.length];

export const INK = "var(--chakra-colors-fg-muted)";
export const GRID = "var(--chakra-colors-border)";
export const PAPER = "var(--chakra-colors-bg)";

/** The width of an element in pixels, as it changes. */
export function useWidth(initial = 600) {
  const ref = useRef<HTMLDivElement>(null);
  const [width, setWidth] = useState(initial);
  useEffect(() => {
    if (!ref.current) return;
    const observer = new ResizeObserver(([entry]) => {
      if (entry && entry.contentRect.width > 0) setWidth(entry.contentRect.width);
    });
    observer.observe(ref.current);
    return () => observer.disconnect();
  }, []);
  return { ref, width };
}

/** The smallest and largest number, with a little room; equal ones get room as well. */
export function extent(values: number[]): [number, number] {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return [0, 1];
  const room = low === high ? Math.abs(low) * 0.1 || 1 : (high - low) * 0.05;
  return [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
}

/** The index of the number in an ascending list that is nearest. */
export function nearest(sorted: number[], wanted: number): number {
  let low = 0;
  let high = sorted.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sorted[middle]! <= wanted) low = middle;
    else high = middle;
  }
  if (low === high) return low;
  return wanted - sorted[low]! <= sorted[high]! - wanted ? low : high;
}
