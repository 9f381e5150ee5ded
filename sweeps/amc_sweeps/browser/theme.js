// Colours of the style sheet for canvases, and the switch between light and dark.

import { remembered } from "./dom.js";

// Groups of causes differ in colour, dash and symbol, so that they can be told apart without colours.
export const GROUP_COLOURS = ["--well", "--cut", "--failed", "--open"];
export const GROUP_CLASSES = ["well", "cut", "failed", "open"];
export const DASHES = ["solid", "dotted", "dashed", "solid"];
export const SYMBOLS = ["circle", "triangle", "diamond", "rect"];

export function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

const STORED = "amc-theme";

// Call back when the colours change: by the button, whose choice the browser keeps, or by the system.
export function watchTheme(button, changed) {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const stored = remembered(STORED);
  if (stored) root.dataset.theme = stored;
  button?.addEventListener("click", () => {
    const isDark = root.dataset.theme ? root.dataset.theme === "dark" : system.matches;
    root.dataset.theme = isDark ? "light" : "dark";
    remembered(STORED, root.dataset.theme);
    changed();
  });
  system.addEventListener("change", changed);
}
