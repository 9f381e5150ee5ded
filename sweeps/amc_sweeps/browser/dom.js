// Elements without markup: texts of runs can hold anything.

export function byId(id) {
  return document.getElementById(id);
}

// Make an element. A property that begins with "on" is a listener; "class", "data-..." and the like are attributes.
export function element(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && !name.includes("-")) node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

// Replace what an element holds, if it differs: a reader's selection in the old text would be lost.
export function setText(node, text) {
  if (node && node.textContent !== text) node.textContent = text;
}

// What the browser remembers under a name, null for nothing; a value is stored first. A browser may refuse to.
export function remembered(name, value = null) {
  try {
    if (value !== null) localStorage.setItem(name, value);
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}
