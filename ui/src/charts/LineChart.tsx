// SPDX-License-Identifier: Apache-2.0
import { Box, Button, Flex, Text } from "@chakra-ui/react";
import { scaleLinear, scaleUtc } from "d3-scale";
import { line } from "d3-shape";
import { useMemo, useState, type KeyboardEvent, type PointerEvent } from "react";
import { compact, day, number, time, zoneOffset } from "../format";
import { DataTable } from "../parts";
import { useZone } from "../timezone";
import { colour, dash, extent, GRID, INK, nearest, PAPER, useWidth } from "./common";

export interface Dot {
  x: number;
  y: number;
  note?: string;
}

export interface Series {
  name: string;
  dots: Dot[];
}

export interface LineMark {
  x: number;
  label: string;
}

const MARGIN = { top: 22, right: 16, bottom: 26, left: 56 };

/** Round times of the reader's own zone. */
function timeTicks(left: number, right: number, wanted: number, zone: string): number[] {
  const local = scaleUtc().domain([left + zoneOffset(left, zone), right + zoneOffset(right, zone)]);
  return local.ticks(wanted).map((tick) => Number(tick) - zoneOffset(Number(tick) - zoneOffset(Number(tick), zone), zone));
}

/**
 * Lines over steps or time. The arrow keys walk along it as the pointer does, what stands at the
 * cursor is said aloud, and the numbers are there as a table as well.
 */
