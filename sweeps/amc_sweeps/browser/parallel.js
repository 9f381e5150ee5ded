// All parameters at once: each run is a line. A brush along an axis selects runs everywhere.

import { clamped, niceRange, parameterAxis, spread } from "./axes.js";
import { aboutRun, chartOf, tooltip } from "./chart.js";
import { settingText, shortNumber, tickText } from "./format.js";
import { DASHES, GROUP_COLOURS, css } from "./theme.js";

const MOST_AXES = 10;
const LEAST_WIDTH = 78; // px of an axis
const MARGIN = 56; // px left of the first axis, over which the name of that axis is centred
const MANY_LINES = 200; // lines, from which on each is drawn thin

export class Parallel {
  constructor(box, sweep, selection) {
    [this.box, this.sweep, this.selection] = [box, sweep, selection];
    this.brushed = null; // the intervals by axis, to draw them again
    selection.addEventListener("clear", () => {
      this.brushed = null;
    });
    box.addEventListener("pointerdown", () => {
      this.isHeld = true;
    });
    // After the chart has heard of it, too.
    for (const name of ["pointerup", "pointercancel"]) addEventListener(name, () => setTimeout(() => this.#release()));
  }

  draw() {
    const { sweep, box } = this;
    const chart = chartOf(box);
    this.isOld = this.isHeld; // a chart that is drawn anew forgets the drag
    if (this.isHeld) return;
    chart.echarts.off("axisareaselected");
    const most = Math.max(2, Math.min(MOST_AXES, Math.floor(box.clientWidth / LEAST_WIDTH) - 1));
    const axes = sweep.parameters.slice(0, most).map((parameter, index) => ({
      name: parameter.name, ...parameterAxis(parameter, sweep.runs.map((run) => run.values[index])),
    }));
    const gap = (box.clientWidth - 140) / (axes.length || 1); // px between two axes
    const short = Math.max(6, Math.floor(gap / 8));
    axes.push({ name: sweep.metric, kind: "value", levels: [], isMetric: true });
    const members = sweep.runs.filter((run) => run.peak !== null);
    const range = niceRange(members.map((run) => run.peak), sweep.maximize);
    const isMany = members.length > MANY_LINES;
    const brushed = this.brushed ?? [];
    chart.draw({
      tooltip: tooltip((item) => (item.data?.run === undefined ? "" : aboutRun(sweep, sweep.runs[item.data.run]))),
      parallel: {
        left: MARGIN, right: 84, top: 40, bottom: 24,
        parallelAxisDefault: { nameTextStyle: { color: css("--ink") }, nameGap: 14, nameTruncate: { maxWidth: gap - 8 } },
      },
      parallelAxis: axes.map((each, index) => ({
        dim: index, name: each.name, type: each.kind === "log" ? "log" : "value", scale: true, z: 10,
        ...(index ? {} : { nameTruncate: { maxWidth: Math.min(short * 8, 2 * MARGIN - 8) } }),
        ...(each.kind === "category" ? { min: -0.5, max: each.levels.length - 0.5, interval: 0.5, axisTick: { show: false } }
          : each.isMetric ? { min: range[0], max: range[1], interval: range[2] } : { min: "dataMin", max: "dataMax" }),
        axisLine: { lineStyle: { color: css("--faint") } },
        axisLabel: {
          color: css("--ink"), backgroundColor: css("--paper"), padding: [1, 3], hideOverlap: true,
          formatter: each.kind === "category" ? (value) => cut(settingText(each.levels[value] ?? ""), short) : each.isMetric
            ? (value) => tickText(sweep, value) : (value) => shortNumber(value),
        },
        areaSelectStyle: { color: css("--focus"), opacity: 0.25, borderColor: css("--focus"), width: 18 },
      })),
      series: sweep.groups.map((name, group) => ({
        type: "parallel", name, inactiveOpacity: 0.03, activeOpacity: 0.9,
        data: members.filter((run) => run.group === group).map((run) => ({
          value: axes.map((each, index) => placeOn(each, run, index, range)),
          run: run.place, lineStyle: this.#style(run, isMany),
        })),
      })),
    });
    for (const [index, intervals] of brushed) {
      const { id } = chart.echarts.getModel().getComponent("parallelAxis", index);
      chart.echarts.dispatchAction({ type: "axisAreaSelect", parallelAxisId: id, intervals });
    }
    chart.echarts.on("axisareaselected", () => this.#brush(chart.echarts.getModel(), axes, range));
  }

  #style(run, isMany) {
    const isVisible = this.selection.visible[run.place];
    const isPicked = run.id === this.selection.picked;
    return {
      color: isPicked ? css("--ink") : css(GROUP_COLOURS[run.group]),
      width: isPicked ? 4 : run.gem ? 3 : 1.3,
      opacity: isPicked ? 1 : !isVisible ? 0.04 : run.gem ? 0.95 : isMany ? 0.25 : 0.6,
      type: isMany ? "solid" : DASHES[run.group],
    };
  }

  #release() {
    this.isHeld = false;
    if (this.isOld) this.draw();
  }

  #brush(model, axes, range) {
    const areas = [];
    axes.forEach((_, index) => {
      const intervals = model.getComponent("parallelAxis", index).activeIntervals;
      if (intervals.length) areas.push([index, intervals.map((interval) => [...interval])]);
    });
    this.brushed = areas.length ? areas : null;
    const isInside = (run) => areas.every(([index, intervals]) => {
      const at = placeOn(axes[index], run, index, range);
      return intervals.some(([low, high]) => low <= at && at <= high);
    });
    const places = () => new Set(this.sweep.runs.filter(isInside).map((run) => run.place));
    this.selection.brush("parallel", areas.length ? places : null);
  }
}

// Where a run's line meets an axis; NaN where it does not. Lines of one listed value are spread out a little, always in
// the same way: else one group would cover the others.
function placeOn(axis, run, index, range) {
  if (axis.isMetric) return run.peak === null ? NaN : clamped(run.peak, range);
  const value = run.values[index];
  if (value === null) return NaN;
  if (axis.kind !== "category") return value;
  const level = axis.levels.findIndex((each) => JSON.stringify(each) === JSON.stringify(value));
  return level < 0 ? NaN : level + spread(run.place);
}

function cut(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}
