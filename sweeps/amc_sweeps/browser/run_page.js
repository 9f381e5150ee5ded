// The charts and the log of a run's page. The rest of the page is the server's: live.js keeps it up to date.

import { ceilingPoints } from "./ceilings.js";
import { GRID, axis, chartOf, tooltip } from "./chart.js";
import { drawConfusion } from "./confusion.js";
import { watchCopyButtons } from "./copy.js";
import { byId, element, setText } from "./dom.js";
import { shortNumber } from "./format.js";
import { drawLevels } from "./levels.js";
import { Painter } from "./painter.js";
import { SYMBOLS, css, watchTheme } from "./theme.js";

const ASK_RUN_MS = 2000;
const MOST_LOG_LINES = 5000;
const COLOURS = ["--well", "--failed", "--open", "--cut", "--ink", "--faint"];
const SPLITS = new Set(["train", "val", "test", "best", "gap", "valid", "eval"]);
const ENDED = new Set(["finished", "failed", "crashed", "killed", "preempted"]);
const CEILING = "Likelihood ceiling of the modulation: no receiver does better in white noise without fading, even if it knows timing, phase, gain, noise and pulse.";

const { address: runAddress, files: filesAddress } = document.body.dataset;
const metrics = { rows: new Map(), box: byId("metric-grid"), groupOf: metricGroup, x: "epoch" };
const system = { rows: new Map(), box: byId("system-grid"), groupOf: (name) => name.split(".").slice(0, 2).join("."), x: "minutes" };
const runPainter = new Painter();
let last = { rows: -1, events: -1, console: -1 };
let every = 0;
let evaluated = "";

async function askForRun() {
  let isEnded = false;
  try {
    if (!document.hidden) {
      const query = `rows=${last.rows}&events=${last.events}&console=${last.console}&every=${every}`;
      const reply = await fetch(`${runAddress}/data?${query}`, { cache: "no-store" });
      if (reply.ok) isEnded = takeRun(await reply.json());
    }
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // the server does not answer: ask again
  } finally {
    setTimeout(askForRun, isEnded ? 5 * ASK_RUN_MS : ASK_RUN_MS);
  }
}

function takeRun(data) {
  if (data.is_whole) {
    metrics.rows.clear();
    system.rows.clear();
    last = { ...last, rows: -1, events: -1 };
  }
  every = data.every;
  for (const [line, row] of data.rows) addRow(metrics, row, typeof row.epoch === "number" ? row.epoch : (row._step ?? line));
  for (const [line, row] of data.events) addRow(system, row, typeof row._runtime === "number" ? row._runtime / 60 : line);
  const lastOf = (items, known) => (items.length ? items[items.length - 1][0] : known);
  last = { rows: lastOf(data.rows, last.rows), events: lastOf(data.events, last.events), console: lastOf(data.console, last.console) };
  if (data.rows.length) showGroups(metrics);
  if (data.events.length) showGroups(system);
  byId("no-metrics").hidden = metrics.rows.size > 0;
  byId("system-section").hidden = system.rows.size === 0;
  addLog(data.console);
  setText(byId("state"), data.state);
  byId("state").className = `badge ${data.state}`;
  if (data.evaluation && data.evaluation !== evaluated) showEvaluation(data.evaluation);
  return ENDED.has(data.state);
}

function addRow(part, row, x) {
  for (const [name, value] of Object.entries(row)) {
    if (typeof value !== "number" || name.startsWith("_") || name === "epoch") continue;
    if (!part.rows.has(name)) part.rows.set(name, []);
    part.rows.get(name).push([x, value]);
  }
}

// "train/loss" and "val/loss" share a chart; "acc/snr/10" is one of "acc/snr".
function metricGroup(name) {
  const parts = name.split("/");
  if (parts.length === 1) return name;
  if (parts.length === 2 && SPLITS.has(parts[0])) return parts[1];
  return parts.slice(0, -1).join("/");
}