export function LineChart({
  title,
  series,
  times = false,
  marks = [],
  height = 220,
  xName = times ? "Time" : "Step",
  axis = compact,
}: {
  title: string;
  series: Series[];
  times?: boolean;
  marks?: LineMark[];
  height?: number;
  xName?: string;
  /** Writes the numbers of the y axis. */
  axis?: (value: number) => string;
}) {
  const zone = useZone();
  const { ref, width } = useWidth();
  const [off, setOff] = useState<ReadonlySet<string>>(new Set());
  const [at, setAt] = useState<number | null>(null);
  const [asTable, setAsTable] = useState(false);
  const coloured = series.map((each, index) => ({ ...each, index }));
  const shown = coloured.filter((each) => !off.has(each.name));
  const xs = useMemo(
    () => [...new Set(series.filter((each) => !off.has(each.name)).flatMap((each) => each.dots.map((dot) => dot.x)))].sort((a, b) => a - b),
    [series, off],
  );
  const [left, right] = xs.length > 1 ? [xs[0]!, xs.at(-1)!] : extent(xs);
  const near = marks.filter((mark) => mark.x >= left && mark.x <= right);
  const inner = Math.max(width - MARGIN.left - MARGIN.right, 50);
  const x = scaleLinear().domain([left, right]).range([MARGIN.left, MARGIN.left + inner]);
  const [low, high] = extent(shown.flatMap((each) => each.dots.map((dot) => dot.y)));
  const y = scaleLinear().domain([low, high]).nice(5).range([height - MARGIN.bottom, MARGIN.top]);
  const wanted = Math.max(2, Math.floor(inner / (times ? 150 : 90)));
  const xTicks = times ? timeTicks(left, right, wanted, zone) : x.ticks(wanted);
  const xText = (value: number) => (times ? day(new Date(value).toISOString(), zone) : number(value));
  const draw = line<Dot>((dot) => x(dot.x), (dot) => y(dot.y));
  const here = at === null ? undefined : xs[at];
  const readings =
    here === undefined
      ? []
      : shown.flatMap((each) => each.dots.filter((dot) => dot.x === here).map((dot) => ({ ...each, dot })));

  const point = (event: PointerEvent<SVGSVGElement>) => {
    const box = event.currentTarget.getBoundingClientRect();
    if (xs.length > 0) setAt(nearest(xs, x.invert(event.clientX - box.left)));
  };
  const walk = (event: KeyboardEvent) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, PageUp: 10, PageDown: -10 }[event.key];
    if (step !== undefined) setAt((old) => Math.min(xs.length - 1, Math.max(0, (old ?? (step > 0 ? -1 : xs.length)) + step)));
    else if (event.key === "Home") setAt(0);
    else if (event.key === "End") setAt(xs.length - 1);
    else if (event.key === "Escape") setAt(null);
    else return;
    event.preventDefault();
  };
  const flip = (name: string) =>
    setOff((old) => {
      const next = new Set(old);
      if (!next.delete(name)) next.add(name);
      return next;
    });
  const said = here === undefined ? "" : `${xName} ${times ? time(new Date(here).toISOString(), zone) : number(here)}: `;

  return (
    <Box as="figure" minW={0}>
      <Flex align="center" gap={2} justify="space-between">
        <Text as="figcaption" fontSize="sm" fontWeight="semibold" overflowWrap="anywhere">
          {title}
        </Text>
        <Button aria-pressed={asTable} onClick={() => setAsTable(!asTable)} size="2xs" variant="ghost">
          {asTable ? "Chart" : "Table"}
        </Button>
      </Flex>
      {asTable ? (
        <DataTable
          caption={title}
          columns={[
            { name: xName, cell: (row: { series: string; dot: Dot }) => (times ? time(new Date(row.dot.x).toISOString(), zone) : number(row.dot.x)), by: (row) => row.dot.x },
            { name: "Series", cell: (row) => row.series, by: (row) => row.series },
            { name: "Value", cell: (row) => number(row.dot.y), by: (row) => row.dot.y, right: true },
            { name: "Note", cell: (row) => row.dot.note ?? "" },
          ]}
          maxHeight="20rem"
          rowKey={(_, index) => String(index)}
          rows={shown.flatMap((each) => each.dots.map((dot) => ({ series: each.name, dot })))}
        />
      ) : (
        <Box position="relative" ref={ref}>
          <svg
            aria-label={`${title}: ${series.length} ${series.length === 1 ? "line" : "lines"}, ${xs.length} points. Arrow keys read the values.`}
            height={height}
            onBlur={() => setAt(null)}
            onKeyDown={walk}
            onPointerLeave={() => setAt(null)}
            onPointerMove={point}
            role="img"
            style={{ display: "block", touchAction: "pan-y" }}
            tabIndex={0}
            width={width}
          >
            {y.ticks(5).map((tick) => (
              <g key={tick}>
                <line stroke={GRID} x1={MARGIN.left} x2={MARGIN.left + inner} y1={y(tick)} y2={y(tick)} />
                <text dominantBaseline="middle" fill={INK} style={{ fontSize: 11 }} textAnchor="end" x={MARGIN.left - 6} y={y(tick)}>
                  {axis(tick)}
                </text>
              </g>
            ))}
            {xTicks.map((tick) => (
              <text fill={INK} style={{ fontSize: 11 }} key={tick} textAnchor={x(tick) > width - 45 ? "end" : "middle"} x={Math.min(x(tick), width - 2)} y={height - 8}>
                {xText(tick)}
              </text>
            ))}
            {near.map((mark, index) => (
              <g key={`${mark.x}-${index}`}>
                <line stroke={INK} strokeDasharray="3 3" x1={x(mark.x)} x2={x(mark.x)} y1={MARGIN.top - 4} y2={height - MARGIN.bottom}>
                  <title>{`${mark.label}, ${time(new Date(mark.x).toISOString(), zone)}`}</title>
                </line>
                <text
                  fill={INK}
                  style={{ fontSize: 11 }}
                  textAnchor={x(mark.x) > MARGIN.left + inner - 60 ? "end" : "start"}
                  x={x(mark.x) + (x(mark.x) > MARGIN.left + inner - 60 ? -3 : 3)}
                  y={index % 2 === 0 ? 9 : 20}
                >
                  {mark.label}
                </text>
              </g>
            ))}
            {shown.map((each) => (
              <g key={each.name}>
                <path d={draw(each.dots) ?? ""} fill="none" stroke={colour(each.index)} strokeDasharray={dash(each.index)} strokeWidth={1.75} />
                {each.dots.length <= 120
                  ? each.dots.map((dot, index) => <circle cx={x(dot.x)} cy={y(dot.y)} fill={colour(each.index)} key={index} r={2.5} />)
                  : null}
              </g>
            ))}
            {here !== undefined ? (
              <g pointerEvents="none">
                <line stroke={INK} x1={x(here)} x2={x(here)} y1={MARGIN.top} y2={height - MARGIN.bottom} />
                {readings.map((each, index) => (
                  <circle cx={x(here)} cy={y(each.dot.y)} fill={PAPER} key={index} r={4} stroke={colour(each.index)} strokeWidth={2} />
                ))}
              </g>
            ) : null}
          </svg>
          {here !== undefined ? (
            <Box
              bg="bg.panel"
              borderColor="border"
              borderRadius="sm"
              borderWidth="1px"
              fontSize="xs"
              maxW="20rem"
              p={2}
              pointerEvents="none"
              position="absolute"
              shadow="sm"
              top="0"
              zIndex={1}
              {...(x(here) > width / 2 ? { right: `${width - x(here) + 10}px` } : { left: `${x(here) + 10}px` })}
            >
              <Text fontWeight="semibold">{said.replace(/: $/, "")}</Text>
              {readings.slice(0, 10).map((each, index) => (
                <Text key={index} overflowWrap="anywhere">
                  <span aria-hidden style={{ color: colour(each.index) }}>
                    ●{" "}
                  </span>
                  {each.name}: {axis === compact ? number(each.dot.y) : axis(each.dot.y)}
                  {each.dot.note ? ` (${each.dot.note})` : ""}
                </Text>
              ))}
            </Box>
          ) : null}
          <Box aria-live="polite" style={HIDDEN}>
            {said + readings.map((each) => `${each.name} ${number(each.dot.y)}`).join(", ")}
          </Box>
        </Box>
      )}
      {series.length > 1 ? (
        <Flex aria-label="Lines" gap={1} mt={1} role="group" wrap="wrap">
          {coloured.map((each) => (
            <Button
              aria-pressed={!off.has(each.name)}
              key={each.name}
              onClick={() => flip(each.name)}
              opacity={off.has(each.name) ? 0.5 : 1}
              size="2xs"
              variant="ghost"
            >
              <svg aria-hidden height={8} width={18}>
                <line stroke={colour(each.index)} strokeDasharray={dash(each.index)} strokeWidth={2.5} x1={0} x2={18} y1={4} y2={4} />
              </svg>
              {each.name}
            </Button>
          ))}
        </Flex>
      ) : null}
    </Box>
  );
}

export const HIDDEN = { position: "absolute", width: 1, height: 1, overflow: "hidden", clipPath: "inset(50%)", whiteSpace: "nowrap" } as const;
