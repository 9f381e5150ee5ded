// Printing: light colours, the width of a page, and every part drawn before the browser copies the screen.

const root = document.documentElement;

export function isOnPaper() {
  return root.classList.contains("on-paper");
}

// Call back before the page is printed, when it has the colours and the width of paper and nothing is folded, and after it.
export function watchPaper(before, after) {
  let folded = [];
  addEventListener("beforeprint", () => {
    if (!isOnPaper()) {
      root.dataset.screenTheme = root.dataset.theme ?? "";
      root.dataset.theme = "light";
      root.classList.add("on-paper");
      folded = [...document.querySelectorAll("details:not([open], .columns)")];
      for (const details of folded) details.open = true;
    }
    before();
  });
  addEventListener("afterprint", () => {
    if (isOnPaper()) {
      root.classList.remove("on-paper");
      if (root.dataset.screenTheme) root.dataset.theme = root.dataset.screenTheme;
      else delete root.dataset.theme;
      for (const details of folded) details.open = false;
    }
    after();
  });
}

// The columns of a table in as few parts as fit into some width, each with the first ones again.
export function columnParts(widths, room, repeated) {
  const kept = [...Array(Math.min(repeated, widths.length)).keys()];
  const least = kept.reduce((sum, column) => sum + widths[column], 0);
  const parts = [];
  let left = 0;
  for (let column = kept.length; column < widths.length; column += 1) {
    if (!parts.length || widths[column] > left) {
      parts.push([...kept]);
      left = room - least;
    }
    parts[parts.length - 1].push(column);
    left -= widths[column];
  }
  return parts;
}
