// Where runs fail: by cause and last line of the log, by host, and by the values of each parameter.

import { parameterAxis } from "./axes.js";
import { element } from "./dom.js";
import { counted, settingText, shortNumber } from "./format.js";

const PARTS = 4; // of a parameter's range
const FAILED = 2; // the group
const RUNNING = 3;
const LEAST_ENDED = 3; // runs of a value, from which on its share of failures is shown as a bar

export function drawFailures(box, sweep, selection) {
  const ended = sweep.runs.filter((run) => run.group !== RUNNING);
  const failed = ended.filter((run) => run.group === FAILED);
  if (!failed.length) {
    box.replaceChildren(element("p", { class: "faint" }, ended.length ? "No run has failed." : "No run has ended yet."));
    return;
  }
  const parts = [
    element("p", {}, `${failed.length.toLocaleString("en")} of ${counted(ended.length, "ended run")} failed.`),
    causeTable(failed, selection),
    element("div", { class: "failure-grid" },
      shareTable("host", groups(ended, (run) => run.host ?? "unknown"), selection),
      ...sweep.parameters.map((parameter, index) => parameterTable(sweep, parameter, index, ended, selection))),
  ];
  box.replaceChildren(...parts.filter(Boolean));
}

function groups(runs, keyOf) {
  const found = new Map();
  for (const run of runs) {
    const key = keyOf(run);
    if (key === null) continue;
    if (!found.has(key)) found.set(key, []);
    found.get(key).push(run);
  }
  return found;
}

// Numbers, addresses and ids differ between runs that failed in the same way.
function alike(line) {
  return line === null ? "" : line.replace(/0x[0-9a-f]+/gi, "0x…").replace(/\b(?=\w*\d)(?=\w*[a-z])\w{8,}\b/g, "…").replace(/\d+(\.\d+)?/g, "0");
}

function causeTable(failed, selection) {
  const rows = [...groups(failed, (run) => `${run.cause}\n${alike(run.log)}`).values()].sort((a, b) => b.length - a.length);
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Failures by cause" },
    element("table", {},
      element("thead", {}, row("th", "cause", "runs", "last line of the log", "evidence", "")),
      element("tbody", {}, ...rows.map((runs) => row("td", runs[0].cause.replaceAll("_", " "), String(runs.length),
        element("code", {}, runs[0].log ?? "no log"), runs[0].because, show(runs, selection))))));
}

function parameterTable(sweep, parameter, index, ended, selection) {
  const { kind, levels } = parameterAxis(parameter, sweep.runs.map((run) => run.values[index]));
  if (kind === "category") {
    if (levels.length < 2) return null;
    return shareTable(parameter.name, new Map(levels.map((level) =>
      [settingText(level), ended.filter((run) => JSON.stringify(run.values[index]) === JSON.stringify(level))])), selection);
  }
  const sorted = ended.filter((run) => run.values[index] !== null).sort((a, b) => a.values[index] - b.values[index]);
  const found = new Map();
  for (let part = 0; part < PARTS; part += 1) {
    const runs = sorted.slice(Math.round((part * sorted.length) / PARTS), Math.round(((part + 1) * sorted.length) / PARTS));
    if (!runs.length) continue;
    found.set(`${shortNumber(runs[0].values[index], 3)} to ${shortNumber(runs[runs.length - 1].values[index], 3)}`, runs);
  }
  return shareTable(parameter.name, found, selection);
}

function shareTable(name, found, selection) {
  const rows = [...found].filter(([, runs]) => runs.length);
  if (rows.length < 2) return null;
  return element("table", { class: "shares" },
    element("thead", {}, row("th", name, "failed", "", "")),
    element("tbody", {}, ...rows.map(([label, runs]) => {
      const failed = runs.filter((run) => run.group === FAILED);
      const bar = runs.length < LEAST_ENDED ? "" : element("meter", { max: runs.length, value: failed.length, "aria-hidden": "true" });
      return row("td", label, `${failed.length} of ${runs.length}`, bar, failed.length ? show(failed, selection) : "");
    })));
}

function show(runs, selection) {
  const places = new Set(runs.map((run) => run.place));
  return element("button", {
    type: "button", class: "small", onclick: () => selection.brush("failures", () => places),
  }, "show");
}

function row(tag, ...cells) {
  return element("tr", {}, ...cells.map((cell) => element(tag, tag === "th" ? { scope: "col" } : {}, cell)));
}
