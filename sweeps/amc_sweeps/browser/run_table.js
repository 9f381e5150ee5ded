// The table of runs: sorted, filtered with the charts, and with the columns that the reader wants.
// Only the rows on the screen are elements, so that a thousand runs scroll like ten.

import { byId, element, remembered, setText } from "./dom.js";
import { counted, durationText, epochText, metricText, progressText, settingText, shortNumber } from "./format.js";
import { columnParts, watchPaper } from "./paper.js";
import { GROUP_CLASSES } from "./theme.js";

const ROW_PX = 32;
const MOST_ROWS = 60; // of which all are elements
const SPARE = 12; // rows above and below the screen
const COLUMNS_KEPT = `amc-columns ${location.pathname}`; // where the browser keeps the hidden columns of a page
const REPEATED = 2; // columns that each part of a printed table has: rank and name

export class RunTable {
  constructor(box, sweep, selection, actions = {}) {
    [this.box, this.sweep, this.selection, this.actions] = [box, sweep, selection, actions];
    this.columns = columnsOf(sweep, actions);
    this.#chooseColumns(remembered(COLUMNS_KEPT));
    this.sorted = { key: "rank", isRising: true };
    this.head = element("tr");
    this.body = element("tbody");
    this.table = element("table", {}, element("thead", {}, this.head), this.body);
    this.scroll = element("div", { class: "scroll runs", tabindex: 0, role: "region", "aria-label": "Runs" },
      this.table);
    this.count = element("span", { class: "faint", id: "shown-count", "aria-live": "polite" });
    box.append(this.#tools(), this.scroll);
    this.scroll.addEventListener("scroll", () => this.#fill(), { passive: true });
    this.scroll.addEventListener("keydown", (event) => this.#walk(event));
    this.body.addEventListener("keydown", (event) => this.#key(event));
    addEventListener("resize", () => this.#fill());
    watchPaper(() => this.#print(), () => this.#endPrint());
    this.#heads();
  }

  #tools() {
    let waiting = 0;
    const search = element("input", {
      type: "search", id: "search", placeholder: "Search, or max_lr<0.01", "aria-label": "Search runs",
      oninput: () => {
        clearTimeout(waiting);
        waiting = setTimeout(() => this.selection.search(search.value), 80);
      },
    });
    this.selection.addEventListener("clear", () => {
      search.value = "";
    });
    const boxes = this.columns.filter((column) => column.key !== "name").map((column) => element("label", {},
      element("input", {
        type: "checkbox", checked: !column.isHidden,
        onchange: (event) => {
          column.isHidden = !event.target.checked;
          remembered(COLUMNS_KEPT, this.columns.filter((each) => each.isHidden).map((each) => each.key).join("\n"));
          this.#heads();
          this.draw();
        },
      }), column.title || "stop"));
    const columns = element("details", { class: "columns" }, element("summary", {}, "Columns"), element("div", {}, ...boxes));
    this.clear = element("button", { type: "button", hidden: true, onclick: () => this.selection.clear() }, "Show all runs");
    return element("div", { class: "tools scripted-only" }, search, columns, this.clear, this.count);
  }

  #chooseColumns(kept) {
    if (kept === null) return;
    const hidden = new Set(kept.split("\n"));
    for (const column of this.columns) column.isHidden = hidden.has(column.key);
  }

  #heads() {
    this.shown = this.columns.filter((column) => !column.isHidden);
    this.head.replaceChildren(...this.shown.map((column) => {
      const isSorted = this.sorted.key === column.key;
      const order = !isSorted ? "none" : this.sorted.isRising ? "ascending" : "descending";
      const sort = element("button", {
        type: "button", title: column.title, onclick: () => this.sortBy(column.key, isSorted && !this.sorted.isRising ? true : isSorted ? false : column.isRising),
      }, column.title, element("span", { "aria-hidden": "true" }, !isSorted ? "" : this.sorted.isRising ? " ▲" : " ▼"));
      return element("th", { scope: "col", class: column.class, "aria-sort": order }, column.value ? sort : element("span", { class: "hidden-text" }, "stop"));
    }));
  }

  sortBy(key, isRising) {
    const next = isRising ?? true;
    this.sorted = { key, isRising: next };
    this.#heads();
    this.draw();
  }

  draw() {
    const column = this.columns.find((each) => each.key === this.sorted.key);
    const sign = this.sorted.isRising ? 1 : -1;
    this.rows = this.sweep.runs.filter((run) => this.selection.visible[run.place]).sort((a, b) =>
      compare(column.value(a), column.value(b), sign) || (a.rank ?? 1e9) - (b.rank ?? 1e9) || a.place - b.place);
    const [all, shown] = [this.sweep.runs.length, this.rows.length];
    setText(this.count, shown === all ? counted(all, "run") : `${shown.toLocaleString("en")} of ${counted(all, "run")}`);
    this.clear.hidden = shown === all && !this.selection.isBrushed;
    // The charts below stay where they are, also under a hand that drags.
    if (shown < all) this.scroll.style.minHeight ||= `${this.scroll.offsetHeight}px`;
    else this.scroll.style.minHeight = "";
    this.#fill();
  }

  #fill(isWhole = false) {
    if (!this.rows) return;
    const count = this.rows.length;
    let [first, end] = [0, count];
    if (count > MOST_ROWS && !isWhole) {
      first = Math.max(0, Math.floor(this.scroll.scrollTop / ROW_PX) - SPARE);
      end = Math.min(count, first + Math.ceil(this.scroll.clientHeight / ROW_PX) + 2 * SPARE);
    }
    const rows = this.rows.slice(first, end).map((run) => this.#row(run));
    const focus = this.#focus();
    this.body.replaceChildren(...spacer(first, this.shown.length), ...rows, ...spacer(count - end, this.shown.length));
    focus?.();
    if (!count) {
      const text = this.sweep.runs.length ? "No run matches." : "No runs yet.";
      this.body.replaceChildren(element("tr", {}, element("td", { colSpan: this.shown.length, class: "faint" }, text)));
    }
  }

  #rowOf(id) {
    return this.body.querySelector(`tr[data-run="${CSS.escape(id)}"]`);
  }

  // The rows are made anew: return what gives the focus back to a link or button in one.
  #focus() {
    const row = document.activeElement.closest?.("tr[data-run]");
    if (!row || row.parentElement !== this.body) return null;
    const [id, place] = [row.dataset.run, [...row.querySelectorAll("a, button")].indexOf(document.activeElement)];
    return () => this.body.querySelector(`[data-run="${CSS.escape(id)}"]`)?.querySelectorAll("a, button")[place]?.focus({ preventScroll: true });
  }

  // Arrow keys pick the run below or above, Home and End the first and the last; Enter opens it, Escape lets it go.
  #walk(event) {
    if (event.target !== this.scroll || !this.rows.length || event.ctrlKey || event.altKey || event.metaKey) return;
    const now = this.rows.findIndex((run) => run.id === this.selection.picked);
    const last = this.rows.length - 1;
    const next = { ArrowDown: Math.min(now + 1, last), ArrowUp: Math.max(now - 1, 0), Home: 0, End: last }[event.key];
    if (next !== undefined) this.selection.pick(this.rows[next].id);
    else if (event.key === "Escape") this.selection.pick(null);
    else if (event.key === "Enter" && now >= 0 && this.actions.address) location.assign(this.actions.address(this.rows[now]));
    else return;
    event.preventDefault();
  }

