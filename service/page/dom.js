// Elements made of values. Text goes in as text: nothing here, nor in what uses it, reads markup.

import { meaning } from "./words.js";

const SVG = "http://www.w3.org/2000/svg"; // a name, not an address

export const h = (tag, attributes, ...children) =>
  filled(document.createElement(tag), attributes, children);

export const svg = (tag, attributes, ...children) =>
  filled(document.createElementNS(SVG, tag), attributes, children);

/** Put `children` in place of what `element` holds. */
export function fill(element, ...children) {
  element.replaceChildren(...present(children));
}

export const unseen = (text) => h("span", { class: "unseen" }, text);

/**
 * As `fill`, for what is drawn again and again: tables stay scrolled and focused as they were.
 */
export function refill(element, ...children) {
  const regions = () => [...element.querySelectorAll(".scroll")];
  const before = new Map(regions().map((each) => [each.ariaLabel, each]));
  const at = new Map([...before].map(([name, each]) => [name, each.scrollLeft]));
  const focused = document.activeElement?.ariaLabel;
  const held = before.get(focused) === document.activeElement;
  fill(element, ...children);
  for (const each of regions()) {
    each.scrollLeft = at.get(each.ariaLabel) ?? 0;
    if (held && each.ariaLabel === focused) each.focus({ preventScroll: true });
  }
}

// What is too wide for its place scrolls, and then the keyboard must reach it.
const reached = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});

/**
 * A table; in a narrow place one of many columns becomes a list of its rows. What a title means is
 * told where it is pointed at.
 */
export function table(caption, titles, rows) {
  for (const each of rows) {
    for (const [index, cell] of [...each.cells].entries()) cell.dataset.title = titles[index];
  }
  const head = h("thead", {}, h("tr", {}, titles.map((each) => h("th", { scope: "col", title: meaning(each) }, each))));
  const drawn = h("table", { class: titles.length > 4 ? "wide" : null }, h("caption", { class: "unseen" }, caption), head, h("tbody", {}, rows));
  const scrolled = h("div", { class: "scroll", role: "group", "aria-label": caption }, drawn);
  reached.observe(scrolled);
  return scrolled;
}

/** A row: the first cell is what the row is of. */
export function row(first, ...cells) {
  const others = cells.map((each) => (each instanceof HTMLTableCellElement ? each : cell({}, each)));
  return h("tr", {}, h("th", { scope: "row" }, first), others);
}

/** A cell of one thing, whatever is in it: beside it a narrow table puts the column's title. */
export const cell = (attributes, ...children) => h("td", attributes, children.flat(Infinity).length ? h("div", {}, children) : null);

/** A bar as long as `share`, 0 to 1, says. For the eye: what it says stands beside it. */
export function bar(share) {
  const element = h("span", { class: "bar", "aria-hidden": "true" });
  element.style.setProperty("--share", String(Math.min(1, Math.max(0, share))));
  return element;
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...present(children));
  return element;
}

function present(children) {
  return children.flat(Infinity).filter((each) => each !== null && each !== undefined && each !== false);
}
