// The outcome of every run by one parameter's value, a chart for each parameter; a report adds the means.

import { clamped, niceRange, parameterAxis, spread } from "./axes.js";
import { Brush } from "./brush.js";
import { GRID, aboutRun, axis, chartOf, metricAxis, pickByClick, pickedBorder, tooltip } from "./chart.js";
import { element } from "./dom.js";
import { counted, escaped, metricText, settingText, shortNumber } from "./format.js";
import { GROUP_COLOURS, SYMBOLS, css } from "./theme.js";

const MOST_SLICES = 12;

// Runs by one parameter and their peaks, where no analysis has chosen another outcome.
function sliceOf(sweep, index) {
  const parameter = sweep.parameters[index];
  const { kind, levels } = parameterAxis(parameter, sweep.runs.map((run) => run.values[index]));
  const keys = levels.map((level) => JSON.stringify(level));
  const points = sweep.runs.flatMap((run) => {
    const value = run.values[index];
    if (value === null || run.peak === null) return [];
    return [[kind === "category" ? keys.indexOf(JSON.stringify(value)) : value, run.peak, run.place]];
  });
  return { name: parameter.name, labels: kind === "category" ? levels.map(settingText) : [], log: kind === "log", points, values: [] };
}

// Make a box for each slice, and tell the painter.
export function addSlices(grid, painter, sweep, selection) {
  const count = sweep.slices?.length ?? Math.min(sweep.parameters.length, MOST_SLICES);
  for (let number = 0; number < count; number += 1) {
    const slice = () => sweep.slices?.[number] ?? sliceOf(sweep, number);
    const label = `${sweep.metric} by ${slice().name}`;
    const box = element("div", { class: "chart low", role: "img", "aria-label": label, id: `slice-${number}` });
    grid.append(box);
    let brush = null;
    painter.add(box, () => {
      drawSlice(box, sweep, selection, slice());
      brush ??= new Brush(box, selection, `slice ${number}`, () => pointsOf(sweep, slice()));
      brush.draw();
    });
  }
}

function rangeOf(sweep, slice) {
  return niceRange(slice.points.map((point) => point[1]), sweep.maximize);
}

// Where the chart shows each run.
function pointsOf(sweep, slice) {
  const range = rangeOf(sweep, slice);
  const isListed = slice.labels.length > 0;
  return slice.points.map(([place, value, run]) => ({ x: place + (isListed ? spread(run) : 0), y: clamped(value, range), run }));
}

function drawSlice(box, sweep, selection, slice) {
  const isListed = slice.labels.length > 0;
  const first = slice.epochs ? `, first ${counted(slice.epochs, "epoch")}` : "";
  const title = `${slice.name}${first}${slice.clear === false ? " (no clear effect)" : ""}`;
  const places = slice.points.map((point) => point[0]);
  const most = Math.max(4, Math.floor((box.clientWidth - 90) / (slice.labels.length || 1) / 7.5));
  const [range, points] = [rangeOf(sweep, slice), pointsOf(sweep, slice)];
  const chart = chartOf(box);
  chart.draw({
    title: { text: title, textStyle: { color: css("--ink"), fontSize: 13, width: box.clientWidth - 20, overflow: "truncate" } },
    grid: { ...GRID, top: 42, bottom: 40 },
    tooltip: tooltip((item) => (item.data.run !== undefined ? aboutRun(sweep, sweep.runs[item.data.run]) : aboutMean(sweep, item.data))),
    xAxis: isListed
      ? axis({
        type: "value", min: -0.5, max: slice.labels.length - 0.5, interval: 0.5, splitLine: { show: false },
        axisTick: { show: false },
        axisLabel: { formatter: (value) => (Number.isInteger(value) ? cutLabel(slice.labels[value] ?? "", most) : "") },
      })
      : axis({
        type: slice.log ? "log" : "value", scale: true, min: Math.min(...places), max: Math.max(...places),
        splitLine: { show: false },
        axisLabel: { formatter: (value) => shortNumber(value, 3), showMinLabel: false, showMaxLabel: false },
      }),
    yAxis: metricAxis(sweep, range),
    series: [
      ...sweep.groups.map((name, group) => ({
        type: "scatter", name, symbol: SYMBOLS[group], symbolSize: sweep.runs.length > 300 ? 5 : 7, clip: true,
        itemStyle: { color: css(GROUP_COLOURS[group]) },
        data: points.filter(({ run }) => sweep.runs[run].group === group).map(({ x, y, run }) => ({
          value: [x, y], run,
          itemStyle: { opacity: selection.visible[run] ? 0.75 : 0.08, ...pickedBorder(selection, sweep.runs[run]) },
        })),
      })),
      ...(slice.values.length ? [meanSeries(slice, range)] : []),
    ],
  });
  pickByClick(chart, sweep, selection);
}

function aboutMean(sweep, mean) {
  const ends = mean.interval
    ? `${metricText(sweep, mean.interval[0])} to ${metricText(sweep, mean.interval[1])}`
    : "no interval: fewer than 8 runs";
  return `<b>${escaped(mean.label)}</b><br>n ${mean.n}, mean ${metricText(sweep, mean.mean)}<br>${ends}`;
}

function meanSeries(slice, range) {
  const isListed = slice.labels.length > 0;
  const middle = (low, high) => (slice.log ? Math.sqrt(low * high) : (low + high) / 2);
  const means = slice.values.filter((outcome) => outcome.mean !== null).map((outcome) => {
    const at = isListed ? slice.labels.indexOf(outcome.label) : middle(outcome.low, outcome.high);
    const [low, high] = outcome.interval ?? [outcome.mean, outcome.mean];
    const [left, right] = isListed ? [at - 0.25, at + 0.25] : [outcome.low, outcome.high];
    const drawn = [outcome.mean, low, high].map((value) => clamped(value, range));
    return { ...outcome, value: [at, ...drawn, left, right] };
  });
  const stroke = { stroke: css("--ink"), lineWidth: 2 };
  const line = (x1, y1, x2, y2, style = stroke) => ({ type: "line", shape: { x1, y1, x2, y2 }, style });
  return {
    type: "custom", data: means, z: 6, clip: true, encode: { x: 0, y: [1, 2, 3] },
    renderItem: (_, api) => {
      const [x, y] = api.coord([api.value(0), api.value(1)]);
      const [low, high] = [2, 3].map((index) => api.coord([api.value(0), api.value(index)])[1]);
      const [left, right] = [4, 5].map((index) => api.coord([api.value(index), api.value(1)])[0]);
      return { type: "group", children: [
        line(x, low, x, high), line(x - 6, low, x + 6, low), line(x - 6, high, x + 6, high),
        line(left, y, right, y, { stroke: css("--ink"), lineWidth: 1, lineDash: [3, 3] }),
        { type: "rect", shape: { x: x - 5, y: y - 5, width: 10, height: 10 }, style: { fill: css("--paper"), ...stroke } },
      ] };
    },
  };
}

function cutLabel(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}