  #row(run) {
    const isPicked = run.id === this.selection.picked;
    const names = [run.gem ? "gem" : "", isPicked ? "picked" : ""].filter(Boolean).join(" ");
    const row = element("tr", {
      class: names || null, "data-run": run.id, "aria-current": isPicked ? "true" : null,
      onclick: (event) => {
        if (event.target.closest("a, button:not(.open)")) return;
        this.selection.pick(isPicked ? null : run.id);
        this.#uncover(run.id);
      },
    }, ...this.shown.map((column) => element("td", { class: column.class }, ...[column.cell(run)].flat())));
    row.querySelector("button.open")?.setAttribute("aria-expanded", String(isPicked));
    return row;
  }

  // Arrow keys go from name to name, and open details follow; Escape closes them.
  #key(event) {
    if (!event.target.matches("button.open")) return;
    if (event.key === "Escape") this.selection.pick(null);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const id = event.target.closest("tr").dataset.run;
    const next = step && this.rows[this.rows.findIndex((run) => run.id === id) + step];
    if (!next) return;
    event.preventDefault();
    if (this.selection.picked !== null) this.selection.pick(next.id);
    this.focus(next.id);
  }

  // Give the focus to a run's name, and show its row.
  focus(id) {
    this.#reveal(id);
    this.#fill();
    this.#rowOf(id)?.querySelector("button.open")?.focus();
    this.#uncover(id);
  }

  // The details lie over the end of the table while that is below the screen: the page moves up, so that the row is seen.
  #uncover(id) {
    const [row, details] = [this.#rowOf(id), byId("run-details")];
    if (!row || !details || details.hidden) return;
    const covered = row.getBoundingClientRect().bottom - details.getBoundingClientRect().top;
    if (covered > 0) scrollBy(0, covered);
  }

  // After another run was picked, wherever.
  picked() {
    this.#reveal(this.selection.picked);
    this.#fill();
  }

  #reveal(id) {
    const place = this.rows?.findIndex((run) => run.id === id) ?? -1;
    if (place < 0) return;
    const top = place * ROW_PX;
    const isSeen = top >= this.scroll.scrollTop && top < this.scroll.scrollTop + this.scroll.clientHeight - 2 * ROW_PX;
    if (!isSeen) this.scroll.scrollTop = Math.max(0, top - this.scroll.clientHeight / 2);
  }

  // On paper every row is there, and what does not fit beside the name follows below, with rank and name again.
  #print() {
    this.scroll.replaceChildren(this.table);
    this.#fill(true);
    const widths = [...this.head.children].map((cell) => cell.getBoundingClientRect().width);
    const parts = columnParts(widths, this.scroll.clientWidth, REPEATED);
    if (parts.length > 1) this.scroll.replaceChildren(...parts.map((columns) => copyOf(this.table, new Set(columns))));
  }

  #endPrint() {
    this.scroll.replaceChildren(this.table);
    this.#fill();
  }
}

