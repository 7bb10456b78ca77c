// SPDX-License-Identifier: Apache-2.0
import { Box, Button, HStack, Text } from "@chakra-ui/react";
import { scaleLinear, scalePoint } from "d3-scale";
import { number } from "../format";
import { colour, extent, INK, useWidth } from "./common";

const MARGIN = { top: 34, right: 60, bottom: 16, left: 60 };
const HEIGHT = 340;

type Value = number | string | null;

interface Props {
  rows: { id: string; values: Record<string, Value> }[];
  axes: string[];
  all: string[];
  setAxes: (names: string[]) => void;
  chosen: string | null;
  choose: (id: string | null) => void;
}

interface Axis {
  name: string;
  place: (value: Value) => number | null;
  ticks: { at: number; label: string }[];
}

function axis(name: string, values: Value[]): Axis {
  const range: [number, number] = [HEIGHT - MARGIN.bottom, MARGIN.top];
  const numbers = values.filter((value) => typeof value === "number");
  if (numbers.length > 0 && values.every((value) => typeof value !== "string")) {
    const scale = scaleLinear().domain(extent(numbers)).range(range);
    return {
      name,
      place: (value) => (typeof value === "number" ? scale(value) : null),
      ticks: scale.ticks(5).map((tick) => ({ at: scale(tick), label: number(tick) })),
    };
  }
  const words = [...new Set(values.flatMap((value) => (value === null ? [] : [String(value)])))].sort();
  const scale = scalePoint<string>().domain(words).range(range).padding(0.3);
  return {
    name,
    place: (value) => (value === null ? null : (scale(String(value)) ?? null)),
    ticks: words.slice(0, 12).map((word) => ({ at: scale(word)!, label: word.length > 14 ? `${word.slice(0, 13)}…` : word })),
  };
}

/** One line for each run across parameters and metrics; a gap where a run lacks the value. */
export function Parallel({ rows, axes, all, setAxes, chosen, choose }: Props) {
  const { ref, width } = useWidth();
  const made = axes.map((name) => axis(name, rows.map((row) => row.values[name] ?? null)));
  const x = scalePoint<string>().domain(axes).range([MARGIN.left, Math.max(width - MARGIN.right, MARGIN.left + 50)]);
  const ordered = [...rows].sort((a, b) => Number(a.id === chosen) - Number(b.id === chosen));
  const room = Math.max(6, Math.floor((width - 60) / Math.max(1, axes.length) / 6.5));
  const shown = rows.find((row) => row.id === chosen);
  const said = (row: Props["rows"][number]) =>
    axes.map((name) => `${name} ${typeof row.values[name] === "number" ? number(row.values[name] as number) : (row.values[name] ?? "none")}`).join(", ");
  const line = (row: Props["rows"][number]) => {
    let path = "";
    let pen = false;
    for (const each of made) {
      const y = each.place(row.values[each.name] ?? null);
      if (y === null) {
        pen = false;
        continue;
      }
      path += `${pen ? "L" : "M"}${x(each.name)},${y}`;
      pen = true;
    }
    return path;
  };
  const flip = (name: string) => {
    const next = axes.includes(name) ? axes.filter((each) => each !== name) : [...axes, name];
    if (next.length > 1) setAxes(next);
  };
  return (
    <Box as="figure">
      <Box as="details" fontSize="sm">
        <summary>Axes: {axes.length} of {all.length}</summary>
        <HStack aria-label="Axes" gap={1} mt={1} role="group" wrap="wrap">
          {all.map((name) => (
            <Button aria-pressed={axes.includes(name)} key={name} onClick={() => flip(name)} size="2xs" variant={axes.includes(name) ? "solid" : "outline"}>
              {name}
            </Button>
          ))}
        </HStack>
      </Box>
      <Text aria-live="polite" as="figcaption" color="fg.muted" fontSize="sm" minH="1.5em">
        {shown ? `${shown.id}: ${said(shown)}` : `${rows.length} runs; point at a line, or reach it by Tab`}
      </Text>
      <Box ref={ref}>
        <svg aria-label="Runs across parameters and metrics" height={HEIGHT} role="group" style={{ display: "block" }} width={width}>
          {ordered.map((row) => (
            <g key={row.id} onClick={() => choose(row.id)} onFocus={() => choose(row.id)} onPointerEnter={() => choose(row.id)}>
              <path d={line(row)} fill="none" stroke="transparent" strokeWidth={10} />
              <path
                aria-label={`${row.id}: ${said(row)}`}
                d={line(row)}
                fill="none"
                role="img"
                stroke={colour(row.id === chosen ? 1 : 0)}
                strokeOpacity={row.id === chosen ? 1 : chosen ? 0.3 : 0.65}
                strokeWidth={row.id === chosen ? 3 : 1.5}
                tabIndex={0}
              />
            </g>
          ))}
          {made.map((each, index) => (
            <g key={each.name} pointerEvents="none" transform={`translate(${x(each.name)} 0)`}>
              <line stroke={INK} y1={MARGIN.top} y2={HEIGHT - MARGIN.bottom} />
              <text
                fill={INK}
                style={{ fontSize: 12, fontWeight: 600 }}
                textAnchor={index === 0 ? "start" : index === made.length - 1 ? "end" : "middle"}
                x={index === 0 ? -MARGIN.left + 4 : index === made.length - 1 ? MARGIN.right - 4 : 0}
                y={16}
              >
                <title>{each.name}</title>
                {each.name.length > room ? `…${each.name.slice(1 - room)}` : each.name}
              </text>
              {each.ticks.map((tick) => (
                <text dominantBaseline="middle" fill={INK} style={{ fontSize: 11 }} key={tick.label} textAnchor="end" x={-5} y={tick.at}>
                  {tick.label}
                </text>
              ))}
            </g>
          ))}
        </svg>
      </Box>
    </Box>
  );
}
