// A text cut into pieces by spans, and those pieces as elements. Offsets are UTF-16 units, which is
// what strings are made of here: the server is asked to count so.

import { h, unseen } from "./dom.js";
import { meaning } from "./words.js";

/**
 * The text from `start` to `end` in pieces, in order and without loss: {text, span} where a span
 * is, {text} between. A span that begins inside another is left out.
 */
export function pieces(text, spans, start = 0, end = text.length) {
  const found = [];
  let at = start;
  for (const span of [...spans].sort((a, b) => a.start - b.start || b.end - a.end)) {
    if (span.start < at || span.end > end || span.start >= span.end) continue;
    if (span.start > at) found.push({ text: text.slice(at, span.start) });
    found.push({ text: text.slice(span.start, span.end), span });
    at = span.end;
  }
  if (at < end) found.push({ text: text.slice(at, end) });
  return found;
}

const bared = (label) => label.replace(/^[BI]-/, "");

/** Which of the eight colours a label has: known ones their own, others one by their letters. */
export function kind(label) {
  const bare = bared(label);
  const known = ["PER", "LOC", "ORG", "DATE"].indexOf(bare);
  if (known >= 0) return known;
  return 4 + ([...bare].reduce((sum, letter) => sum + letter.codePointAt(0), 0) % 4);
}

/** An entity in its text. The label is read and seen, but not copied with the text. */
export const mark = (entity, text) =>
  h("mark", { class: `entity kind-${kind(entity.label)}` }, text, h("span", { class: "label", title: meaning(bared(entity.label)) }, entity.label));

/** The label by itself, in its colour. */
export const label = (name) => h("span", { class: `label kind-${kind(name)}`, title: meaning(bared(name)) }, name);

/** The text with its entities marked. */
export const marked = (text, entities, lang) => paragraph(lang, inside(pieces(text, entities)));

/**
 * The text as one of several variants reads it: where they disagree, numbered as the list of
 * disagreements is.
 */
export function markedApart(text, comparison, name, lang) {
  const agreed = comparison.agreed.map((entity) => ({ ...entity, entity }));
  const apart = comparison.disagreements.map((each, index) => ({ ...each, number: index + 1 }));
  return paragraph(
    lang,
    pieces(text, [...agreed, ...apart]).map(({ text: part, span }) => {
      if (!span) return part;
      if (span.entity) return mark(span.entity, part);
      const own = span.said[name];
      const number = h("sup", {}, unseen(" disagreement "), String(span.number), own.length ? null : unseen(", nothing found"));
      return h("span", { class: "apart" }, inside(pieces(text, own, span.start, span.end)), number);
    }),
  );
}

const inside = (found) => found.map((each) => (each.span ? mark(each.span, each.text) : each.text));

const paragraph = (lang, children) => h("p", { class: "marked", dir: "auto", lang }, children);
