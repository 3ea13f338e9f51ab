// Answers drawn: entities in their text, topics as bars, one variant or several side by side.

import { bar, cell, fill, h, row, table } from "./dom.js";
import { hasKey } from "./server.js";
import { label, marked, markedApart } from "./marks.js";
import { difference, f1, interval, legend, meaning, megabytes, milliseconds, percent, plural } from "./words.js";

const STRANGE = 0.2; // share of a text that cannot be read, from which on it is said aloud

/** {element, summary} of the answer of one variant. */
export function answer({ text, lang, reply, request, variants }) {
  const [result] = reply.results;
  const isNer = reply.task === "ner";
  const summary = isNer
    ? `${plural(result.entities.length, "entity", "entities")} found by ${reply.variant}.`
    : `${result.labels[0]?.label ?? "No topic"}, says ${reply.variant}.`;
  const element = h(
    "div",
    {},
    h("section", { class: "card" }, h("h3", {}, isNer ? "Found" : "Topic"), isNer ? found(text, lang, result) : topics(result), strange(result)),
    h(
      "section",
      { class: "card" },
      h("h3", {}, "Answered by ", name(reply.variant)),
      facts(reply, result, variants.find((each) => each.name === reply.variant)),
      rejected(reply.rejected),
    ),
    asked(request),
  );
  return { element, summary };
}

/** {element, summary} of what several variants say. */
export function comparison({ text, lang, reply, request, variants }) {
  const [result] = reply.results;
  const isNer = reply.task === "ner";
  const alike = isNer ? result.disagreements.length === 0 : result.agreed;
  const said = isNer
    ? `${plural(reply.variants.length, "variant")}: ${plural(result.agreed.length, "entity", "entities")} found by all, ${plural(result.disagreements.length, "disagreement")}.`
    : `${plural(reply.variants.length, "variant")} ${alike ? "agree" : "disagree"} on the topic.`;
  const element = h(
    "div",
    {},
    h("section", { class: "card" }, h("h3", {}, "Side by side"), h("p", {}, said), isNer ? texts(text, lang, result) : columns(result, reply.reference)),
    isNer && !alike && h("section", { class: "card" }, h("h3", {}, "Disagreements"), disagreements(text, result)),
    h("section", { class: "card" }, h("h3", {}, "Variants"), sides(reply, variants), strange(Object.values(result.answers)[0])),
    asked(request),
  );
  return { element, summary: said };
}

function found(text, lang, result) {
  const { entities } = result;
  if (!entities.length) return [marked(text, [], lang), h("p", { class: "note" }, "No names or dates were found.")];
  const rows = entities.map((each) => row(h("bdi", {}, each.text), label(each.label), score(each.score)));
  const kinds = [...new Set(entities.map((each) => each.label))];
  return [marked(text, entities, lang), table("Entities", ["Entity", "Kind", "Score"], rows), h("p", { class: "note" }, legend([...kinds, "Score"]))];
}

const name = (variant) => h("span", { class: "name" }, variant);

const score = (value) => h("span", { class: "score" }, bar(value), value.toFixed(3));

function topics(result) {
  if (!result.labels.length) return h("p", { class: "note" }, "No topic.");
  return table("Topics", ["Topic", "Score"], result.labels.map((each) => row(each.label, score(each.score))));
}

/** A text for each variant, with its own marks. */
function texts(text, lang, result) {
  const sides = Object.keys(result.answers).map((name) =>
    h("div", { class: "side" }, h("h4", { class: "name" }, name), markedApart(text, result, name, lang)),
  );
  return h("div", { class: "sides" }, sides);
}

/** What each variant says where not all say the same; the numbers are those in the texts. */
function disagreements(text, result) {
  const names = Object.keys(result.answers);
  const rows = result.disagreements.map((each, index) =>
    row(
      String(index + 1),
      h("bdi", {}, text.slice(each.start, each.end)),
      ...names.map((name) => {
        const said = each.said[name];
        if (!said.length) return h("span", { class: "note" }, "nothing");
        return said.map((one) => h("div", {}, label(one.label), " ", h("bdi", {}, one.text), h("span", { class: "note" }, `\u00a0${one.score.toFixed(2)}`)));
      }),
    ),
  );
  return table("Disagreements", ["No.", "Of the text", ...names], rows);
}

