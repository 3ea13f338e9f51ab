// A problem as people read it: what is wrong, what to do, and which variants come near.

import { h, row, table } from "./dom.js";
import { advice } from "./server.js";
import { legend, megabytes, milliseconds } from "./words.js";

export function explained(problem) {
  const fields = (problem.errors ?? []).map((each) => h("li", {}, h("code", {}, each.pointer || "/"), ` ${each.detail}`));
  if (problem.status === 401) problem = { ...problem, title: "A key is needed", detail: "" };
  const detail = fields.length ? h("ul", {}, fields) : problem.detail && h("p", {}, sentence(problem.detail));
  return h(
    "div",
    { class: "problem", role: "alert" },
    h("h3", {}, problem.status ? `${problem.title} (${problem.status})` : problem.title),
    detail,
    advice(problem) && h("p", {}, advice(problem)),
    problem.nearest?.length && near(problem.nearest),
    problem.request_id && h("p", { class: "note" }, "Request ", h("code", {}, problem.request_id)),
  );
}

function near(variants) {
  const rows = variants.map((each) =>
    row(
      h("span", { class: "name" }, each.variant),
      each.reason,
      each.f1 === null ? "not measured" : each.f1.toFixed(3),
      each.f1_drop === null ? "not measured" : each.f1_drop.toFixed(3),
      each.latency_ms === null ? "not asked" : milliseconds(each.latency_ms),
      megabytes(each.bytes),
    ),
  );
  return [
    table("Variants that miss the policy", ["Variant", "Misses it because", "F1 surely", "Drop at most", "Predicted", "Size"], rows),
    h("p", { class: "note" }, legend(["F1 surely", "Drop at most"])),
  ];
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
