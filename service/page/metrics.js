// Prometheus' text format read, and rates and quantiles of what was counted between two readings.
// Knows nothing of elements or requests.

const LINE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

/** name -> [{labels, value}] */
export function parse(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    if (!line || line.startsWith("#")) continue;
    const match = LINE.exec(line);
    if (!match) continue;
    const [, name, inside = "", value] = match;
    const labels = {};
    for (const [, key, quoted] of inside.matchAll(LABEL)) {
      labels[key] = quoted.replace(/\\(.)/g, (_, sign) => (sign === "n" ? "\n" : sign));
    }
    if (!found.has(name)) found.set(name, []);
    found.get(name).push({ labels, value: number(value) });
  }
  return found;
}

/** The sum of the samples of that name whose labels are those `wanted`; a value may be a function. */
export function total(metrics, name, wanted = {}) {
  let sum = 0;
  for (const { labels, value } of metrics.get(name) ?? []) if (fits(labels, wanted)) sum += value;
  return sum;
}

/** How much was counted from `before` to `now`; a server that began anew counts from nothing. */
export function counted(before, now, name, wanted) {
  const late = total(now, name, wanted);
  const early = total(before, name, wanted);
  return late >= early ? late - early : late;
}

/** The quantile of a histogram between two readings, within a bucket by its share; null of nothing. */
export function quantile(before, now, name, wanted, q) {
  const bounds = new Set((now.get(`${name}_bucket`) ?? []).filter((each) => fits(each.labels, wanted)).map((each) => each.labels.le));
  const buckets = [...bounds]
    .map((le) => ({ le: number(le), count: counted(before, now, `${name}_bucket`, { ...wanted, le }) }))
    .sort((a, b) => a.le - b.le);
  const all = buckets.at(-1)?.count ?? 0;
  if (!all) return null;
  const rank = q * all;
  const at = buckets.findIndex((each) => each.count >= rank);
  const below = at > 0 ? buckets[at - 1] : { le: 0, count: 0 };
  if (buckets[at].le === Infinity) return below.le; // at least that
  const share = (rank - below.count) / (buckets[at].count - below.count || 1);
  return below.le + share * (buckets[at].le - below.le);
}

function fits(labels, wanted) {
  return Object.entries(wanted).every(([name, value]) =>
    typeof value === "function" ? value(labels[name]) : labels[name] === value,
  );
}

const number = (text) => (text === "+Inf" ? Infinity : text === "-Inf" ? -Infinity : Number(text));
