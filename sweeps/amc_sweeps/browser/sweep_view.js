// The parts that the live page of a sweep and a report share: charts and table over one selection.

import { drawBestSoFar } from "./best_so_far.js";
import { Curves } from "./curves.js";
import { byId, element } from "./dom.js";
import { drawFailures } from "./failures.js";
import { Painter } from "./painter.js";
import { Parallel } from "./parallel.js";
import { drawDetails } from "./run_details.js";
import { RunTable } from "./run_table.js";
import { Selection } from "./selection.js";
import { addSlices } from "./slices.js";
import { GROUP_CLASSES, watchTheme } from "./theme.js";

export class SweepView {
  constructor(sweep, actions) {
    this.sweep = sweep;
    this.selection = new Selection(sweep);
    this.painter = new Painter();
    const { selection, painter } = this;
    selection.update();
    if (byId("run-table")) this.table = new RunTable(byId("run-table"), sweep, selection, actions);
    if (byId("chart-curves")) {
      this.curves = new Curves(byId("chart-curves"), byId("curve-note"), sweep, selection);
      painter.add(byId("chart-curves"), () => this.curves.draw());
    }
    if (byId("chart-best")) painter.add(byId("chart-best"), () => drawBestSoFar(byId("chart-best"), sweep, selection));
    if (byId("parallel")) {
      const parallel = new Parallel(byId("parallel"), sweep, selection);
      painter.add(byId("parallel"), () => parallel.draw());
    }
    if (byId("slices")) addSlices(byId("slices"), painter, sweep, selection);
    if (byId("failure-tables")) painter.add(byId("failure-tables"), () => drawFailures(byId("failure-tables"), sweep, selection));
    selection.addEventListener("change", () => this.#show());
    selection.addEventListener("clear", () => this.#legend(true));
    selection.addEventListener("pick", () => {
      this.table?.picked();
      this.#details();
      this.curves?.picked();
      painter.redraw();
    });
    watchTheme(byId("theme"), () => this.#show());
  }

  // After new data.
  changed() {
    this.selection.update();
    this.#legend();
  }

  #show() {
    this.table?.draw();
    this.#details();
    this.painter.redraw();
  }

  #details() {
    if (byId("run-details")) drawDetails(byId("run-details"), this.table, this.selection);
  }

  #legend(isNew = false) {
    const legend = byId("legend");
    if (!legend) return;
    const counts = this.sweep.groups.map((_, group) => this.sweep.runs.filter((run) => run.group === group).length);
    const { selection } = this;
    if (legend.dataset.counts === counts.join() && !isNew) return;
    legend.dataset.counts = counts.join();
    legend.replaceChildren(...this.sweep.groups.flatMap((name, group) => (counts[group] === 0 ? [] : [
      element("li", { class: GROUP_CLASSES[group] }, element("label", {},
        element("input", {
          type: "checkbox", checked: !selection.hiddenGroups.has(group), value: name,
          onchange: (event) => selection.showGroup(group, event.target.checked),
        }),
        element("span", { class: "line" }), name, element("span", { class: "faint" }, ` ${counts[group]}`))),
    ])));
  }
}
