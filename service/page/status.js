// The view of the server now: health, what is out of service and why, and what it does, counted from
// /metrics between two readings. Asks every few seconds while it is seen, and not otherwise.

import { h, refill, row, svg, table } from "./dom.js";
import { state } from "./catalog.js";
import { counted, parse, quantile, total } from "./metrics.js";
import { ask, read, Refused } from "./server.js";
import { duration, milliseconds, number, percent, plural } from "./words.js";

const EVERY_MS = 5000;
const FIRST_MS = 1500; // until the second reading: from then on there are rates
const ENDED = { promoted: "promoted", rolled_back: "rolled back" };
const KEPT = 13; // readings: a minute of them
const by = (id) => document.getElementById(id);

export class Status {
  #page;
  #where = by("status");
  #readings = []; // [{at, metrics}], the oldest first
  #timer = null;
  #asking = null;

  constructor(page) {
    this.#page = page;
  }

  entered() {
    this.left();
    this.#readings = [];
    this.#look();
  }

  left() {
    clearTimeout(this.#timer);
    this.#asking?.abort();
  }

  again() {
    this.entered();
  }

  async #look() {
    const asking = (this.#asking = new AbortController());
    const { signal } = asking;
    let wait = this.#readings.length ? EVERY_MS : FIRST_MS;
    const [status, metrics] = await Promise.allSettled([ask("v1/status", { signal }), read("metrics", { signal })]);
    if (signal.aborted) return;
    if (metrics.status === "fulfilled") {
      this.#readings = [...this.#readings, { at: performance.now(), metrics: parse(metrics.value) }].slice(-KEPT);
    }
    if (status.status === "fulfilled") {
      refill(this.#where, this.#drawn(status.value, metrics));
    } else {
      wait = Math.max(EVERY_MS, status.reason.problem?.retry_after_ms ?? 0);
      this.#page.refused(status.reason, this.#where);
      if (status.reason instanceof Refused && [401, 403].includes(status.reason.problem.status)) return;
    }
    this.#timer = setTimeout(() => this.#look(), wait);
  }

  #drawn(status, metrics) {
    const names = Object.keys(status.variants);
    const out = names.filter((name) => !["ready", "unloaded"].includes(status.variants[name].state));
    return [
      h("section", { class: "card" }, h("h3", {}, "Server"), facts(status)),
      out.length
        ? h(
            "section",
            { class: "card" },
            h("h3", {}, "Out of service"),
            table("Variants out of service", ["Variant", "State and reason"], out.map((name) => row(h("span", { class: "name" }, name), state(status.variants[name].state, status.variants[name].reason)))),
          )
        : null,
      h("section", { class: "card" }, h("h3", {}, "Variants"), this.#rates(status, names, metrics)),
      trials(status.trials),
      this.#refusals(),
    ];
  }

  #rates(status, names, metrics) {
    const seconds = this.#seconds;
    const note =
      metrics.status === "rejected"
        ? [h("p", { class: "notice" }, "There are no rates: /metrics is not to be had here, as behind a proxy that keeps it inside.")]
        : [h("p", { class: "note" }, seconds ? `Rates and times are of the last ${duration(seconds)}, of all processes; waiting and costs of process ${status.process}.` : "Rates come with the next reading.")];
    const rows = names.map((name) => this.#row(name, status.variants[name]));
    const compared = this.#count("kadogo_request_seconds_count", { task: "compare" });
    if (compared) rows.push(row("comparisons", [], ...this.#live({ task: "compare" }, null), [], []));
    return [note, table("Variants now", ["Variant", "State", "Requests/s", "Last minute", "Texts/s", "Half within", "95 % within", "Refused", "Waiting", "Cost of a run, a token"], rows)];
  }

  #row(name, variant) {
    const cost = variant.run_ms === null ? "–" : `${milliseconds(variant.run_ms)} + ${(1000 * variant.token_ms).toFixed(0)} µs`;
    const waiting = this.#latest ? total(this.#latest.metrics, "kadogo_queue_depth", { variant: name }) : variant.waiting_windows;
    return row(
      h("span", { class: "name" }, name),
      state(variant.state),
      ...this.#live({ variant: name }, name),
      plural(waiting, "window"),
      cost,
    );
  }

  /** Cells: requests a second, their course, texts a second, median, 95th percentile, refused. */
  #live(wanted, variant) {
    const seconds = this.#seconds;
    if (!seconds) return ["–", [], "–", "–", "–", "–"];
    const { metrics: before } = this.#readings[0];
    const { metrics: now } = this.#latest;
    const rate = (name, more) => counted(before, now, name, { ...wanted, ...more }) / seconds;
    const time = (q) => {
      const found = quantile(before, now, "kadogo_request_seconds", { ...wanted, status_class: "2xx" }, q);
      return found === null ? "–" : milliseconds(1000 * found);
    };
    const refused = rate("kadogo_request_seconds_count", { status_class: (each) => each === "4xx" || each === "5xx" });
    return [
      number(rate("kadogo_request_seconds_count")),
      course(this.#readings.map((each) => ({ at: each.at, count: total(each.metrics, "kadogo_request_seconds_count", wanted) }))),
      variant === null ? "–" : number(counted(before, now, "kadogo_texts_total", { variant }) / seconds),
      time(0.5),
      time(0.95),
      refused ? `${number(refused)}/s` : "0",
    ];
  }

  #refusals() {
    if (!this.#latest) return null;
    const { metrics } = this.#latest;
    const reasons = (metrics.get("kadogo_rejections_total") ?? []).filter((each) => each.value);
    if (!reasons.length) return null;
    const seconds = this.#seconds;
    const rows = reasons
      .sort((a, b) => b.value - a.value)
      .map(({ labels, value }) => {
        const lately = seconds ? counted(this.#readings[0].metrics, metrics, "kadogo_rejections_total", { reason: labels.reason }) : 0;
        return row(labels.reason.replaceAll("_", " "), value.toLocaleString("en"), lately.toLocaleString("en"));
      });
    return h("section", { class: "card" }, h("h3", {}, "Refused"), table("Requests refused, by reason", ["Reason", "Since the start", "Lately"], rows));
  }

  #count(name, wanted) {
    return this.#latest ? total(this.#latest.metrics, name, wanted) : 0;
  }

  get #latest() {
    return this.#readings.at(-1);
  }

  /** Between the first and the last reading; 0 where there is one alone. */
  get #seconds() {
    return this.#readings.length > 1 ? (this.#latest.at - this.#readings[0].at) / 1000 : 0;
  }
}

function facts(status) {
  const told = [
    ["State", state(status.state, status.reason)],
    ["Up for", duration(status.uptime_seconds)],
    ["Work that waits", duration(status.backlog_seconds)],
    ["Threads", String(status.threads)],
    ["Generation", status.generation ? `${status.generation}` : "0, as it was started"],
    ["Process", String(status.process)],
  ];
  return h("dl", { class: "facts" }, told.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

/** How each canary does beside whom it would take the place of, and what ends its trial. */
function trials(all) {
  if (!Object.keys(all).length) return null;
  const range = (found, limit) => (found ? [`${percent(found.low)} to ${percent(found.high)}`, h("span", { class: "note" }, `; limit ${percent(limit)}`)] : "–");
  const rows = Object.entries(all).map(([route, trial]) =>
    row(
      h("span", { class: "name" }, route),
      [h("span", { class: "name" }, trial.canary), " instead of ", h("span", { class: "name" }, trial.incumbent)],
      trial.comparisons === null ? "–" : number(trial.comparisons),
      range(trial.disagreement, trial.max_disagreement),
      range(trial.slower, 0.5),
      trial.why ? `${ENDED[trial.state]}: ${trial.why}` : "goes on",
    ),
  );
  const headings = ["Route", "Canary", "Comparisons", "Answers differ", "Slower", "Verdict"];
  return h("section", { class: "card" }, h("h3", {}, "Trials"), table("Trials of canaries", headings, rows));
}

/** Requests a second from reading to reading, as a line; the figure beside it says the mean. */
function course(counts) {
  const rates = counts.slice(1).map((each, index) => {
    const rise = each.count - counts[index].count;
    return (rise >= 0 ? rise : each.count) / ((each.at - counts[index].at) / 1000);
  });
  const most = Math.max(...rates);
  if (rates.length < 2 || !most) return [];
  const points = rates.map((rate, index) => `${((index / (KEPT - 2)) * 72 + 2).toFixed(1)},${(20 - (rate / most) * 16).toFixed(1)}`);
  return svg("svg", { class: "course", width: 76, height: 20, viewBox: "0 1 76 20", "aria-hidden": "true" }, svg("polyline", { points: points.join(" ") }));
}
