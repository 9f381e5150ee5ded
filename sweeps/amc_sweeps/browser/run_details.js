// What a run's row has no room for, in full, below the table: every column, its state and the end of its log.

import { element } from "./dom.js";
import { runLabel } from "./format.js";

const ELSEWHERE = new Set(["name", "because", "stop"]); // columns: in the title, below, a button

export function drawDetails(box, table, selection) {
  const run = selection.pickedRun;
  box.hidden = run === null;
  if (box.hidden) return;
  const facts = table.columns.filter((column) => !ELSEWHERE.has(column.key)).map((column) => [column.title, column.cell(run)]);
  facts.push(["state", run.state], ["evidence", `${run.because} (${run.confidence})`]);
  if (run.excluded) facts.push(["excluded by", run.excluded]);
  if (run.log) facts.push(["last line of the log", run.log]);
  const close = () => {
    selection.pick(null);
    table.focus(run.id);
  };
  box.setAttribute("aria-label", `Details of ${runLabel(run)}`);
  box.onkeydown = (event) => {
    if (event.key === "Escape") close();
  };
  box.replaceChildren(
    element("div", { class: "details-head" }, element("b", {}, runLabel(run)),
      element("button", { type: "button", class: "small", onclick: close }, "Close")),
    element("dl", { class: "facts" }, ...facts.map(([title, content]) =>
      element("div", {}, element("dt", {}, title), element("dd", {}, ...[content].flat())))),
  );
}
