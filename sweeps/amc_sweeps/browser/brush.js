// A rectangle that a reader draws over a chart: the runs in it are selected everywhere.

import { chartOf } from "./chart.js";
import { element } from "./dom.js";

const LEAST_PX = 4; // a shorter way of the pointer is a click

export class Brush {
  #corners = null; // opposite ones, in values of the axes
  #frame = 0;

  // The points are those that the chart shows, each {x, y, run}.
  constructor(box, selection, source, points) {
    [this.box, this.selection, this.source, this.points] = [box, selection, source, points];
    this.echarts = chartOf(box).echarts;
    this.mark = element("div", { class: "brush", hidden: true });
    box.append(this.mark);
    box.classList.add("brushed");
    box.addEventListener("pointerdown", (event) => this.#begin(event));
    selection.addEventListener("clear", () => this.#put(null));
  }

  // After the chart was drawn: its axes may have changed.
  draw() {
    this.mark.hidden = !this.#corners;
    if (!this.#corners) return;
    const [[x0, y0], [x1, y1]] = this.#corners.map((corner) => this.#within(this.echarts.convertToPixel("grid", corner)));
    const [left, top] = [Math.min(x0, x1), Math.min(y0, y1)];
    Object.assign(this.mark.style, {
      left: `${left}px`, top: `${top}px`, width: `${Math.abs(x1 - x0)}px`, height: `${Math.abs(y1 - y0)}px`,
    });
  }

  #pixel(event) {
    const frame = this.box.getBoundingClientRect();
    return [event.clientX - frame.left, event.clientY - frame.top];
  }

  // The nearest pixel within the axes.
  #within([x, y]) {
    const axes = this.echarts.getModel().getComponent("grid").coordinateSystem.getRect();
    return [Math.max(axes.x, Math.min(x, axes.x + axes.width)), Math.max(axes.y, Math.min(y, axes.y + axes.height))];
  }

  #begin(event) {
    const start = this.#pixel(event);
    const isOutside = String(start) !== String(this.#within(start));
    if (event.button !== 0 || event.pointerType === "touch" || isOutside) return; // a finger scrolls
    let isDragged = false;
    const move = (moved) => {
      const end = this.#within(this.#pixel(moved));
      isDragged ||= Math.hypot(end[0] - start[0], end[1] - start[1]) >= LEAST_PX;
      if (isDragged) this.#put(this.#around(start, end));
    };
    const end = () => {
      for (const name of ["pointerup", "pointercancel"]) removeEventListener(name, end);
      removeEventListener("pointermove", move);
      if (!isDragged && this.#corners && !isBetween(this.#corners, this.echarts.convertFromPixel("grid", start))) this.#put(null);
    };
    addEventListener("pointermove", move);
    for (const name of ["pointerup", "pointercancel"]) addEventListener(name, end);
  }

  // The corners of a rectangle that is a pixel larger, so that a point on its edge lies within.
  #around([x0, y0], [x1, y1]) {
    const pixels = [[Math.min(x0, x1) - 1, Math.min(y0, y1) - 1], [Math.max(x0, x1) + 1, Math.max(y0, y1) + 1]];
    return pixels.map((pixel) => this.echarts.convertFromPixel("grid", pixel));
  }

  #put(corners) {
    if (!corners && !this.#corners) return;
    this.#corners = corners;
    this.draw();
    cancelAnimationFrame(this.#frame);
    this.#frame = requestAnimationFrame(() => {
      const places = () => new Set(this.points().filter(({ x, y }) => isBetween(corners, [x, y])).map(({ run }) => run));
      this.selection.brush(this.source, corners && places);
    });
  }
}

function isBetween([[x0, y0], [x1, y1]], [x, y]) {
  return (x - x0) * (x - x1) <= 0 && (y - y0) * (y - y1) <= 0;
}
