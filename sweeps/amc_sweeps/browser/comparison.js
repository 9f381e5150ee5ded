// The page of several sweeps side by side: how the best value of each grew.

import { clamped, niceRange } from "./axes.js";
import { GRID, axis, chartOf, metricAxis, tooltip } from "./chart.js";
import { byId } from "./dom.js";
import { escaped, metricText } from "./format.js";
import { Painter } from "./painter.js";
import { SYMBOLS, css, watchTheme } from "./theme.js";

const LINES = ["--well", "--failed", "--open", "--cut", "--ink", "--faint"];
const compared = JSON.parse(byId("data").textContent);
const comparisonPainter = new Painter();

document.documentElement.classList.add("scripted");
comparisonPainter.add(byId("chart-compared"), drawCompared);
watchTheme(byId("theme"), () => comparisonPainter.redraw());

function drawCompared() {
  const [first] = compared.sweeps;
  const bests = compared.sweeps.flatMap((sweep) => sweep.best.map((point) => point[1]));
  const range = niceRange(bests, first.maximize);
  chartOf(byId("chart-compared")).draw({
    grid: { ...GRID, top: 40 },
    legend: { type: "scroll", top: 0, textStyle: { color: css("--ink") } },
    tooltip: tooltip((item) => `<b>${escaped(item.seriesName)}</b><br>${metricText(first, item.value[1])} after ${item.value[0]} runs`),
    xAxis: axis({ type: "value", name: "runs in the order of their starts", min: 1, minInterval: 1, splitLine: { show: false } }),
    yAxis: metricAxis(first, range),
    series: compared.sweeps.map((sweep, index) => ({
      type: "line", step: "end", name: sweep.title, data: sweep.best.map(([place, value]) => [place, clamped(value, range)]), symbol: SYMBOLS[index % 4], symbolSize: 6,
      lineStyle: { color: css(LINES[index % 6]), width: 2, type: ["solid", "dashed", "dotted"][Math.floor(index / 6) % 3] },
      itemStyle: { color: css(LINES[index % 6]) },
    })),
  });
}
