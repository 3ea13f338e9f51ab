// The view that asks: a text, who answers, and what they say. What they say is drawn in answers.js.

import { answer, comparison } from "./answers.js";
import { fill, h } from "./dom.js";
import { ask, Refused } from "./server.js";
import { difference, f1, interval, language, megabytes, plural, tag } from "./words.js";

const WORKING_MS = 200; // after which it is said that the server is being asked
const LATER_MS = 3000; // until a server that was not ready is looked at again
const PATHS = { ner: "v1/ner", classification: "v1/classify" };
const by = (id) => document.getElementById(id);

export class Try {
  #page;
  #form = by("asking");
  #text = by("text");
  #examples = {};
  #at = {}; // button of the examples -> which of them was last shown
  #chosen = {}; // task -> the names of its chosen variants
  #later = null;
  #asking = null; // of the request under way
  #asked = false; // whether anything was, so that a key given later asks again

  constructor(page) {
    this.#page = page;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#ask();
    });
    this.#form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        this.#ask();
      }
    });
    this.#form.addEventListener("change", (event) => {
      const { name } = event.target;
      if (name === "task") this.#retask();
      if (name === "who") this.#show();
      if (name === "variant") this.#remember();
    });
    this.#text.addEventListener("input", () => this.#text.removeAttribute("lang"));
    ask("page/examples.json").then(
      (examples) => {
        this.#examples = examples;
        this.#exemplify();
      },
      () => {}, // there is a field for a text of one's own
    );
    this.#show();
  }

  /** Learns of the variants, again and again where the server is only starting, or gone. */
  async entered() {
    clearTimeout(this.#later);
    if (this.#page.variants) return;
    try {
      await this.#page.load();
      if (!this.#asked) fill(by("answer"));
    } catch (error) {
      // What was asked meanwhile has an answer of its own.
      if (!this.#asked || !(error instanceof Refused)) this.#page.refused(error, by("answer"));
      if ([0, 502, 503].includes(error.problem.status)) this.#later = setTimeout(() => this.entered(), LATER_MS);
    }
  }

  left() {
    clearTimeout(this.#later);
  }

  async again() {
    fill(by("answer"));
    await this.entered();
    if (this.#asked) await this.#ask();
  }

  /** Variants are known, or known anew. */
  listed() {
    this.#offer();
  }

  get #task() {
    return this.#form.elements.task.value;
  }

  get #mine() {
    return this.#form.elements.who.value === "me";
  }

  get #kin() {
    return (this.#page.variants ?? []).filter((each) => each.task === this.#task);
  }

  #retask() {
    this.#exemplify();
    this.#offer();
    fill(by("answer"));
  }

  #show() {
    by("policy").hidden = this.#mine;
    by("variants").hidden = !this.#mine;
    if (this.#mine && !this.#page.variants) this.entered();
  }

  /** A button for each language; the first example stands in the field already. */
  #exemplify() {
    const examples = this.#examples[this.#task] ?? [];
    const title = (each) => language(each.language) + (each.note ? ` with ${each.note}` : "");
    const buttons = [...new Set(examples.map(title))].map((name) => {
      const several = examples.filter((each) => title(each) === name);
      const at = `${this.#task} ${name}`;
      const next = () => {
        this.#at[at] = ((this.#at[at] ?? -1) + 1) % several.length;
        this.#put(several[this.#at[at]]);
        this.#ask();
      };
      return h("button", { type: "button", onclick: next }, name);
    });
    fill(by("examples"), buttons);
    const ours = Object.values(this.#examples).flat().some((each) => each.text === this.#text.value);
    const first = examples.find((each) => each.language === "hau");
    if (first && (ours || !this.#text.value)) this.#put(first);
  }

  #put(example) {
    this.#text.value = example.text;
    this.#text.lang = tag(example.language);
  }

  /** The variants of the task, to choose from, and the languages there is evidence for. */
  #offer() {
    const kin = this.#kin;
    const chosen = this.#chosen[this.#task] ?? farthest(kin);
    const boxes = kin.map((each) =>
      h(
        "label",
        { class: "variant" },
        h("input", {
          type: "checkbox",
          name: "variant",
          value: each.name,
          checked: chosen.has(each.name) && each.state === "ready",
          disabled: each.state !== "ready",
        }),
        h("span", { class: "name" }, each.name),
        h("span", { class: "note" }, about(each)),
      ),
    );
    const none = h("p", { class: "note" }, "No variant is known yet for this.");
    fill(by("variants"), h("legend", { class: "unseen" }, "Variants"), boxes.length ? boxes : none);
    const select = this.#form.elements.language;
    const before = select.value;
    const codes = [...new Set(kin.flatMap((each) => Object.keys(f1(each)?.languages ?? {})))];
    const options = codes.map((code) => h("option", { value: code }, language(code)));
    fill(select, h("option", { value: "" }, "all of them"), options);
    select.value = codes.includes(before) ? before : "";
  }

  #remember() {
    const boxes = [...this.#form.querySelectorAll("input[name=variant]:checked")];
    this.#chosen[this.#task] = new Set(boxes.map((each) => each.value));
  }

  /** What the fields ask for, of those that ask for anything. */
  #policy() {
    const fields = this.#form.elements;
    const policy = {};
    for (const name of ["prefer", "language"]) if (fields[name].value) policy[name] = fields[name].value;
    for (const name of ["max_f1_drop", "min_f1", "max_latency_ms"]) {
      if (!Number.isNaN(fields[name].valueAsNumber)) policy[name] = fields[name].valueAsNumber;
    }
    return Object.keys(policy).length ? policy : undefined;
  }

  /** {path, body} of what is asked; null where nothing is chosen. */
  #request() {
    const task = this.#task;
    const inputs = this.#text.value;
    const parameters = task === "ner" ? { offset_unit: "utf16" } : undefined;
    if (!this.#mine) return { path: PATHS[task], body: { inputs, policy: this.#policy(), parameters } };
    const variants = [...this.#form.querySelectorAll("input[name=variant]:checked")].map((each) => each.value);
    if (!variants.length) return null;
    if (variants.length === 1) return { path: PATHS[task], body: { inputs, variant: variants[0], parameters } };
    return { path: "v1/compare", body: { inputs, variants, parameters } };
  }

  async #ask() {
    if (!this.#form.reportValidity()) return;
    const where = by("answer");
    if (!this.#text.value.trim()) {
      this.#said("There is no text yet.");
      fill(where, h("p", { class: "notice" }, "Write or paste a text, or press an example."));
      return;
    }
    const request = this.#request();
    if (!request) {
      this.#said("No variant is chosen.");
      fill(where, h("p", { class: "notice" }, "Choose a variant, or two to compare them."));
      return;
    }
    this.#asking?.abort();
    const asking = (this.#asking = new AbortController());
    this.#asked = true;
    const working = setTimeout(() => this.#working(true), WORKING_MS);
    try {
      const reply = await ask(request.path, { body: request.body, signal: asking.signal });
      const told = { text: request.body.inputs, lang: this.#text.lang || null, reply, request, variants: this.#kin };
      const drawn = request.path === "v1/compare" ? comparison(told) : answer(told);
      fill(where, drawn.element);
      this.#said(drawn.summary);
      reveal(where);
      this.entered();
    } catch (error) {
      if (asking.signal.aborted) return;
      this.#page.refused(error, where);
      reveal(where);
    } finally {
      clearTimeout(working);
      if (this.#asking === asking) this.#working(false);
    }
  }

  #working(now) {
    by("answer").setAttribute("aria-busy", String(now));
    if (now) this.#said("Asking the server.");
  }

  /** For who does not see it: what came. */
  #said(text) {
    by("said").textContent = text;
  }
}

/** The baseline and the smallest: where they disagree is most to see. */
function farthest(variants) {
  const ready = variants.filter((each) => each.state === "ready").sort((a, b) => b.bytes - a.bytes);
  const baseline = ready.find((each) => each.parent === null) ?? ready[0];
  return new Set([baseline, ready.at(-1)].filter(Boolean).map((each) => each.name));
}

function about(variant) {
  if (variant.state !== "ready") return `${variant.state}${variant.reason ? `: ${variant.reason}` : ""}`;
  const measured = f1(variant);
  const less = difference(variant);
  const parts = [megabytes(variant.bytes), measured && `F1 ${measured.macro.mean.toFixed(3)}`];
  if (variant.parent === null) parts.push("the baseline");
  else if (less) parts.push(`baseline ${interval(less.macro, true)}`);
  if (variant.default) parts.push("the default");
  return parts.filter(Boolean).join(" · ") || plural(variant.parameters, "parameter");
}

/** Where the answer is not seen, as on a phone, go there. */
function reveal(element) {
  const { top } = element.getBoundingClientRect();
  if (top > innerHeight - 160 || top < 0) element.scrollIntoView({ block: "start" });
}
