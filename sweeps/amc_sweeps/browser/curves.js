// The learning curves of all runs, on a canvas of their own above the axes: a thousand of them in pieces of a frame.

import { niceRange } from "./axes.js";
import { BESIDE_CURVES, axis, chartOf, metricAxis } from "./chart.js";
import { epochText, metricText, runLabel } from "./format.js";
import { isOnPaper } from "./paper.js";
import { DASHES, GROUP_COLOURS, css } from "./theme.js";

const MANY = 100; // curves, from which on each is drawn thin
const RUNS_A_FRAME = 120;
const NEAR = 14; // px from a curve to the pointer that means it
const DASH_PX = { solid: [], dotted: [2, 3], dashed: [7, 4] };

export class Curves {
  #frame = 0;

  constructor(box, note, sweep, selection) {
    [this.sweep, this.selection, this.note] = [sweep, selection, note];
    this.chart = chartOf(box);
    this.canvas = document.createElement("canvas");
    this.canvas.className = "overlay";
    box.append(this.canvas);
    this.chart.onresize = () => this.draw();
    box.addEventListener("mousemove", (event) => {
      const run = this.#nearest(event);
      this.#describe(run);
      if (run !== this.hovered) {
        this.hovered = run;
        this.#overlay();
      }
    });
    box.addEventListener("mouseleave", () => {
      this.hovered = null;
      this.#describe(null);
      this.#overlay();
    });
    box.addEventListener("click", (event) => {
      const run = this.#nearest(event);
      if (run) selection.pick(run.id);
    });
  }

  draw() {
    const { sweep } = this;
    const values = [];
    let last = 1;
    for (const run of sweep.runs) {
      for (const value of run.y) if (value !== null) values.push(value);
      last = Math.max(last, run.x ? Math.max(...run.x.filter((place) => place !== null)) : run.y.length, run.planned ?? 0);
    }
    const hasX = sweep.runs.some((run) => run.x);
    const bands = hasX ? [] : sweep.bands.filter((band) => band <= last);
    const width = this.chart.echarts.getWidth() - 94; // of the axes
    // A label needs room beside the one before it.
    let labelled = -Infinity;
    const isRoomy = (band) => {
      const isFar = ((band - labelled) / last) * width > 56;
      if (isFar) labelled = band;
      return isFar;
    };
    const isLeft = (band) => (band / last) * width < 26; // its label would touch the highest tick
    const first = hasX ? Math.min(...sweep.runs.flatMap((run) => (run.x ? [run.x[0]] : []))) : 1;
    this.chart.draw({
      grid: BESIDE_CURVES,
      xAxis: axis({ type: "value", name: sweep.xLabel, min: Math.min(first, 1), max: Math.max(last, 2), splitLine: { show: false } }),
      yAxis: metricAxis(sweep, niceRange(values, sweep.maximize)),
      series: [{
        type: "line", data: [], silent: true,
        markLine: {
          symbol: "none", silent: true, animation: false,
          lineStyle: { color: css("--faint"), type: "dashed", width: 1 },
          label: { color: css("--faint"), formatter: (line) => `band ${line.value}`, fontSize: 11 },
          data: bands.map((band) => ({ xAxis: band, label: { show: isRoomy(band), align: isLeft(band) ? "left" : "center" } })),
        },
      }],
    });
    this.#describe(this.hovered ?? null);
    this.#overlay();
  }

  #overlay() {
    cancelAnimationFrame(this.#frame);
    const { sweep, selection, canvas } = this;
    const [width, height] = [this.chart.echarts.getWidth(), this.chart.echarts.getHeight()];
    const ratio = devicePixelRatio || 1;
    [canvas.width, canvas.height] = [width * ratio, height * ratio];
    [canvas.style.width, canvas.style.height] = [`${width}px`, `${height}px`];
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    const scale = this.#scale();
    if (!scale) return;
    pen.beginPath();
    pen.rect(scale.left, scale.top, scale.right - scale.left, scale.bottom - scale.top);
    pen.clip();
    const isVisible = (run) => selection.visible[run.place];
    const rest = sweep.runs.filter((run) => !isVisible(run));
    const shown = sweep.runs.filter((run) => isVisible(run) && !run.gem);
    const gems = sweep.runs.filter((run) => isVisible(run) && run.gem);
    const isMany = shown.length > MANY;
    const queue = [
      ...rest.map((run) => [run, { alpha: 0.06, width: 0.8, dash: "solid" }]),
      ...shown.map((run) => [run, {
        alpha: isMany ? 0.35 : 0.85, width: isMany ? 0.8 : 1.5, dash: isMany ? "solid" : DASHES[run.group], mark: !isMany,
      }]),
      ...gems.map((run) => [run, { alpha: 1, width: 2.6, dash: DASHES[run.group], mark: true, size: 5 }]),
    ];
    for (const run of [selection.pickedRun, this.hovered]) {
      if (run) queue.push([run, { alpha: 1, width: 3, dash: "solid", colour: "--ink", mark: true, size: 6 }]);
    }
    const colours = Object.fromEntries(["--ink", "--paper", ...GROUP_COLOURS].map((name) => [name, css(name)]));
    const drawSome = () => {
      for (const [run, style] of queue.splice(0, isOnPaper() ? Infinity : RUNS_A_FRAME)) drawRun(pen, scale, run, style, colours);
      if (queue.length) this.#frame = requestAnimationFrame(drawSome);
    };
    drawSome();
  }

