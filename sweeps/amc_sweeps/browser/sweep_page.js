// The live page of a sweep: asks the server what has changed, and shows it.

import { addAgents } from "./agents.js";
import { watchCopyButtons } from "./copy.js";
import { byId, element, setText } from "./dom.js";
import { counted } from "./format.js";
import { SweepView } from "./sweep_view.js";

const ASK_MS = 1500;
const HIDDEN_MS = 30000; // while nobody looks at the page

const { address, runs: runsAddress, token } = document.body.dataset;
const sweep = { runs: [], groups: [], parameters: [], bands: [] };
let version = "";
let view = null;
let waiting = 0;

async function ask() {
  clearTimeout(waiting);
  try {
    const reply = await fetch(`${address}/data?since=${encodeURIComponent(version)}`); // the page preloads the first
    if (reply.status === 200) take(await reply.json());
    else if (reply.status === 401) trouble("The server asks for its key again. Load the page again to log in.");
    else if (reply.status !== 204) trouble(`The server answered ${reply.status}: ${await problemIn(reply)}`);
    if (reply.ok) trouble("");
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    trouble("The server does not answer. This page shows what it had; it goes on asking.");
  } finally {
    waiting = setTimeout(ask, document.hidden ? HIDDEN_MS : ASK_MS);
  }
}

async function problemIn(reply) {
  try {
    return (await reply.json()).errors[0].message;
  } catch {
    return reply.statusText;
  }
}

function trouble(text) {
  setText(byId("trouble"), text);
  byId("trouble").hidden = !text;
}

function take({ version: newest, is_whole: isWhole, rows, ranks, gems, ...facts }) {
  if (view && facts.file !== sweep.file) location.reload(); // another name or sweep file: other columns and axes
  version = newest;
  Object.assign(sweep, facts);
  if (isWhole) sweep.runs = [];
  for (const [place, run] of rows) sweep.runs[place] = run;
  const isGem = new Set(gems);
  sweep.runs.forEach((run, place) => Object.assign(run, { place, order: place + 1, rank: ranks[place], gem: isGem.has(place) }));
  sweep.clockAhead = facts.now - Date.now() / 1000;
  if (!view) begin();
  const isLogged = sweep.runs.some((run) => run.y.length || run.peak !== null); // before that the charts are empty
  byId("metric-charts").hidden = !sweep.metric || !isLogged;
  byId("parameter-charts").hidden = !sweep.parameters.length || !sweep.metric || !isLogged;
  const policy = facts.crashedRuns ? `Search by bayes, crashed runs: ${facts.crashedRuns}.` : "";
  setText(byId("sentence"), [facts.problem, facts.sentence, policy].filter(Boolean).join(" "));
  setText(byId("state"), facts.state);
  document.title = `${facts.state} ${Object.values(facts.counts).reduce((sum, count) => sum + count, 0)}${facts.expected ? `/${facts.expected}` : ""} · ${byId("state").parentElement.firstChild.textContent.trim()}`;
  byId("state").className = `badge ${facts.state}`;
  byId("one-more-agent").hidden = ["finished", "cancelled"].includes(facts.state);
  showActions(facts.actions);
  view.changed();
}

function begin() {
  view = new SweepView(sweep, {
    address: (run) => runsAddress + encodeURIComponent(run.id),
    mayPress: () => Boolean(token),
    stop: (run) => press("stop run", run),
  });
  addAgents(byId("agent-tables"), sweep, view);
}

const QUESTIONS = {
  pause: ["Pause this sweep? No run begins until it is resumed. Living runs continue.", "Pause"],
  resume: ["Resume this sweep? Its agents get runs again.", "Resume"],
  stop: ["Stop this sweep? No run begins any more. Living runs continue to their own end.", "Stop"],
  cancel: ["Cancel this sweep? No run begins any more, and living runs are ended.", "Cancel the sweep"],
};

function showActions(names) {
  const box = byId("actions");
  if (box.dataset.names === names.join()) return;
  box.dataset.names = names.join();
  const why = token ? null : "This browser may only read. Log in with the key to press buttons.";
  box.replaceChildren(...names.map((name) => element("button", {
    type: "button", disabled: !token, title: why, id: `action-${name}`, class: name === "cancel" ? "danger" : null,
    onclick: () => press(name),
  }, name)));
}

async function press(action, run = null) {
  const alive = (sweep.counts.running ?? 0) + (sweep.counts.pending ?? 0);
  const [question, yes] = run
    ? [`Stop run ${run.name} (${run.id})? It ends after its present epoch and keeps what it has logged.`, "Stop the run"]
    : QUESTIONS[action];
  const count = action === "cancel" && alive ? ` ${counted(alive, "run")} ${alive === 1 ? "is" : "are"} alive.` : "";
  if (!await confirmed(question + count, yes)) return;
  const reply = await fetch(`${address}/actions`, {
    method: "POST",
    headers: { "content-type": "application/json", "x-amc-token": token },
    body: JSON.stringify({ action, run: run?.id }),
  });
  if (reply.ok) ask();
  else trouble(`Not done: ${await problemIn(reply)}`);
}

function confirmed(question, yes) {
  const dialog = byId("confirm");
  setText(byId("question"), question);
  setText(byId("confirm-yes"), yes);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((done) => {
    dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true });
  });
}

watchCopyButtons();
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) ask();
});
ask();
