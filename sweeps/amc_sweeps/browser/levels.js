// Accuracy by SNR of some runs.

import { ceilingPoints } from "./ceilings.js";
import { GRID, axis, chartOf, tooltip } from "./chart.js";
import { runLabel } from "./format.js";
import { SYMBOLS, css } from "./theme.js";

const PALETTE = ["--well", "--failed", "--open", "--cut", "--ink", "--faint"];

// Draw lines, each {name, points: [[dB, accuracy], ...]}, and the ceiling of the classes with these names, if it is known.
export function drawLevels(box, lines, names = []) {
  const levels = new Set(lines.flatMap((line) => line.points.map(([level]) => level)));
  const ceiling = ceilingPoints(names, [...levels].sort((a, b) => a - b));
  chartOf(box).draw({
    legend: { type: "scroll", top: 0, textStyle: { color: css("--ink") } },
    grid: { ...GRID, top: 40 },
    tooltip: { ...tooltip(), trigger: "axis", formatter: undefined, valueFormatter: (value) => `${(100 * value).toFixed(1)}%` },
    xAxis: axis({ type: "value", name: "SNR in dB", min: "dataMin", max: "dataMax", splitLine: { show: false } }),
    yAxis: axis({
      type: "value", name: "accuracy", nameGap: 54, axisLabel: { formatter: (value) => `${+(100 * value).toPrecision(6)}%` },
    }),
    series: [
      ...lines.map((line, index) => ({
        type: "line", name: line.name, data: line.points, symbolSize: 7, symbol: SYMBOLS[index % 4],
        lineStyle: { color: css(PALETTE[index % 6]), type: ["solid", "dashed", "dotted"][index % 3], width: 2 },
        itemStyle: { color: css(PALETTE[index % 6]) },
      })),
      ...(ceiling ? [{
        type: "line", name: "ceiling", data: ceiling, showSymbol: false,
        lineStyle: { color: css("--faint"), type: "dashed", width: 1.5 }, itemStyle: { color: css("--faint") },
      }] : []),
    ],
  });
}

export function levelLines(sweep) {
  return sweep.levels.runs.map((line) => ({ name: runLabel(sweep.runs[line.run]), points: line.points }));
}