function showGroups(part) {
  const groups = new Map();
  for (const [name, points] of part.rows) {
    const group = part.groupOf(name);
    if (!groups.has(group)) groups.set(group, []);
    groups.get(group).push({ name, points });
  }
  part.groups = groups;
  for (const group of groups.keys()) {
    const id = `group-${part.x}-${group}`;
    if (document.getElementById(id)) continue;
    const box = element("div", { class: "chart low", id, role: "img", "aria-label": `${group} by ${part.x}` });
    part.box.append(element("div", {}, element("h3", {}, group), box));
    runPainter.add(box, () => drawLines(box, part.groups.get(group) ?? [], part.x));
  }
  runPainter.redraw();
}

function drawLines(box, lines, x) {
  const hasLegend = lines.length > 1;
  chartOf(box).draw({
    grid: { ...GRID, left: 64, top: hasLegend ? 34 : 12 },
    legend: { show: hasLegend, type: "scroll", top: 0, textStyle: { color: css("--ink") }, pageTextStyle: { color: css("--ink") } },
    tooltip: { ...tooltip(), trigger: "axis", formatter: undefined, valueFormatter: (value) => shortNumber(value) },
    xAxis: axis({ type: "value", name: x, min: "dataMin", max: "dataMax", minInterval: x === "epoch" ? 1 : 0, splitLine: { show: false }, axisLabel: { formatter: (value) => shortNumber(value) } }),
    yAxis: axis({ type: "value", scale: true, axisLabel: { formatter: (value) => shortNumber(value) } }),
    series: lines.map((line, index) => ({
      type: "line", name: line.name, data: line.points, showSymbol: line.points.length < 30, symbolSize: 5, symbol: SYMBOLS[index % 4],
      lineStyle: { color: css(COLOURS[index % 6]), width: 1.8, type: ["solid", "dashed", "dotted"][Math.floor(index / 6) % 3] },
      itemStyle: { color: css(COLOURS[index % 6]) },
    })),
  });
}

function addLog(lines) {
  if (!lines.length) return;
  const box = byId("console");
  const isAtEnd = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  const known = new Map([...box.children].map((line) => [line.dataset.line, line]));
  for (const [number, level, text] of lines) {
    const line = element("span", { "data-line": String(number), class: level === "error" ? "stderr" : null }, `${text}\n`);
    if (known.has(String(number))) known.get(String(number)).replaceWith(line);
    else box.append(line);
  }
  while (box.children.length > MOST_LOG_LINES) box.firstChild.remove();
  if (isAtEnd) box.scrollTop = box.scrollHeight;
}

async function showEvaluation(checksum) {
  evaluated = checksum;
  const reply = await fetch(`${filesAddress}evaluation/best.json`, { cache: "no-store" });
  if (!reply.ok) return;
  const content = await reply.json();
  const shares = (names, counts) => ({
    names: names.map(String),
    shares: counts.map((row) => {
      const sum = row.reduce((a, b) => a + b, 0) || 1;
      return row.map((count) => count / sum);
    }),
  });
  byId("evaluation-section").hidden = false;
  byId("evaluation-note").textContent = content.epoch ? `Epoch ${content.epoch}, validation part.` : "";
  byId("ceiling-note").textContent = ceilingPoints(content.modulations, content.snr_levels_db) ? CEILING : "";
  const modulation = shares(content.modulations, content.modulation_confusion);
  const snr = shares(content.snr_levels_db, content.snr_confusion);
  const line = (name, key) => ({ name, points: (content.by_snr ?? []).map((score) => [score.snr_db, score[key]]) });
  const lines = [line("modulation and SNR", "combined_acc"), line("modulation", "mod_acc")];
  runPainter.add(byId("levels"), () => drawLevels(byId("levels"), lines, content.modulations));
  runPainter.add(byId("confusion-modulation"), () => drawConfusion(byId("confusion-modulation"), modulation, ""));
  runPainter.add(byId("confusion-snr"), () => drawConfusion(byId("confusion-snr"), snr, " dB"));
  runPainter.redraw();
}

watchCopyButtons();
watchTheme(null, () => runPainter.redraw());
byId("theme").addEventListener("click", () => runPainter.redraw());
askForRun();
