// Texts of the page, translated by the template. `say("atMost", {n: 3})` fills {n}.
const holder = document.getElementById("desk-words");
const words = holder ? JSON.parse(holder.dataset.words) : {};

export function say(name, values = {}) {
  return (words[name] ?? name).replace(/\{(\w+)\}/g, (whole, key) => values[key] ?? whole);
}

// A new element: properties, then children. Text always goes in as text.
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class") element.className = value;
    else if (key === "data") Object.assign(element.dataset, value);
    else if (key in element) element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

// What a label is called in `language`, with its category before it.
export function titleOf(schema, name, language) {
  const label = schema.labels?.find((other) => other.name === name);
  const parent = label?.parent ? `${titleOf(schema, label.parent, language)} › ` : "";
  return parent + (label?.title?.[language] || name);
}

// Colours and bar lengths travel as data attributes: the Content-Security-Policy allows no style attribute.
export function paint(root) {
  for (const element of root.querySelectorAll("[data-color]")) {
    if (/^#[0-9a-f]{3,8}$/i.test(element.dataset.color)) element.style.setProperty("--label", element.dataset.color);
  }
  for (const element of root.querySelectorAll("[data-share]")) {
    element.style.setProperty("--share", Number(element.dataset.share) || 0);
  }
}

// Whether keys that are typed into `element` belong to it.
export function takesText(element) {
  if (!(element instanceof HTMLElement)) return false;
  if (element.isContentEditable || element instanceof HTMLTextAreaElement || element instanceof HTMLSelectElement) return true;
  return element instanceof HTMLInputElement && !["radio", "checkbox", "button", "submit", "range", "color"].includes(element.type);
}