/** A row for each topic, a column for each variant; each one's best is told. */
function columns(result, reference) {
  const names = Object.keys(result.answers);
  const scores = Object.fromEntries(
    names.map((name) => [name, new Map(result.answers[name].labels.map((each) => [each.label, each.score]))]),
  );
  const labels = [...new Set([reference, ...names].flatMap((name) => [...scores[name].keys()]))];
  const rows = labels.map((each) =>
    row(
      each,
      ...names.map((name) => {
        const own = scores[name].get(each);
        const isTop = result.top[name] === each;
        if (own === undefined) return "–";
        return cell({ class: isTop ? "beside top-of" : "beside" }, score(own), isTop ? [" ", h("span", { class: "badge" }, "best")] : []);
      }),
    ),
  );
  const tops = new Set(Object.values(result.top).filter(Boolean));
  for (const [index, each] of labels.entries()) {
    if (tops.size > 1 && tops.has(each)) rows[index].classList.add("apart-row");
  }
  return table("Topics by variant", ["Topic", ...names], rows);
}

function sides(reply, variants) {
  const rows = reply.variants.map((each) => {
    const variant = variants.find((one) => one.name === each.variant);
    const isReference = each.variant === reply.reference;
    const { agreement, timing_ms: timing } = each;
    const told = isReference ? "the reference" : agreeing(agreement, reply.task);
    return row(
      name(each.variant),
      told,
      milliseconds(timing.total),
      milliseconds(timing.queue),
      milliseconds(timing.model),
      variant ? megabytes(variant.bytes) : "–",
      variant ? interval(f1(variant)?.macro) : "–",
      lessThanBaseline(variant),
    );
  });
  return table(
    "The variants compared",
    ["Variant", `As ${reply.reference} says`, "Total", "Waiting", "Model", "Size", "F1", "Minus baseline"],
    rows,
  );
}

function agreeing({ share, both, reference, variant }, task) {
  if (task !== "ner") return both ? "the same topic" : "another topic";
  return reference + variant ? `${percent(share)}: ${reference} left out, ${variant} added` : "all alike";
}

function lessThanBaseline(variant) {
  if (!variant) return "–";
  return variant.parent === null ? "the baseline" : interval(difference(variant)?.macro, true);
}

function facts(reply, result, variant) {
  const { timing_ms: timing } = reply;
  const told = [
    ["Why", reply.reason === "named" ? "it was named" : reply.reason],
    ["Time", `${milliseconds(timing.total)}: ${milliseconds(timing.queue)} waiting, ${milliseconds(timing.encode)} reading, ${milliseconds(timing.model)} in the model`],
    variant && ["Size", megabytes(variant.bytes)],
    variant && ["F1", interval(f1(variant)?.macro)],
    variant && ["Minus baseline", lessThanBaseline(variant)],
    ["Read as", `${plural(result.tokens, "token")} in ${plural(result.windows, "window")}, ${percent(result.unknown)} of the characters unknown`],
    ["Weights", h("code", {}, reply.digest)],
  ];
  return h("dl", { class: "facts" }, told.filter(Boolean).map(([name, value]) => h("div", {}, h("dt", { title: meaning(name) }, name), h("dd", {}, value))));
}

function rejected(others) {
  if (!others.length) return null;
  return [
    h("h4", {}, "Why the others did not"),
    table("Variants that did not answer", ["Variant", "Reason"], others.map((each) => row(name(each.variant), each.reason))),
  ];
}

function strange(result) {
  if (result.unknown < STRANGE) return null;
  return h(
    "p",
    { class: "notice" },
    `${percent(result.unknown)} of the characters are strange to the model: a script or language it does not know? Then the answer means little.`,
  );
}

/** The same for a terminal. */
function asked({ path, body }) {
  const address = new URL(path, document.baseURI).href;
  const json = JSON.stringify(body).replaceAll("'", String.raw`'\''`);
  const bearing = hasKey() ? ' -H "authorization: Bearer $KADOGO_KEY"' : "";
  const command = `curl ${address} -H 'content-type: application/json'${bearing} -d '${json}'`;
  const copy = h("button", { type: "button" }, "Copy the command");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(command);
      fill(copy, "Copied");
    } catch {
      fill(copy, "Mark it to copy it"); // not every page may: over plain HTTP none
    }
  });
  return h("details", { class: "card" }, h("summary", {}, "The request"), h("pre", { tabindex: "0" }, h("code", { translate: "no" }, command)), copy);
}
