// The page of a report: its data is in the page.

import { drawConfusion } from "./confusion.js";
import { watchCopyButtons } from "./copy.js";
import { byId } from "./dom.js";
import { drawLevels, levelLines } from "./levels.js";
import { SweepView } from "./sweep_view.js";

const report = JSON.parse(byId("data").textContent);
report.runs.forEach((run, place) => {
  run.place = place;
});
document.documentElement.classList.add("scripted");
watchCopyButtons();
const view = new SweepView(report, {});
if (byId("levels")) view.painter.add(byId("levels"), () => drawLevels(byId("levels"), levelLines(report), report.confusions?.[0]?.modulation.names));
const picker = byId("confused");
if (picker) {
  report.confusions.forEach((pair, index) => picker.add(new Option(pair.title, index)));
  const drawPair = () => {
    const pair = report.confusions[picker.value || 0];
    drawConfusion(byId("confusion-modulation"), pair.modulation, "");
    drawConfusion(byId("confusion-snr"), pair.snr, " dB");
  };
  view.painter.add(byId("confusion-modulation").parentElement, drawPair);
  picker.addEventListener("change", drawPair);
}
view.changed();
