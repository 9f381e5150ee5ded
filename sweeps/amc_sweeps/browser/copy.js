// Buttons that copy a text: their attribute data-copy has it. One listener serves also those that come later.

const COPIED_MS = 1500; // how long a button says so

export function watchCopyButtons() {
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-copy]");
    if (!button) return;
    button.textContent = (await copied(button.dataset.copy)) ? "copied" : "not copied";
    setTimeout(() => {
      button.textContent = "copy";
    }, COPIED_MS);
  });
}

async function copied(text) {
  try {
    if (navigator.clipboard) {
      await navigator.clipboard.writeText(text);
      return true;
    }
  } catch {
    // The browser refuses; the other way may work.
  }
  // Over plain HTTP from another machine a page has no clipboard of its own.
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "hidden-text";
  document.body.append(area);
  area.select();
  const isDone = document.execCommand("copy");
  area.remove();
  return isDone;
}