// A copy of a table with some of its columns.
function copyOf(table, columns) {
  const copy = table.cloneNode(true);
  for (const row of copy.rows) [...row.cells].forEach((cell, column) => columns.has(column) || cell.remove());
  return copy;
}

function spacer(rows, columns) {
  if (!rows) return [];
  const cell = element("td", { colSpan: columns });
  cell.style.height = `${rows * ROW_PX}px`;
  return [element("tr", { class: "spacer", "aria-hidden": "true" }, cell)];
}

// Empty values come last in either direction.
function compare(a, b, sign) {
  const [isEmptyA, isEmptyB] = [a, b].map((value) => value === null || value === undefined || Number.isNaN(value));
  if (isEmptyA || isEmptyB) return isEmptyA - isEmptyB;
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b), "en", { numeric: true });
}

function columnsOf(sweep, actions) {
  const metric = (key, title) => ({
    key, title, class: "number", isRising: !sweep.maximize, value: (run) => (typeof run[key] === "string" ? NaN : run[key]),
    cell: (run) => metricText(sweep, run[key]),
  });
  const text = (key, title, more = {}) => ({
    key, title, class: "setting", isRising: true, value: (run) => run[key], cell: (run) => run[key] ?? "-", ...more,
  });
  const parameters = sweep.parameters.map((parameter, index) => ({
    key: `parameter ${index}`, title: parameter.name, class: sweep.runs.every((run) => typeof run.values[index] !== "string") ? "number" : "setting",
    isRising: true, value: (run) => run.values[index],
    cell: (run) => element("span", { title: settingText(run.values[index]) }, settingText(run.values[index])),
  }));
  const figures = [
    text("at", "at epoch", { class: "number", cell: (run) => epochText(run.at) }),
    metric("last", "last"),
    {
      key: "epochs", title: "progress", class: "number progress", isRising: false, value: (run) => run.epochs,
      cell: (run) => (run.epochs === null || !run.planned ? progressText(run)
        : [element("progress", { max: run.planned, value: Math.min(run.epochs, run.planned), "aria-hidden": "true" }), progressText(run)]),
    },
  ];
  const columns = [
    {
      key: "rank", title: "#", class: "number rank", isRising: true, value: (run) => run.rank,
      cell: (run) => [String(run.rank ?? ""), ...(run.gem ? [mark("◆", "hidden gem")] : []), ...(run.excluded ? [mark("!", run.excluded)] : [])],
    },
    text("name", "run", { class: "name", cell: (run) => nameCell(run, actions) }),
    text("cause", "cause", {
      class: "cause-cell",
      cell: (run) => element("span", { class: `cause ${GROUP_CLASSES[run.group]}`, title: `${run.because} (${run.confidence})` },
        run.cause.replaceAll("_", " "), run.confidence === "certain" ? "" : element("span", { class: "faint" }, ` ${run.confidence}`)),
    }),
    ...(sweep.crashedRuns || sweep.runs.some((run) => run.treatment && run.treatment !== "peak") ? [text("treatment", "told the search")] : []),
    metric("peak", sweep.maximize ? "peak" : "lowest"),
    // A report compares configurations; a live page follows progress.
    ...(sweep.hasStatistics ? [...parameters, ...figures, ...statisticsOf(sweep, metric)] : [...figures, ...parameters]),
    text("host", "host"),
    text("seconds", "duration", { class: "number", isRising: false, cell: (run) => durationText(run.seconds) }),
    ...(sweep.hasStatistics ? [text("because", "evidence", { class: "evidence", cell: (run) => element("span", { title: run.because }, run.because) })] : []),
    text("id", "run id", { class: "id", cell: (run) => idCell(run) }),
  ];
  if (actions.stop) columns.push({ key: "stop", title: "", class: "stop", cell: (run) => stopCell(run, actions) });
  return columns;
}

