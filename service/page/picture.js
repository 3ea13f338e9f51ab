// Quality against speed or bytes as SVG: better is up and to the right, labels do not overlap.

import { svg } from "./dom.js";
import { megabytes, number } from "./words.js";

const EDGE = { top: 28, right: 20, bottom: 44, left: 52 };
const DOT = 6;
const LETTER = { width: 7.3, height: 15 }; // of a name: 12 px, all letters as wide
// Where a name may stand: beside its point, then farther off with a line to it.
const NEAR = [10];
const FAR = [26, 42, 60, 84, 110];
const WAYS = [[1, 0], [-1, 0], [0, -1], [0, 1], [1, -1], [-1, -1], [1, 1], [-1, 1]];

/** The names of points than which another is better at one thing and not worse at the other. */
export function dominated(points) {
  const good = (each) => (each.isLess ? -each.x : each.x);
  const beats = (a, b) => a.y >= b.y && good(a) >= good(b) && (a.y > b.y || good(a) > good(b));
  return new Set(points.filter((each) => points.some((other) => beats(other, each))).map((each) => each.name));
}

/** points: [{name, x, y, low, high, isLess}] */
export function picture(points, { width, against, title }) {
  const height = Math.round(Math.min(360, Math.max(240, width * 0.5)));
  const inner = { left: EDGE.left, right: width - EDGE.right, top: EDGE.top, bottom: height - EDGE.bottom };
  const isLess = against === "bytes";
  const across = logarithmic(points.map((each) => each.x), isLess ? [inner.right, inner.left] : [inner.left, inner.right]);
  const up = linear(points.flatMap((each) => [each.low, each.high]), [inner.bottom, inner.top]);
  const placed = points.map((each) => ({ ...each, cx: across.at(each.x), cy: up.at(each.y), top: up.at(each.high), bottom: up.at(each.low) }));
  const behind = dominated(points);
  const line = stairs(placed.filter((each) => !behind.has(each.name)).sort((a, b) => a.cx - b.cx));
  return svg(
    "svg",
    { class: "plot", width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title}: ${told(points, behind, isLess)}` },
    grid(across, up, inner, isLess),
    svg("polyline", { class: "front", points: line.map(({ x, y }) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ") }),
    placed.map((each) => dot(each, behind.has(each.name))),
    names(placed, line, inner),
  );
}

function told(points, behind, isLess) {
  const one = (each) =>
    `${each.name} ${each.y.toFixed(3)} at ${isLess ? megabytes(each.x) : number(each.x)}${behind.has(each.name) ? "" : ", on the front"}`;
  return points.map(one).join("; ");
}

function dot(each, isBehind) {
  return svg(
    "g",
    { class: isBehind ? "dot behind" : "dot" },
    svg("title", {}, `${each.name}: F1 ${each.y.toFixed(3)}`),
    svg("line", { x1: each.cx, x2: each.cx, y1: each.top, y2: each.bottom }),
    svg("circle", { cx: each.cx, cy: each.cy, r: DOT }),
  );
}

function grid(across, up, inner, isLess) {
  const middle = (inner.left + inner.right) / 2;
  return [
    across.ticks.map((each) => [
      svg("line", { class: "grid", x1: across.at(each), x2: across.at(each), y1: inner.top, y2: inner.bottom }),
      svg("text", { class: "tick", x: across.at(each), y: inner.bottom + 16, "text-anchor": "middle" }, isLess ? `${each / 1e6}` : short(each)),
    ]),
    up.ticks.map((each) => [
      svg("line", { class: "grid", x1: inner.left, x2: inner.right, y1: up.at(each), y2: up.at(each) }),
      svg("text", { class: "tick", x: inner.left - 6, y: up.at(each) + 4, "text-anchor": "end" }, each.toFixed(2)),
    ]),
    svg("text", { class: "axis", x: middle, y: inner.bottom + 36, "text-anchor": "middle" }, isLess ? "MB, smaller is right" : "tokens a second, one core"),
    svg("text", { class: "axis", x: inner.left - 6, y: inner.top - 14, "text-anchor": "end" }, "F1"),
  ];
}

/** Each step as far as its point reaches: nothing between two points is promised. */
function stairs(front) {
  const corner = (each, index) => (index ? [{ x: each.cx, y: front[index - 1].cy }] : []);
  return front.flatMap((each, index) => [...corner(each, index), { x: each.cx, y: each.cy }]);
}

/**
 * Names beside their points: off the line and the intervals where there is room, never on each
 * other or on a point. One that finds no room at all is left to the table.
 */
function names(placed, line, inner) {
  const taken = placed.map((each) => ({ x: each.cx - DOT, y: each.cy - DOT, width: 2 * DOT, height: 2 * DOT }));
  const bars = placed.map((each) => ({ x: each.cx - 2, y: each.top, width: 4, height: each.bottom - each.top }));
  const bounds = { x: inner.left, y: inner.top - 8, width: inner.right + EDGE.right - inner.left, height: inner.bottom - inner.top + 8 };
  const stretches = line.slice(1).map((each, index) => between(line[index], each));
  const free = (spot, others) => within(spot, bounds) && !others.some((other) => overlap(spot, other));
  return placed.map((each) => {
    const near = spots(each, NEAR);
    const anywhere = [...near, ...spots(each, FAR)];
    const box =
      near.find((spot) => free(spot, [...taken, ...bars, ...stretches])) ??
      anywhere.find((spot) => free(spot, [...taken, ...bars])) ??
      anywhere.find((spot) => free(spot, taken));
    if (!box) return null;
    taken.push(box);
    const middle = box.y + LETTER.height / 2;
    const toward = Math.min(Math.max(each.cx, box.x), box.x + box.width);
    return [
      box.far && svg("line", { class: "leader", x1: each.cx, y1: each.cy, x2: toward, y2: middle }),
      svg("text", { class: "point", x: box.x, y: middle + 4 }, each.name),
    ];
  });
}

function spots(each, distances) {
  const width = each.name.length * LETTER.width + 2;
  const { height } = LETTER;
  return distances.flatMap((distance) =>
    WAYS.map(([right, down]) => ({
      x: each.cx + right * distance + (right > 0 ? 0 : right < 0 ? -width : -width / 2),
      y: each.cy + down * distance + (down > 0 ? 0 : down < 0 ? -height : -height / 2),
      width,
      height,
      far: distance > NEAR[0],
    })),
  );
}

const between = (a, b) => ({
  x: Math.min(a.x, b.x) - 1,
  y: Math.min(a.y, b.y) - 1,
  width: Math.abs(a.x - b.x) + 2,
  height: Math.abs(a.y - b.y) + 2,
});
const overlap = (a, b) => a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height;
const within = (a, b) => a.x >= b.x && a.y >= b.y && a.x + a.width <= b.x + b.width && a.y + a.height <= b.y + b.height;

/** {at, ticks} over the values and a little more, on a scale of equal ratios. */
function logarithmic(values, [from, to]) {
  const low = Math.log10(Math.min(...values) / 1.35);
  const high = Math.log10(Math.max(...values) * 1.35);
  const ticks = [];
  for (let power = Math.floor(low); power <= high; power += 1) {
    for (const step of [1, 2, 5]) {
      const value = step * 10 ** power;
      if (Math.log10(value) >= low && Math.log10(value) <= high) ticks.push(Number(value.toPrecision(1)));
    }
  }
  return { at: (value) => from + ((Math.log10(value) - low) / (high - low)) * (to - from), ticks };
}

function linear(values, [from, to]) {
  const smallest = Math.min(...values);
  const largest = Math.max(...values);
  const step = [0.01, 0.02, 0.05, 0.1, 0.2].find((each) => (largest - smallest) / each <= 6) ?? 0.5;
  const low = Math.floor(smallest / step) * step;
  const high = Math.max(low + step, Math.ceil(largest / step) * step);
  const ticks = Array.from({ length: Math.round((high - low) / step) + 1 }, (_, index) => low + index * step);
  return { at: (value) => from + ((value - low) / (high - low)) * (to - from), ticks };
}

const short = (value) => (value >= 1e6 ? `${value / 1e6} M` : value >= 1000 ? `${value / 1000} k` : String(value));
