// Canary against control as a small drawing: solid with dots against dashed, labelled at the line, changes marked.
import { svg } from "./dom";
import type { Plot, Point } from "./model";
import { clock, percent } from "./words";

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
  share: number;
  at: string;
}

class Scale {
  private readonly first: number;
  private readonly last: number;
  readonly top: number;

  constructor(plot: Plot) {
    const points = [...plot.canary, ...plot.control];
    const moments = [...points, ...plot.changes].map((item) => Date.parse(item.at));
    this.first = Math.min(...moments);
    this.last = Math.max(...moments, this.first + 1000);
    this.top = niceTop(1.08 * Math.max(0.01, ...points.map((point) => point.share ?? 0)));
  }

  x(at: string): number {
    return LEFT + ((Date.parse(at) - this.first) / (this.last - this.first)) * (WIDTH - LEFT - RIGHT);
  }

  y(share: number): number {
    return HEIGHT - BOTTOM - (share / this.top) * (HEIGHT - TOP - BOTTOM);
  }

  moments(number: number): string[] {
    const part = (this.last - this.first) / (number - 1);
    return Array.from({ length: number }, (_, index) => new Date(this.first + index * part).toISOString());
  }
}

function niceTop(highest: number): number {
  const size = 10 ** Math.floor(Math.log10(highest));
  const step = [1, 2, 4, 6, 10].find((factor) => factor * size >= highest) ?? 10;
  return Math.min(1, step * size);
}

/** Split into stretches of known points: a gap in the data stays a gap in the line. */
function stretches(points: Point[], scale: Scale): Known[][] {
  const found: Known[][] = [[]];
  for (const { at, share } of points) {
    if (share === null) found.push([]);
    else found[found.length - 1]?.push({ x: scale.x(at), y: scale.y(share), share, at });
  }
  return found.filter((stretch) => stretch.length > 0);
}

function line(name: string, points: Point[], scale: Scale): SVGElement {
  const group = svg("g", { class: `line ${name}` });
  for (const stretch of stretches(points, scale)) {
    const d = stretch.map((point, index) => `${index ? "L" : "M"}${point.x.toFixed(1)} ${point.y.toFixed(1)}`).join("");
    group.append(svg("path", { d }));
    for (const point of stretch) {
      const said = `${name} ${clock(point.at)}: ${percent(point.share)}`;
      group.append(svg("circle", { cx: point.x, cy: point.y, r: 2.4 }, svg("title", {}, said)));
    }
  }
  return group;
}

function labels(plot: Plot, scale: Scale): SVGElement[] {
  const ends = (["canary", "control"] as const).map((name) => {
    const known = stretches(plot[name], scale).flat();
    const last = known[known.length - 1];
    return { name, y: last?.y ?? scale.y(0), text: last ? `${name} ${percent(last.share)}` : `${name}: no data` };
  });
  ends.sort((a, b) => a.y - b.y);
  const [upper, lower] = ends;
  if (upper && lower && lower.y - upper.y < APART) {
    const middle = Math.min((upper.y + lower.y) / 2, HEIGHT - BOTTOM - APART / 2);
    upper.y = middle - APART / 2;
    lower.y = middle + APART / 2;
  }
  return ends.map((end) => svg("text", { class: `label ${end.name}`, x: WIDTH - RIGHT + 8, y: end.y + 4 }, end.text));
}

function axes(scale: Scale): SVGElement[] {
  const lines = [0, 0.5, 1].map((part) => {
    const y = scale.y(part * scale.top);
    return svg(
      "g",
      { class: "axis" },
      svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y, y2: y }),
      svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, percent(part * scale.top).replace(/\.0+ /, " ")),
    );
  });
  const anchors = ["start", "middle", "end"];
  const times = scale.moments(3).map((at, index) => {
    const said = clock(at).slice(0, 5);
    return svg("text", { class: "tick", x: scale.x(at), y: HEIGHT - 6, "text-anchor": anchors[index] ?? "middle" }, said);
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
  const said = plot.changed === 1 ? `${first.label} is changed` : `${plot.changed} targets are changed`;
  group.append(svg("text", { x: Math.max(LEFT, from - 3), y: TOP - 12 }, said));
  return group;
}

function description(plot: Plot): string {
  const said = (["canary", "control"] as const).map((name) => {
    const known = plot[name].filter((point) => point.share !== null);
    const [first, last] = [known[0], known[known.length - 1]];
    return first && last ? `${name} from ${percent(first.share)} to ${percent(last.share)}` : `${name} has no data`;
  });
  return `${said.join("; ")}; ${plot.changed} changes marked.`;
}

export function draw(plot: Plot): SVGElement {
  if (plot.canary.length + plot.control.length === 0) {
    return svg("svg", { class: "plot", viewBox: `0 0 ${WIDTH} 40` }, svg("text", { x: LEFT, y: 24 }, "no data was measured"));
  }
  const scale = new Scale(plot);
  return svg(
    "svg",
    { class: "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${plot.title}: ${description(plot)}` },
    ...axes(scale),
    marks(plot, scale),
    line("canary", plot.canary, scale),
    line("control", plot.control, scale),
    ...labels(plot, scale),
  );
}
