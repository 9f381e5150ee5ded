// The best value of every run in the order of their starts, and the best so far.

import { clamped, niceRange } from "./axes.js";
import { BESIDE_CURVES, aboutRun, axis, chartOf, metricAxis, pickByClick, pickedBorder, tooltip } from "./chart.js";
import { GROUP_COLOURS, SYMBOLS, css } from "./theme.js";

export function drawBestSoFar(box, sweep, selection) {
  const runs = sweep.runs.filter((run) => run.peak !== null && !run.excluded).sort((a, b) => a.order - b.order);
  const line = [];
  for (const run of runs) {
    const before = line.length ? line[line.length - 1][1] : null;
    const isBest = before === null || (sweep.maximize ? run.peak > before : run.peak < before);
    line.push([run.order, isBest ? run.peak : before]);
  }
  if (line.length) line.push([sweep.runs.length, line[line.length - 1][1]]);
  const range = niceRange(sweep.runs.flatMap((run) => (run.peak === null ? [] : [run.peak])), sweep.maximize);
  const chart = chartOf(box);
  chart.draw({
    grid: BESIDE_CURVES,
    tooltip: tooltip((item) => (item.data.run === undefined ? "" : aboutRun(sweep, sweep.runs[item.data.run]))),
    xAxis: axis({
      type: "value", name: "runs in the order of their starts", min: 0, max: sweep.runs.length + 1, minInterval: 1,
      splitLine: { show: false }, axisLabel: { showMaxLabel: false },
    }),
    yAxis: metricAxis(sweep, range),
    series: [
      {
        type: "line", step: "end", data: line, showSymbol: false, silent: true,
        lineStyle: { color: css("--ink"), width: 2 },
      },
      ...sweep.groups.map((name, group) => ({
        type: "scatter", name, symbol: SYMBOLS[group],
        itemStyle: { color: css(GROUP_COLOURS[group]), borderColor: css("--paper") },
        data: sweep.runs.flatMap((run, place) => (run.group !== group || run.peak === null ? [] : [{
          value: [run.order, clamped(run.peak, range)], run: place, symbolSize: run.gem ? 14 : sweep.runs.length > 300 ? 6 : 9,
          itemStyle: { opacity: selection.visible[place] ? 1 : 0.12, ...pickedBorder(selection, run) },
        }])),
      })),
    ],
  });
  pickByClick(chart, sweep, selection);
}
