// Numbers, languages and labels as people read them. Knows nothing of requests or elements.

const SPANS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
// Of what the embedded variants read; browsers differ in whether and how they name these.
const LANGUAGES = {
  amh: "Amharic", hau: "Hausa", ibo: "Igbo", kin: "Kinyarwanda", luo: "Luo", orm: "Oromo",
  pcm: "Nigerian Pidgin", run: "Kirundi", som: "Somali", swa: "Swahili", tir: "Tigrinya",
  wol: "Wolof", yor: "Yoruba",
};

// Words of measuring, and kinds of entities, as who has not met them would ask.
const MEANINGS = {
  F1: "how much of what is there is found, and how much of what is found is right, in one number of 0 to 1; the mean over languages, with its 95\u00a0% interval",
  "Minus baseline": "this F1 minus that of the baseline, which the others are made from, on the same texts; where the interval holds 0, no difference was seen",
  "F1 surely": "the low end of the 95\u00a0% interval of F1, by which a policy goes",
  "Drop at most": "how far F1 may be below the baseline's, by the 95\u00a0% interval of the difference",
  Predicted: "the time for this text, here and now, waiting included",
  Score: "how sure the model is, 0 to 1; not how often it is right",
  PER: "a person", LOC: "a place", ORG: "an organisation", DATE: "a date or a time",
};

// A figure and its unit stay on one line: a no-break space is between them.
export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)}\u00a0MB`;

/** {mean: 0.7345, low: 0.7255, high: 0.7447} -> "0.735 [0.726, 0.745]" */
export function interval(value, signed = false) {
  if (!value) return "not measured";
  const told = (x) => (signed && x >= 0 ? `+${x.toFixed(3)}` : x.toFixed(3).replace("-", "−"));
  return `${told(value.mean)} [${told(value.low)},\u00a0${told(value.high)}]`;
}

export const percent = (share) => `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)}\u00a0%`;

export function milliseconds(ms) {
  return `${ms >= 100 ? Math.round(ms) : ms.toFixed(ms >= 10 ? 1 : 2)}\u00a0ms`;
}

/** 1234.5 -> "1,235"; 1.234 -> "1.2"; 0.0123 -> "0.012" */
export function number(value) {
  if (value >= 100) return Math.round(value).toLocaleString("en");
  if (value === 0 || value >= 1) return value.toFixed(1).replace(/\.0$/, "");
  return value.toPrecision(2);
}

/** 7300 -> "2 h 1 min" */
export function duration(seconds) {
  if (seconds < 1) return seconds ? `${seconds.toPrecision(2)}\u00a0s` : "none";
  const at = SPANS.findIndex(([unit]) => seconds >= unit);
  const [[unit, name], [less, lesser] = []] = SPANS.slice(at, at + 2);
  const rest = less ? Math.floor((seconds % unit) / less) : 0;
  return `${Math.floor(seconds / unit)}\u00a0${name}${rest ? ` ${rest}\u00a0${lesser}` : ""}`;
}

/** "hau" -> "Hausa"; what the browser does not know stays a code. */
export function language(code) {
  if (code in LANGUAGES) return LANGUAGES[code];
  try {
    return new Intl.DisplayNames("en", { type: "language" }).of(code) ?? code;
  } catch {
    return code;
  }
}

/** "hau" -> "ha", for the attribute `lang`. */
export function tag(code) {
  try {
    return Intl.getCanonicalLocales(code)[0];
  } catch {
    return code;
  }
}

/** "F1" -> what that is; null where it says all itself. */
export const meaning = (word) => (Object.hasOwn(MEANINGS, word) ? MEANINGS[word] : null);

/** ["PER", "LOC", "x"] -> "PER: a person. LOC: a place." */
export const legend = (words) => words.filter(meaning).map((each) => `${each}: ${meaning(each)}.`).join(" ");

export const plural = (count, one, many = `${one}s`) => `${count} ${count === 1 ? one : many}`;

/** What is measured of a variant, as routing reads it: on raw text. */
export const f1 = (variant) => variant.evidence?.quality?.f1?.raw ?? null;
export const difference = (variant) => variant.evidence?.difference?.f1?.raw ?? null;
export const speed = (variant) => variant.evidence?.speed?.tokens_per_second ?? null;