  // Where values lie in pixels; null before the axes are there.
  #scale() {
    const convert = (x, y) => this.chart.echarts.convertToPixel("grid", [x, y]);
    const option = this.chart.echarts.getOption();
    if (!option?.xAxis) return null;
    const { min: x0, max: x1 } = option.xAxis[0];
    const { min: y0, max: y1 } = option.yAxis[0];
    const [left, bottom] = convert(x0, y0);
    const [right, top] = convert(x1, y1);
    return {
      left, right, top, bottom,
      x: (value) => left + ((value - x0) / (x1 - x0)) * (right - left),
      y: (value) => bottom - ((value - y0) / (y1 - y0)) * (bottom - top),
      column: (pixel) => x0 + ((pixel - left) / (right - left)) * (x1 - x0),
    };
  }

  #nearest(event) {
    const scale = this.#scale();
    if (!scale) return null;
    const frame = this.canvas.getBoundingClientRect();
    const [x, y] = [event.clientX - frame.left, event.clientY - frame.top];
    if (x < scale.left || x > scale.right || y < scale.top || y > scale.bottom) return null;
    const column = scale.column(x);
    let [best, least] = [null, NEAR];
    this.sweep.runs.forEach((run) => {
      if (!this.selection.visible[run.place] || !run.y.length) return;
      let at = Math.round(column) - 1;
      if (run.x) at = run.x.findIndex((place) => place >= column - 0.5);
      at = Math.max(0, Math.min(at, run.y.length - 1));
      if (run.y[at] === null) return;
      const distance = Math.hypot(scale.x(run.x ? run.x[at] : at + 1) - x, scale.y(run.y[at]) - y);
      if (distance < least) [best, least] = [run, distance];
    });
    return best;
  }

  #describe(run) {
    const shown = run ?? this.selection.pickedRun;
    const at = shown?.at === null ? "" : ` at epoch ${epochText(shown?.at)}`;
    this.note.textContent = shown
      ? `${runLabel(shown)}: ${this.sweep.maximize ? "peak" : "lowest"} ${metricText(this.sweep, shown.peak)}${at}, ${shown.cause}`
      : "Point at a curve to see its run; click to keep it.";
  }

  // After another run was picked.
  picked() {
    this.#describe(null);
    this.#overlay();
  }
}

function drawRun(pen, scale, run, style, colours) {
  pen.globalAlpha = style.alpha;
  pen.strokeStyle = pen.fillStyle = colours[style.colour ?? GROUP_COLOURS[run.group]];
  pen.lineWidth = style.width;
  pen.setLineDash(DASH_PX[style.dash]);
  pen.beginPath();
  let isBroken = true;
  run.y.forEach((value, index) => {
    if (value === null) {
      isBroken = true;
      return;
    }
    const [x, y] = [scale.x(run.x ? run.x[index] : index + 1), scale.y(value)];
    if (isBroken) pen.moveTo(x, y);
    else pen.lineTo(x, y);
    isBroken = false;
  });
  pen.stroke();
  if (!style.mark && run.y.length > 1) return;
  if (run.at === null || run.peak === null) return;
  pen.setLineDash([]);
  drawMark(pen, scale.x(run.at), scale.y(run.peak), run.group, style.size ?? 3.5);
  pen.fill();
  pen.lineWidth = 1;
  pen.strokeStyle = colours["--paper"];
  pen.stroke();
}

// The symbols of ``theme.js``, on a canvas.
function drawMark(pen, x, y, group, size) {
  pen.beginPath();
  if (group === 0) pen.arc(x, y, size, 0, 2 * Math.PI);
  else if (group === 3) pen.rect(x - size * 0.85, y - size * 0.85, size * 1.7, size * 1.7);
  else {
    const corners = group === 1 ? [[0, -1.2], [1.1, 0.8], [-1.1, 0.8]] : [[0, -1.3], [1.3, 0], [0, 1.3], [-1.3, 0]];
    corners.forEach(([dx, dy], index) => (index ? pen.lineTo(x + dx * size, y + dy * size) : pen.moveTo(x + dx * size, y + dy * size)));
    pen.closePath();
  }
}
