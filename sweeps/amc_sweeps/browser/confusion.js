// A confusion matrix: shares of each true class.

import { axis, chartOf, tooltip } from "./chart.js";
import { escaped } from "./format.js";
import { css } from "./theme.js";

const STEEP = Math.sin(Math.PI / 3); // of names that are turned by 60 degrees
const WIDTH = 0.62; // of a character, in sizes of its font
const SMALLEST_PX = 7;

export function drawConfusion(box, matrix, unit) {
  const name = (index) => `${escaped(matrix.names[index])}${unit}`;
  // The names of many classes are written smaller, so that they fit side by side.
  const columnPx = (box.clientWidth - 100) / matrix.names.length;
  const fontSize = Math.round(Math.max(SMALLEST_PX, Math.min(12, columnPx * STEEP * 0.9)));
  const longest = Math.max(...matrix.names.map((text) => text.length)) * fontSize * WIDTH;
  const [below, beside] = [16 + STEEP * longest, 14 + longest];
  chartOf(box).draw({
    grid: { left: beside + 22, right: 16, top: 12, bottom: below + 22 },
    tooltip: tooltip(({ value }) => `true ${name(value[1])}, taken for ${name(value[0])}: ${(100 * value[2]).toFixed(1)}%`),
    xAxis: axis({
      type: "category", data: matrix.names, name: `taken for${unit && ", dB"}`, nameGap: below,
      axisLabel: { rotate: 60, interval: 0, fontSize },
    }),
    yAxis: axis({
      type: "category", data: matrix.names, inverse: true, name: `true${unit && ", dB"}`, nameGap: beside,
      axisLabel: { interval: 0, fontSize },
    }),
    visualMap: {
      min: 0, max: Math.max(...matrix.shares.flat()) || 1, show: false, inRange: { color: [css("--low"), css("--high")] },
    },
    series: [{ type: "heatmap", progressive: 0, data: matrix.shares.flatMap((row, y) => row.map((share, x) => [x, y, share])) }],
  });
}
