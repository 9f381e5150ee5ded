// Keeps a page that the server writes up to date: asks for it again, and shows it where it has changed.

import { watchTheme } from "./theme.js";

const AGAIN_MS = 2000; // with the time of the answer, news is there within 3 s
let tag = null;

async function askAgain() {
  try {
    if (!document.hidden) {
      const reply = await fetch(location.href, { cache: "no-store", headers: tag ? { "if-none-match": tag } : {} });
      if (reply.ok && reply.headers.get("etag")) {
        tag = reply.headers.get("etag");
        showAgain(new DOMParser().parseFromString(await reply.text(), "text/html"));
      }
    }
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // the server does not answer: keep what is there
  } finally {
    setTimeout(askAgain, AGAIN_MS);
  }
}

// Replace the sections that differ; the others keep their places, selections and open details.
function showAgain(fresh) {
  const [now, next] = [document, fresh].map((page) => [...page.querySelector("main").children]);
  if (now.length !== next.length) {
    document.querySelector("main").replaceWith(document.adoptNode(fresh.querySelector("main")));
    return;
  }
  now.forEach((part, place) => {
    if (part.dataset.static === undefined && part.outerHTML !== next[place].outerHTML) part.replaceWith(document.adoptNode(next[place]));
  });
}

watchTheme(document.getElementById("theme"), () => {});
setTimeout(askAgain, AGAIN_MS);
