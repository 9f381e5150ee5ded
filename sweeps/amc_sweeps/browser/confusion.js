// A confusion matrix: shares of each true class.

import { axis, chartOf, tooltip } from "./chart.js";
import { escaped } from "./format.js";
import { css } from "./theme.js";

const LABEL_PX = 14; // that a label needs

export function drawConfusion(box, matrix, unit) {
  const name = (index) => `${escaped(matrix.names[index])}${unit}`;
  const labels = (px) => ({ interval: Math.ceil((matrix.names.length * LABEL_PX) / px) - 1 }); // so that none overlap
  chartOf(box).draw({
    grid: { left: 84, right: 16, top: 12, bottom: 96 },
    tooltip: tooltip(({ value }) => `true ${name(value[1])}, taken for ${name(value[0])}: ${(100 * value[2]).toFixed(1)}%`),
    xAxis: axis({
      type: "category", data: matrix.names, name: `taken for${unit && ", dB"}`, nameGap: 62, axisLabel: { rotate: 60, ...labels(box.clientWidth - 100) },
    }),
    yAxis: axis({
      type: "category", data: matrix.names, inverse: true, name: `true${unit && ", dB"}`, nameGap: 62, axisLabel: labels(box.clientHeight - 108),
    }),
    visualMap: {
      min: 0, max: Math.max(...matrix.shares.flat()) || 1, show: false, inRange: { color: [css("--low"), css("--high")] },
    },
    series: [{ type: "heatmap", data: matrix.shares.flatMap((row, y) => row.map((share, x) => [x, y, share])) }],
  });
}
