// The view of every variant: a picture of quality against speed or bytes for each task, and a table.

import { fill, h, row, table } from "./dom.js";
import { dominated, picture } from "./picture.js";
import { difference, f1, interval, language, legend, megabytes, number, speed } from "./words.js";

const TASKS = { ner: "Names and dates", classification: "Topics" };

export class Catalog {
  #page;
  #where = document.getElementById("catalog");
  #against = null; // "speed" or "bytes", once chosen
  #seen = new ResizeObserver(() => this.#redraw());
  #frames = []; // [{frame, points, against, width}]

  constructor(page) {
    this.#page = page;
    this.#seen.observe(this.#where);
  }

  async entered() {
    if (this.#page.variants) this.#draw();
    try {
      await this.#page.load();
      this.#draw();
    } catch (error) {
      this.#page.refused(error, this.#where);
    }
  }

  left() {}

  again() {
    return this.entered();
  }

  #draw() {
    const variants = this.#page.variants;
    this.#frames = [];
    const tasks = [...new Set([...Object.keys(TASKS), ...variants.map((each) => each.task)])].filter((task) => variants.some((each) => each.task === task));
    fill(
      this.#where,
      variants.length ? tasks.map((task) => this.#task(task, variants.filter((each) => each.task === task))) : h("p", {}, "There is no variant yet."),
    );
    this.#redraw();
  }

  #task(task, variants) {
    const scored = variants.filter((each) => f1(each));
    const timed = scored.filter((each) => speed(each));
    const against = this.#against ?? (timed.length > 1 || timed.length === scored.length ? "speed" : "bytes");
    const drawn = against === "speed" ? timed : scored;
    const points = drawn.map((each) => pointOf(each, against));
    const choice = h(
      "div",
      { class: "switch", role: "group", "aria-label": `${TASKS[task] ?? task}: F1 against` },
      ["speed", "bytes"].map((each) =>
        h("button", { type: "button", "aria-pressed": String(each === against), onclick: () => this.#turn(each, task) }, each === "speed" ? "F1 against speed" : "F1 against size"),
      ),
    );
    const frame = h("div", { class: "picture" });
    if (points.length) this.#frames.push({ frame, points, against, task });
    else fill(frame, h("p", { class: "note" }, `Of no variant ${against === "speed" ? "the speed" : "F1"} was measured.`));
    const behind = dominated(points);
    return h(
      "section",
      { class: "card", "aria-labelledby": `catalog-${task}`, "data-task": task },
      h("h3", { id: `catalog-${task}` }, TASKS[task] ?? task),
      choice,
      frame,
      points.length ? h("p", { class: "note" }, key(points, behind, against)) : null,
      table(`Variants: ${TASKS[task] ?? task}`, ["Variant", "State", "Size", "F1", "Minus baseline", "Tokens/s, one core", "Languages, F1 × 100"], variants.map(rowOf)),
      h("p", { class: "note" }, legend(["F1", "Minus baseline"])),
    );
  }

  #turn(against, task) {
    this.#against = against;
    this.#draw();
    this.#where.querySelector(`[data-task="${task}"] [aria-pressed=true]`)?.focus();
  }

  /** As wide as there is room: text in it is as large as elsewhere. */
  #redraw() {
    for (const each of this.#frames) {
      const width = Math.floor(each.frame.clientWidth);
      if (!width || each.width === width) continue;
      each.width = width;
      fill(each.frame, picture(each.points, { width, against: each.against, title: `${TASKS[each.task] ?? each.task}: F1 against ${each.against === "speed" ? "tokens a second" : "size"}` }));
    }
  }
}

function pointOf(variant, against) {
  const { mean, low, high } = f1(variant).macro;
  const x = against === "speed" ? speed(variant).mean : variant.bytes;
  return { name: variant.name, x, y: mean, low, high, isLess: against === "bytes" };
}

function key(points, behind, against) {
  const what = against === "speed" ? "faster" : "smaller";
  const others = points.filter((each) => behind.has(each.name)).map((each) => each.name);
  const line = `Filled, and joined by the line, are those than which none is both better and ${what}. Bars are 95 % intervals.`;
  const speeds = against === "speed" ? " Speed is as measured for the manifest, on one core of its host, not here." : "";
  return `${line}${speeds}${others.length ? ` Hollow: ${others.join(", ")}.` : ""}`;
}

function rowOf(variant) {
  const scores = f1(variant);
  const fast = speed(variant);
  const ratio = variant.evidence?.speed?.ratio_to_baseline?.mean;
  const less = variant.parent === null ? "the baseline" : interval(difference(variant)?.macro, true);
  const languages = scores?.languages ?? {};
  const told = variant.languages.map((code) =>
    h("span", { class: "language" }, language(code), languages[code] ? `\u00a0${Math.round(100 * languages[code].mean)}` : ""),
  );
  return row(
    [h("span", { class: "name" }, variant.name), variant.default && [" ", h("span", { class: "badge" }, "default")]],
    state(variant.state, variant.reason),
    megabytes(variant.bytes),
    interval(scores?.macro),
    less,
    fast ? `${number(fast.mean)}${ratio ? ` · ${ratio.toFixed(ratio < 10 ? 2 : 1)}\u00a0×` : ""}` : "not measured",
    h("span", { class: "languages" }, told),
  );
}

export function state(name, reason) {
  return [h("span", { class: `state state-${name}` }, name), reason && h("span", { class: "note" }, ` ${reason}`)];
}
