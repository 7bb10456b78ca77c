// SPDX-License-Identifier: Apache-2.0
import { Box, Text } from "@chakra-ui/react";
import { scaleLinear } from "d3-scale";
import { number } from "../format";
import { colour, extent, GRID, INK, useWidth } from "./common";

const MARGIN = { top: 10, right: 16, bottom: 40, left: 64 };
const HEIGHT = 340;

interface Props {
  points: { id: string; x: number; y: number }[];
  total: number;
  xName: string;
  yName: string;
  chosen: string | null;
  choose: (id: string | null) => void;
}

/** One point for each run that has both numbers; each can be reached by Tab and says what it is. */
export function Scatter({ points, total, xName, yName, chosen, choose }: Props) {
  const { ref, width } = useWidth();
  const inner = Math.max(width - MARGIN.left - MARGIN.right, 50);
  const x = scaleLinear().domain(extent(points.map((each) => each.x))).nice(6).range([MARGIN.left, MARGIN.left + inner]);
  const y = scaleLinear().domain(extent(points.map((each) => each.y))).nice(6).range([HEIGHT - MARGIN.bottom, MARGIN.top]);
  const shown = points.find((each) => each.id === chosen);
  return (
    <Box as="figure" ref={ref}>
      <Text as="figcaption" color="fg.muted" fontSize="sm">
        {points.length === total ? `${total} runs` : `${points.length} of ${total} runs have both as numbers`}
        {shown ? ` · ${shown.id}: ${xName} ${number(shown.x)}, ${yName} ${number(shown.y)}` : ""}
      </Text>
      <svg aria-label={`${yName} over ${xName}`} height={HEIGHT} role="group" style={{ display: "block" }} width={width}>
        {y.ticks(6).map((tick) => (
          <g key={tick}>
            <line stroke={GRID} x1={MARGIN.left} x2={MARGIN.left + inner} y1={y(tick)} y2={y(tick)} />
            <text dominantBaseline="middle" fill={INK} style={{ fontSize: 11 }} textAnchor="end" x={MARGIN.left - 6} y={y(tick)}>
              {number(tick)}
            </text>
          </g>
        ))}
        {x.ticks(Math.max(2, Math.floor(inner / 110))).map((tick) => (
          <g key={tick}>
            <line stroke={GRID} x1={x(tick)} x2={x(tick)} y1={MARGIN.top} y2={HEIGHT - MARGIN.bottom} />
            <text fill={INK} style={{ fontSize: 11 }} textAnchor="middle" x={x(tick)} y={HEIGHT - MARGIN.bottom + 16}>
              {number(tick)}
            </text>
          </g>
        ))}
        <text fill={INK} style={{ fontSize: 12 }} textAnchor="middle" x={MARGIN.left + inner / 2} y={HEIGHT - 6}>
          {xName}
        </text>
        <text fill={INK} style={{ fontSize: 12 }} textAnchor="middle" transform={`translate(14 ${HEIGHT / 2}) rotate(-90)`}>
          {yName}
        </text>
        {points.map((each) => (
          <circle
            aria-label={`${each.id}: ${xName} ${number(each.x)}, ${yName} ${number(each.y)}`}
            cx={x(each.x)}
            cy={y(each.y)}
            fill={colour(each.id === chosen ? 1 : 0)}
            fillOpacity={0.75}
            key={each.id}
            onClick={() => choose(each.id)}
            onFocus={() => choose(each.id)}
            onPointerEnter={() => choose(each.id)}
            r={each.id === chosen ? 7 : 5}
            role="img"
            tabIndex={0}
          />
        ))}
      </svg>
    </Box>
  );
}
