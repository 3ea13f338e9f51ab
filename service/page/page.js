// The page: which view is seen, the key, and what the views share. Each view is a file of its own.

import { fill } from "./dom.js";
import { Catalog } from "./catalog.js";
import { explained } from "./explained.js";
import { ask, hasKey, Refused, useKey } from "./server.js";
import { Status } from "./status.js";
import { Try } from "./try.js";

const VIEWS = ["try", "catalog", "status"];
const KEPT = "It is kept in this page’s memory alone: gone when the page is closed or loaded again.";
const by = (id) => document.getElementById(id);

const page = {
  /** Every variant, as /v1/variants has them; null until the server has said. */
  variants: null,
  /** What the server refused, shown in `where`; asks for a key where that is what is missing. */
  refused(error, where) {
    if (!(error instanceof Refused)) throw error;
    const { status } = error.problem;
    if (status === 401 || (status === 403 && hasKey())) askForKey(status === 401);
    fill(where, explained(error.problem));
  },
  /** Ask which variants there are, and tell every view. Throws `Refused`. */
  async load() {
    const { variants } = await ask("v1/variants");
    page.variants = variants.sort((a, b) => b.bytes - a.bytes);
    views.try.listed(page.variants);
  },
};

const views = { try: new Try(page), catalog: new Catalog(page), status: new Status(page) };

function shown() {
  const name = location.hash.slice(1);
  return VIEWS.includes(name) ? name : "try";
}

function show() {
  const name = shown();
  for (const each of VIEWS) {
    by(`view-${each}`).hidden = each !== name;
    if (each !== name) views[each].left();
  }
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = name === "try" ? "Kadogo" : `${name[0].toUpperCase()}${name.slice(1)} – Kadogo`;
  views[name].entered();
}

function askForKey(focused) {
  by("key").hidden = false;
  if (!focused) return;
  by("key-wrong").textContent = hasKey() ? "The server does not take this key." : "";
  by("key-note").textContent = `This server asks for a key. ${KEPT}`;
  by("key-value").focus();
}

by("key").addEventListener("submit", (event) => {
  event.preventDefault();
  const taken = useKey(by("key-value").value.trim());
  by("key-wrong").textContent = taken ? "" : "A key has letters, figures and signs of ASCII, and no space.";
  if (!taken) return;
  by("key-value").value = "";
  by("key-note").textContent = hasKey() ? `A key is in use; another one replaces it. ${KEPT}` : "No key is in use.";
  views[shown()].again();
});
// As a link it would become the address, and the address says which view is seen.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  by("main").focus();
});
addEventListener("hashchange", show);
document.addEventListener("visibilitychange", () => {
  if (shown() === "status") document.hidden ? views.status.left() : views.status.entered();
});
show();
