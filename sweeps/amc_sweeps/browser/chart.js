// One chart in a box, by Apache ECharts, in the colours of the style sheet.
/* global echarts */

import { epochText, escaped, metricText, runLabel, settingText, tickText } from "./format.js";
import { isOnPaper } from "./paper.js";
import { css } from "./theme.js";

const LEFT = 76; // px for the ticks and the name of the metric's axis

export class Chart {
  constructor(box) {
    this.box = box;
    this.echarts = echarts.init(box, null, { renderer: "canvas" });
    new ResizeObserver(() => {
      this.echarts.resize();
      this.onresize?.();
    }).observe(box);
  }

  draw(option) {
    if (this.echarts.getWidth() !== this.box.clientWidth) this.echarts.resize(); // on paper, before the observer knows
    const text = { color: css("--ink"), fontFamily: "system-ui, sans-serif" };
    this.echarts.setOption({ animation: false, textStyle: text, ...option }, { notMerge: true });
    if (isOnPaper()) this.echarts.getZr().flush(); // printing waits for no frame
  }
}

const charts = new Map();

// The chart of a box, made when it is first asked for.
export function chartOf(box) {
  if (!charts.has(box)) charts.set(box, new Chart(box));
  return charts.get(box);
}

export const GRID = { left: LEFT, right: 18, top: 12, bottom: 48 };
export const BESIDE_CURVES = { ...GRID, top: 26 }; // with room for the names of bands, in the chart beside the curves, too

export function axis(more) {
  return {
    nameLocation: "middle", nameGap: 30, nameTextStyle: { color: css("--faint") },
    axisLine: { onZero: false, lineStyle: { color: css("--line") } },
    splitLine: { lineStyle: { color: css("--line") } }, ...more,
    axisLabel: { color: css("--faint"), hideOverlap: true, ...more.axisLabel },
  };
}

// The axis of the metric, with a range of ``niceRange``.
export function metricAxis(sweep, [min, max, interval]) {
  const name = sweep.metric.length > 40 ? `${sweep.metric.slice(0, 39)}…` : sweep.metric;
  return axis({
    type: "value", name, nameGap: 54, min, max, interval,
    axisLabel: { formatter: (value) => tickText(sweep, value) },
  });
}

export function tooltip(formatter) {
  return {
    trigger: "item", confine: true, formatter, backgroundColor: css("--paper"), borderColor: css("--line"),
    textStyle: { color: css("--ink") },
  };
}

// What a tooltip says of a run, as HTML.
export function aboutRun(sweep, run) {
  const at = run.at === null ? "" : ` at epoch ${epochText(run.at)}`;
  const lines = [
    `<b>${escaped(runLabel(run))}</b>`,
    `${sweep.maximize ? "peak" : "lowest"} ${metricText(sweep, run.peak)}${at}`,
    `${escaped(run.cause)}${run.gem ? ", hidden gem" : ""}`,
    ...sweep.parameters.slice(0, 12).map((each, index) => `${escaped(each.name)} ${escaped(settingText(run.values[index]))}`),
  ];
  return lines.join("<br>");
}

// The border of the run that is picked out.
export function pickedBorder(selection, run) {
  return run.id === selection.picked ? { borderColor: css("--ink"), borderWidth: 3 } : {};
}

// A click on a run's mark picks the run.
export function pickByClick(chart, sweep, selection) {
  chart.echarts.off("click");
  chart.echarts.on("click", (item) => {
    if (item.data?.run !== undefined) selection.pick(sweep.runs[item.data.run].id);
  });
}
