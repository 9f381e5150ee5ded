// Which agents are alive, on which hosts, and what they work on.

import { element } from "./dom.js";
import { durationText } from "./format.js";

const SILENT_S = 60; // an agent reports every 5 s
const MOST_SILENT = 20; // agents that are listed although they are silent

export function addAgents(box, sweep, view) {
  const draw = () => drawAgents(box, sweep, view.selection);
  view.painter.add(box, draw);
  setInterval(() => {
    if (!document.hidden) draw(); // ages grow although nothing changes
  }, 5000);
}

function drawAgents(box, sweep, selection) {
  const now = Date.now() / 1000 + sweep.clockAhead;
  const agents = sweep.agents.map((agent) => {
    const silentS = agent.heard === null ? null : Math.max(0, now - agent.heard);
    return { ...agent, silentS, isAlive: silentS !== null && silentS < SILENT_S };
  }).sort((a, b) => b.isAlive - a.isAlive || a.host.localeCompare(b.host) || (a.silentS ?? 1e12) - (b.silentS ?? 1e12));
  if (!agents.length) {
    box.replaceChildren(element("p", { class: "faint" }, "No agent has registered yet."));
    return;
  }
  const hosts = new Map();
  for (const agent of agents) hosts.set(agent.host, (hosts.get(agent.host) ?? 0) + agent.isAlive);
  const alive = agents.filter((agent) => agent.isAlive).length;
  const byHost = [...hosts].map(([host, count]) => `${host}: ${count} alive`).join(", ");
  const listed = agents.filter((agent, place) => agent.isAlive || place < alive + MOST_SILENT);
  const more = agents.length - listed.length;
  box.replaceChildren(
    element("p", {}, `${alive} of ${agents.length} ${agents.length === 1 ? "agent is" : "agents are"} alive (${byHost}).`),
    element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Agents" }, element("table", {},
      element("thead", {}, agentRow("th", "host", "agent", "", "last heard", "runs", "works on")),
      element("tbody", {}, ...listed.map((agent) => agentRow("td", agent.host, element("code", {}, agent.name),
        element("span", { class: agent.isAlive ? "well cause" : "faint" }, agent.isAlive ? "alive" : "silent"),
        agent.silentS === null ? "never" : `${durationText(agent.silentS)} ago`, String(agent.runs),
        agent.run ? element("button", { type: "button", class: "small", onclick: () => selection.pick(agent.run) }, agent.run) : "-"))))),
    ...(more > 0 ? [element("p", { class: "faint" }, `and ${more} more that are silent`)] : []),
  );
}

function agentRow(tag, ...cells) {
  return element("tr", {}, ...cells.map((cell) => element(tag, tag === "th" ? { scope: "col" } : {}, cell)));
}
