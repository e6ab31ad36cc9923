// The strip of waves with their progress, and the verdict of the wave that matters now, with its numbers and plot.
import { h } from "./dom";
import type { CheckVerdict, Numbers, RolloutView, Target, Wave } from "./model";
import { draw } from "./plot";
import { TARGET_STATES, clock, count, lasting, level, percent, plural, symbol, targetLook, verdictLook, waveLook } from "./words";

const ALONG = ["good", "back", "bad", "warn", "busy", "quiet"];

/** A bar of shares, from done to not begun; the text beside it says the same, so the bar is decoration. */
export function bar(counts: Record<string, number>, final: boolean): HTMLElement {
  const along = (state: string): number => ALONG.indexOf(targetLook(state, final).tone);
  const parts = TARGET_STATES.filter((state) => counts[state]).sort((one, other) => along(one) - along(other));
  const element = h("span", { class: "bar", "aria-hidden": "true" });
  for (const state of parts) {
    const part = h("i", { class: `tone-${targetLook(state, final).tone} is-${state}` });
    part.style.flexGrow = String(counts[state]);
    element.append(part);
  }
  return element;
}

function tally(targets: Target[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const target of targets) counts[target.shown_as] = (counts[target.shown_as] ?? 0) + 1;
  return counts;
}

function said(counts: Record<string, number>, final: boolean): string {
  const parts = TARGET_STATES.filter((state) => counts[state]).map((state) => `${counts[state]} ${targetLook(state, final).word}`);
  return parts.join(", ");
}

function when(wave: Wave): string {
  if (wave.verdict_at) return `judged ${clock(wave.verdict_at)}`;
  if (wave.soak_until) return `soaks until ${clock(wave.soak_until)}`;
  if (wave.started_at) return `since ${clock(wave.started_at)}`;
  return wave.soak_seconds ? `then soaks ${lasting(wave.soak_seconds)}` : "";
}

export function strip(view: RolloutView, chosen: number | null, choose: (wave: number) => void): HTMLElement {
  const list = h("ol", { class: "waves", "aria-label": "Waves" });
  for (const wave of view.waves) {
    const look = waveLook(wave.state);
    const counts = tally(view.targets.filter((target) => target.wave === wave.index));
    list.append(
      h(
        "li",
        {},
        h(
          "button",
          {
            type: "button",
            class: `wave tone-${look.tone}`,
            "data-key": `wave-${wave.index}`,
            "aria-pressed": String(chosen === wave.index),
            title: `Show only the targets of wave ${wave.index}`,
            click: () => choose(wave.index),
          },
          h("span", { class: "wave-name" }, `Wave ${wave.index}`, wave.canary ? h("em", {}, "canary") : null),
          h("span", { class: "wave-state" }, symbol(look), look.word),
          bar(counts, view.rollout.final),
          h("span", { class: "wave-said" }, said(counts, view.rollout.final)),
          h("span", { class: "quiet" }, when(wave)),
        ),
      ),
    );
  }
  return list;
}

/** The wave whose verdict a person wants to see: the chosen one, else the last that was judged or measured. */
export function judgedWave(view: RolloutView, chosen: number | null): Wave | null {
  const asked = view.waves.find((wave) => wave.index === chosen);
  if (asked) return asked;
  const judged = view.waves.filter((wave) => wave.verdict !== null);
  return judged[judged.length - 1] ?? null;
}

function chance(p: number): string {
  return p < 0.0001 ? "< 0.0001" : `= ${p.toPrecision(2)}`;
}

/** What the numbers say, in one line: how many times as many, and how sure that is. */
function concluded(found: Numbers): string {
  const gauge = typeof found.treated_level === "number";
  const times = (value: number): string => `${value.toFixed(2)} times`;
  const what = gauge ? "the level" : "as many errors";
  const said: string[] = [];
  const known = typeof found.ratio === "number";
  if (known) said.push(`${times(found.ratio as number)} ${what}${found.ratio_low === null ? "" : `, at least ${times(found.ratio_low)}`}`);
  else if (found.ratio_low !== null) said.push(`at least ${times(found.ratio_low)} ${what}`);
  if (typeof found.evidence === "number" && typeof found.evidence_needed === "number") {
    said.push(`evidence of a change ${found.evidence.toPrecision(2)}, an alarm needs ${found.evidence_needed.toPrecision(2)}`);
  } else if (found.p_value !== null) {
    said.push(`chance of this if the rise were only what is tolerated: p ${chance(found.p_value)}`);
  }
  return said.join("; ");
}

function side(name: string, cells: string[]): HTMLElement {
  return h("tr", {}, h("th", { scope: "row" }, name), ...cells.map((cell) => h("td", {}, cell)));
}

function numbers(check: CheckVerdict): HTMLElement | null {
  const found = check.numbers;
  if (!found) return null;
  const against = check.comparison ?? "reference";
  const gauge = typeof found.treated_level === "number";
  const head = gauge ? ["", "level"] : ["", "error share", "errors", "requests"];
  const rows =
    gauge
      ? [side("patched", [level(found.treated_level)]), side(against, [level(found.reference_level)])]
      : [
          side("patched", [percent(found.treated_share), count(found.treated_errors), count(found.treated_requests)]),
          found.reference_requests === null
            ? null
            : side(against, [percent(found.reference_share), count(found.reference_errors), count(found.reference_requests)]),
        ];
  return h(
    "div",
    { class: "numbers" },
    h("table", {}, h("thead", {}, h("tr", {}, ...head.map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, ...rows)),
    h("p", { class: "quiet" }, concluded(found)),
  );
}

export function verdict(view: RolloutView, wave: Wave): (Node | null)[] {
  const plots = view.plots.filter((plot) => plot.wave === wave.index);
  const look = wave.verdict ? verdictLook(wave.verdict) : null;
  const checks = wave.checks.map((check) => {
    const plot = plots.find((item) => item.check === check.name);
    return h(
      "article",
      { class: "check" },
      h("p", { class: `said tone-${verdictLook(check.verdict).tone}` }, symbol(verdictLook(check.verdict)), check.reason),
      plot ? draw(plot) : null,
      numbers(check),
    );
  });
  if (!look && !wave.power.length) return [];
  return [
    h(
      "h2",
      {},
      `Wave ${wave.index}`,
      look ? h("span", { class: `pill tone-${look.tone}` }, symbol(look), `verdict: ${look.word}`) : h("span", { class: "quiet" }, "not judged yet"),
      wave.verdict_at ? h("span", { class: "quiet" }, clock(wave.verdict_at)) : null,
    ),
    checks.length ? null : h("p", {}, wave.reason),
    ...checks,
    wave.power.length
      ? h("details", {}, h("summary", {}, `What ${plural(wave.power.length, "check")} can see in this wave`), h("ul", {}, ...wave.power.map((text) => h("li", {}, text))))
      : null,
  ];
}
