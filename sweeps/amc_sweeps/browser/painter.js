// Draws what is on the screen, one part a frame, so that no task blocks the page; the rest when it is scrolled to.

import { watchPaper } from "./paper.js";

export class Painter {
  #parts = new Map(); // by element: its function, and whether it is out of date or in view
  #isWaiting = false;

  constructor() {
    this.drawn = 0;
    this.observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const part = this.#parts.get(entry.target);
        if (part) part.isInView = entry.isIntersecting;
      }
      this.#wait();
    }, { rootMargin: "300px" });
    watchPaper(() => this.drawAll(), () => this.redraw());
  }

  add(box, draw) {
    if (!box) return;
    // The observer reports a box again only when it comes or goes.
    this.#parts.set(box, { draw, isInView: this.#parts.get(box)?.isInView ?? false, isOld: true });
    this.observer.observe(box);
  }

  redraw() {
    for (const part of this.#parts.values()) part.isOld = true;
    this.#wait();
  }

  drawAll() {
    for (const part of this.#parts.values()) {
      part.isOld = true;
      this.#draw(part);
    }
  }

  #wait() {
    if (this.#isWaiting) return;
    this.#isWaiting = true;
    requestAnimationFrame(() => setTimeout(() => {
      this.#isWaiting = false;
      const part = [...this.#parts.values()].find((each) => each.isOld && each.isInView);
      if (!part) {
        const page = document.documentElement.dataset; // tests read it
        page.painted = String(this.drawn);
        if (this.drawn) page.paintedAt ??= String(Math.round(performance.now())); // ms after the page was asked for
        return;
      }
      this.#draw(part);
      this.#wait();
    }));
  }

  #draw(part) {
    if (!part.isOld) return;
    part.isOld = false;
    part.draw();
    this.drawn += 1;
  }
}
