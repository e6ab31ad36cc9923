// Canary against control as a small drawing: solid with dots against dashed, what is tolerated dotted, changes marked.
import { svg } from "./dom";
import type { Plot, Point } from "./model";
import { clock, level, percent } from "./words";

const WIDTH = 660;
const HEIGHT = 200;
const LEFT = 46;
const RIGHT = 116;
const TOP = 24;
const BOTTOM = 24;
const APART = 15;

interface Known {
  x: number;
  y: number;
  value: number;
  at: string;
}

class Scale {
  private readonly first: number;
  private readonly last: number;
  readonly bottom: number;
  readonly top: number;

  constructor(plot: Plot) {
    const points = [...plot.canary, ...plot.control, ...plot.tolerated];
    const moments = [...points, ...plot.changes].map((item) => Date.parse(item.at));
    this.first = Math.min(...moments);
    this.last = Math.max(...moments, this.first + 1000);
    const values = points.map((point) => point.value ?? 0);
    const share = plot.unit === "share";
    this.bottom = Math.min(0, ...values);
    const highest = Math.max(share ? 0.01 : 0, ...values);
    this.top = highest > 0 ? niceTop(1.08 * highest, share ? 1 : Infinity) : this.bottom < 0 ? 0 : 1;
  }

  x(at: string): number {
    return LEFT + ((Date.parse(at) - this.first) / (this.last - this.first)) * (WIDTH - LEFT - RIGHT);
  }

  y(value: number): number {
    return HEIGHT - BOTTOM - ((value - this.bottom) / (this.top - this.bottom)) * (HEIGHT - TOP - BOTTOM);
  }

  moments(number: number): string[] {
    const part = (this.last - this.first) / (number - 1);
    return Array.from({ length: number }, (_, index) => new Date(this.first + index * part).toISOString());
  }
}

function said(plot: Plot, value: number): string {
  return plot.unit === "share" ? percent(value) : level(value);
}

function niceTop(highest: number, most: number): number {
  const size = 10 ** Math.floor(Math.log10(highest));
  const step = [1, 2, 4, 6, 10].find((factor) => factor * size >= highest) ?? 10;
  return Math.min(most, step * size);
}

/** Split into stretches of known points: a gap in the data stays a gap in the line. */
function stretches(points: Point[], scale: Scale): Known[][] {
  const found: Known[][] = [[]];
  for (const { at, value } of points) {
    if (value === null) found.push([]);
    else found[found.length - 1]?.push({ x: scale.x(at), y: scale.y(value), value, at });
  }
  return found.filter((stretch) => stretch.length > 0);
}

function line(name: "canary" | "control", plot: Plot, scale: Scale): SVGElement {
  const group = svg("g", { class: `line ${name}` });
  for (const stretch of stretches(plot[name], scale)) {
    const d = stretch.map((point, index) => `${index ? "L" : "M"}${point.x.toFixed(1)} ${point.y.toFixed(1)}`).join("");
    group.append(svg("path", { d }));
    for (const point of stretch) {
      const tip = `${name} ${clock(point.at)}: ${said(plot, point.value)}`;
      group.append(svg("circle", { cx: point.x, cy: point.y, r: 2.4 }, svg("title", {}, tip)));
    }
  }
  return group;
}

function bound(plot: Plot, scale: Scale): SVGElement {
  const group = svg("g", { class: "line tolerated" });
  for (const stretch of stretches(plot.tolerated, scale)) {
    const d = stretch.map((point, index) => `${index ? "L" : "M"}${point.x.toFixed(1)} ${point.y.toFixed(1)}`).join("");
    group.append(svg("path", { d }, svg("title", {}, "the most that is tolerated of the canary's mean")));
  }
  return group;
}

function labels(plot: Plot, scale: Scale): SVGElement[] {
  const names = (["canary", "control", "tolerated"] as const).filter((name) => name !== "tolerated" || plot.tolerated.length);
  const ends = names.map((name) => {
    const known = stretches(plot[name], scale).flat();
    const last = known[known.length - 1];
    return { name, y: last?.y ?? scale.y(scale.bottom), text: last ? `${name} ${said(plot, last.value)}` : `${name}: no data` };
  });
  ends.sort((a, b) => b.y - a.y);
  let lowest = HEIGHT - BOTTOM;
  for (const end of ends) {
    end.y = Math.min(end.y, lowest);
    lowest = end.y - APART;
  }
  ends.reverse();
  return ends.map((end) => svg("text", { class: `label ${end.name}`, x: WIDTH - RIGHT + 8, y: end.y + 4 }, end.text));
}

function axes(plot: Plot, scale: Scale): SVGElement[] {
  const lines = [0, 0.5, 1].map((part) => {
    const value = scale.bottom + part * (scale.top - scale.bottom);
    const y = scale.y(value);
    return svg(
      "g",
      { class: "axis" },
      svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y }),
      svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, said(plot, value).replace(/\.0+ /, " ")),
    );
  });
  const anchors = ["start", "middle", "end"];
  const times = scale.moments(3).map((at, index) => {
    const tick = clock(at).slice(0, 5);
    return svg("text", { class: "tick", x: scale.x(at), y: HEIGHT - 6, "text-anchor": anchors[index] ?? "middle" }, tick);
  });
  return [...lines, ...times];
}

const MOST_MARKS = 12;

/** Mark every change; many of them become one shaded span, which stays readable. */
function marks(plot: Plot, scale: Scale): SVGElement {
  const group = svg("g", { class: "marks" });
  const [first, last] = [plot.changes[0], plot.changes[plot.changes.length - 1]];
  if (!first || !last) return group;
  const [from, to] = [scale.x(first.at), scale.x(last.at)];
  const many = plot.changes.length > MOST_MARKS;
  if (many) {
    const box = { class: "span", x: from, width: Math.max(to - from, 2), y: TOP - 2, height: HEIGHT - BOTTOM - TOP + 2 };
    group.append(svg("rect", box));
  }
  for (const change of many ? [first, last] : plot.changes) {
    const x = scale.x(change.at);
    group.append(
      svg("path", { d: `M${x} ${TOP - 2}V${HEIGHT - BOTTOM}` }, svg("title", {}, `${change.label} began ${clock(change.at)}`)),
      svg("path", { class: "flag", d: `M${x - 3.5} ${TOP - 8}h7l-3.5 6z` }),
    );
  }
  const changed = plot.changed === 1 ? `${first.label} is changed` : `${plot.changed} targets are changed`;
  group.append(svg("text", { x: Math.max(LEFT, from - 3), y: TOP - 12 }, changed));
  return group;
}

function description(plot: Plot): string {
  const sides = (["canary", "control"] as const).map((name) => {
    const known = plot[name].map((point) => point.value).filter((value) => value !== null);
    const [first, last] = [known[0], known[known.length - 1]];
    if (first === undefined || last === undefined) return `${name} has no data`;
    return `${name} from ${said(plot, first)} to ${said(plot, last)}`;
  });
  return `${sides.join("; ")}; ${plot.changed} changes marked.`;
}

export function draw(plot: Plot): SVGElement {
  if (plot.canary.length + plot.control.length === 0) {
    return svg("svg", { class: "plot", viewBox: `0 0 ${WIDTH} 40` }, svg("text", { x: LEFT, y: 24 }, "no data was measured"));
  }
  const scale = new Scale(plot);
  return svg(
    "svg",
    { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${plot.title}: ${description(plot)}` },
    ...axes(plot, scale),
    marks(plot, scale),
    bound(plot, scale),
    line("canary", plot, scale),
    line("control", plot, scale),
    ...labels(plot, scale),
  );
}
