// One target in detail: what was planned, every step with its end and its output, and the log.
import type { Acting } from "./acts";
import { Unanswered, ask } from "./api";
import { Part, h } from "./dom";
import type { Act, StepEntry, TargetView } from "./model";
import { clock, lasting, symbol, targetLook, verdictLook } from "./words";

export class Panel {
  readonly element = h("aside", { class: "panel", hidden: true, "aria-label": "Target", tabindex: "-1" });
  private readonly title = h("h2", {}, "");
  private readonly body = new Part(h("div", { class: "panel-body" }));
  private readonly acts = new Part(h("div", { class: "acts", role: "group", "aria-label": "What you may do" }));
  private name = "";
  private url = "";
  private tag = "";

  /** `allowed` gives what may be done to a target now. */
  constructor(
    private readonly closed: (target: string) => void,
    private readonly acting: Acting,
    private readonly allowed: (target: string) => Act[],
  ) {
    const close = h("button", { type: "button", class: "close", "aria-label": "Close", click: () => this.close() }, "×");
    this.element.append(h("header", {}, this.title, close), this.acts.element, this.body.element);
    this.element.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !document.querySelector("dialog[open]")) this.close();
    });
  }

  async open(rolloutUrl: string, name: string): Promise<void> {
    this.name = name;
    this.url = `${rolloutUrl}/targets/${encodeURIComponent(name)}`;
    this.tag = "";
    this.title.textContent = name;
    this.body.show(["loading", name], () => [h("p", { class: "quiet" }, "Loading…")]);
    this.element.hidden = false;
    document.body.classList.add("with-panel");
    this.element.focus();
    await this.refresh();
  }

  close(): void {
    this.element.hidden = true;
    document.body.classList.remove("with-panel");
    this.closed(this.name);
  }

  async refresh(): Promise<void> {
    if (this.element.hidden) return;
    const allowed = this.allowed(this.name);
    this.acts.show(allowed, () => allowed.map((act) => this.acting.button(act, `target-${act.act}`)));
    const url = this.url;
    try {
      const answer = await ask<TargetView>(url, this.tag);
      if (!answer || url !== this.url) return;
      this.tag = answer.tag;
      this.body.show(answer.tag, () => content(answer.document));
    } catch (error) {
      if (!(error instanceof Unanswered)) throw error;
      this.body.show(["failed", error.message], () => [h("p", { class: "error" }, `Its steps cannot be shown: ${error.message}.`)]);
    }
  }
}

function content(view: TargetView): (Node | null)[] {
  const look = targetLook(view.target.shown_as, false);
  return [
    h("p", { class: `target-state tone-${look.tone}` }, symbol(look), look.word),
    view.target.waits_for || view.target.detail ? h("p", {}, view.target.waits_for || view.target.detail) : null,
    planned(view),
    h("h3", {}, "Steps"),
    view.steps.length ? h("ol", { class: "steps" }, ...view.steps.map(step)) : h("p", { class: "quiet" }, "No step has begun."),
    h("h3", {}, "Log"),
    view.log.length
      ? h("ol", { class: "log" }, ...view.log.map((line) => h("li", {}, h("time", { datetime: line.at }, clock(line.at)), h("span", {}, line.text))))
      : h("p", { class: "quiet" }, "Nothing has been written yet."),
  ];
}

function planned(view: TargetView): HTMLElement | null {
  const plan = view.planned;
  if (!plan) return null;
  const row = (name: string, ...values: (string | Node)[]): HTMLElement[] => [h("dt", {}, name), h("dd", {}, ...values)];
  const labels = Object.entries(plan.labels).map(([key, value]) => `${key}=${value}`);
  return h(
    "dl",
    {},
    ...row("address", plan.address),
    ...row("labels", labels.join("  ") || "none"),
    ...row("changes", h("ul", {}, ...plan.changes.map((change) => h("li", {}, change)))),
    ...row("why", `${plan.reason}; ${plan.priority}`),
    ...(plan.advisories.length ? row("advisories", plan.advisories.join(", ")) : []),
    ...row("reboot", plan.reboot ? "yes" : "no"),
    ...row("undo", `${plan.undo_possible ? "possible" : "NOT possible"}: ${plan.undo}`),
    ...plan.warnings.flatMap((warning) => row("warning", warning)),
  );
}

function step(entry: StepEntry): HTMLElement {
  const look = entry.ok === null ? verdictLook("inconclusive") : entry.ok ? verdictLook("promote") : targetLook("failed", false);
  const ended = entry.ended_at ? lasting((Date.parse(entry.ended_at) - Date.parse(entry.began_at)) / 1000) : "its end was not seen yet";
  const code = entry.exit_code === null ? "" : `exit ${entry.exit_code}`;
  const output = [entry.stdout, entry.stderr].filter(Boolean).join("\n");
  const head = [
    symbol(look),
    h("span", { class: "step-name" }, entry.name),
    h("span", { class: "quiet" }, [entry.phase, clock(entry.began_at), ended, code].filter(Boolean).join(" · ")),
  ];
  if (!output && !entry.detail) return h("li", { class: `tone-${look.tone}` }, h("div", { class: "step-head" }, ...head));
  return h(
    "li",
    { class: `tone-${look.tone}` },
    h(
      "details",
      entry.ok === false ? { open: true } : {},
      h("summary", { class: "step-head" }, ...head),
      entry.detail ? h("p", {}, entry.detail) : null,
      output ? h("pre", { tabindex: "0" }, output) : null,
    ),
  );
}
