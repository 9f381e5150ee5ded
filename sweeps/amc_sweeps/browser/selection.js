// Which runs are shown, and which one is picked out. Table and charts follow it, and each can change it.

import { progressText, settingText } from "./format.js";

const COMPARISON = /^(.+?)(<=|>=|!=|=|<|>)(.+)$/;

export class Selection extends EventTarget {
  #brushes = new Map(); // by source: a function that returns the places of the runs in it

  constructor(sweep) {
    super();
    this.sweep = sweep;
    this.hiddenGroups = new Set();
    this.words = [];
    this.picked = null; // the id of a run
    this.visible = [];
  }

  // Compute again which runs are shown; after new data, too.
  update() {
    const runs = this.sweep.runs;
    const tests = this.words.map((word) => wordTest(this.sweep, word));
    const brushes = [...this.#brushes.values()].map((placesNow) => placesNow());
    this.visible = runs.map((run, place) =>
      !this.hiddenGroups.has(run.group) && brushes.every((places) => places.has(place)) && tests.every((test) => test(run)));
    this.count = this.visible.reduce((sum, isVisible) => sum + isVisible, 0);
    this.dispatchEvent(new Event("change"));
  }

  search(text) {
    this.words = text.toLowerCase().split(/\s+/).filter(Boolean);
    this.update();
  }

  showGroup(group, isShown) {
    if (isShown) this.hiddenGroups.delete(group);
    else this.hiddenGroups.add(group);
    this.update();
  }

  // Show only the runs at the places that a function returns, now and after new data; null ends the brush of that source.
  brush(source, places) {
    if (places === null && !this.#brushes.has(source)) return;
    if (places === null) this.#brushes.delete(source);
    else this.#brushes.set(source, places);
    this.update();
  }

  get isBrushed() {
    return this.#brushes.size > 0;
  }

  clear() {
    this.#brushes.clear();
    this.hiddenGroups.clear();
    this.words = [];
    this.dispatchEvent(new Event("clear"));
    this.update();
  }

  pick(id) {
    if (id === this.picked) return;
    this.picked = id;
    this.dispatchEvent(new Event("pick"));
  }

  get pickedRun() {
    return this.sweep.runs.find((run) => run.id === this.picked) ?? null;
  }
}

// A word is looked for everywhere; "max_lr<0.01" and "cause=lost" compare a column.
function wordTest(sweep, word) {
  const [, name, sign, limit] = COMPARISON.exec(word) ?? [];
  const parameter = name === undefined ? -1 : sweep.parameters.findIndex((each) => each.name.toLowerCase() === name);
  if (parameter >= 0) return (run) => compares(run.values[parameter], sign, limit);
  if (["peak", "last", "epochs", "rank", "cause", "host", "state", "id", "name"].includes(name)) {
    return (run) => compares(run[name], sign, limit);
  }
  return (run) => searchText(run).includes(word);
}

function compares(value, sign, limit) {
  if (value === null || value === undefined) return sign === "!=";
  const isPercentage = limit.endsWith("%");
  const number = isPercentage ? Number(limit.slice(0, -1)) / 100 : Number(limit);
  if (sign === "=" || sign === "!=") {
    const isEqual = String(value).toLowerCase() === limit || value === number;
    return isEqual === (sign === "=");
  }
  if (typeof value !== "number" || Number.isNaN(number)) return false;
  return { "<": value < number, ">": value > number, "<=": value <= number, ">=": value >= number }[sign];
}

function searchText(run) {
  run.searchText ??= [run.name, run.id, run.cause, run.host ?? "", run.state, progressText(run), ...run.values.map(settingText)]
    .join(" ").toLowerCase();
  return run.searchText;
}