// What an analysis adds.
function statisticsOf(sweep, metric) {
  return [
    metric("smoothed", "smoothed"),
    {
      key: "noise", title: "noise sd", class: "number", isRising: true, value: (run) => run.noise,
      cell: (run) => (run.noise === null ? "-" : sweep.percentage ? (100 * run.noise).toFixed(2) : shortNumber(run.noise, 3)),
    },
    ...(sweep.runs.some((run) => run.test !== null) ? [metric("test", "test")] : []),
  ];
}

function mark(text, title) {
  return element("span", { class: "mark", title }, ` ${text}`, element("span", { class: "hidden-text" }, ` ${title}`));
}

// The name leads to the run's page; in a report, which has none, it opens the details.
function nameCell(run, actions) {
  const name = actions.address ? element("a", { href: actions.address(run) }, run.name)
    : element("button", { type: "button", class: "open", "aria-controls": "run-details" }, run.name);
  return element("span", { class: "name", title: run.name }, name);
}

function idCell(run) {
  const copy = { type: "button", class: "copy", "data-copy": run.id, title: `Copy ${run.id}`, "aria-label": `Copy the id ${run.id}` };
  return [element("code", {}, run.id), " ", element("button", copy, "copy")];
}

function stopCell(run, actions) {
  if (!["running", "pending"].includes(run.state)) return "";
  if (run.stopping) return element("span", { class: "faint" }, "stopping");
  return element("button", { type: "button", class: "danger small", disabled: !actions.mayPress(), onclick: () => actions.stop(run) }, "stop");
}
