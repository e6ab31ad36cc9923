// The targets: cards while they fit, compact cells when there are many; filter, grouping, keyboard, tooltip.
import { Part, h } from "./dom";
import type { RolloutView, Target } from "./model";
import { TARGET_STATES, capital, day, lasting, plural, symbol, targetLook } from "./words";

const MOST_CARDS = 40;

export interface Filter {
  text: string;
  state: string | null;
  wave: number | null;
  zone: string;
}

type Grouping = "wave" | "zone" | "state";

function matches(target: Target, filter: Filter): boolean {
  const text = `${target.name} ${target.change} ${target.detail} ${target.waits_for}`.toLowerCase();
  return (
    (filter.state === null || target.shown_as === filter.state) &&
    (filter.wave === null || target.wave === filter.wave) &&
    (filter.zone === "" || target.zone === filter.zone) &&
    filter.text.toLowerCase().split(/\s+/).every((word) => text.includes(word))
  );
}

/** A target that only waits with its rollout shows its change; what it waits for is said in words beside it. */
function note(target: Target): string {
  if (target.waits_for && target.shown_as !== "pending") return target.waits_for;
  if (target.quarantined) {
    const end = target.quarantined_until === null ? "it is released" : day(target.quarantined_until);
    return `in quarantine until ${end}: ${target.quarantined}`;
  }
  if (target.detail) return target.detail;
  if (target.shown_as === "running" && target.phase) return `phase ${target.phase}`;
  return target.change;
}

export class Targets {
  readonly element = h("section", { class: "targets", "aria-label": "Targets" });
  readonly filter: Filter = { text: "", state: null, wave: null, zone: "" };
  private grouping: Grouping = "wave";
  private view: RolloutView | null = null;
  private readonly chips = new Part(h("div", { class: "chips", role: "group", "aria-label": "Filter by state" }));
  private readonly summary = h("p", { class: "quiet shown", "aria-live": "polite" });
  private readonly grid = h("div", { class: "grid" });
  private readonly zones = h("select", { "aria-label": "Zone", change: () => this.set({ zone: this.zones.value }) });
  private readonly waves = h("select", {
    "aria-label": "Wave",
    change: () => this.set({ wave: this.waves.value ? Number(this.waves.value) : null }),
  });
  private readonly tip = h("div", { class: "tip", role: "tooltip", id: "tip", hidden: true });
  private readonly cells = new Map<string, { element: HTMLButtonElement; key: string }>();
  private arrangement = "";

  constructor(
    private readonly open: (target: string) => void,
    private readonly changed: () => void,
  ) {
    const search = h("input", {
      type: "search",
      placeholder: "Find a target or a word",
      "aria-label": "Find a target or a word",
      input: () => this.set({ text: search.value }),
    });
    const group = h(
      "select",
      { "aria-label": "Group by", change: () => this.regroup(group.value as Grouping) },
      ...["wave", "zone", "state"].map((name) => h("option", { value: name }, `by ${name}`)),
    );
    this.element.append(
      h("div", { class: "filters" }, search, this.waves, this.zones, group, this.chips.element),
      this.summary,
      this.grid,
      this.tip,
    );
    this.grid.addEventListener("keydown", (event) => this.walk(event));
    for (const name of ["pointerover", "focusin"]) this.grid.addEventListener(name, (event) => this.point(event));
    for (const name of ["pointerleave", "focusout"]) this.grid.addEventListener(name, () => (this.tip.hidden = true));
  }

  show(view: RolloutView): void {
    this.view = view;
    this.choices(this.waves, ["", ...view.waves.map((wave) => String(wave.index))], "all waves", "wave ");
    this.choices(this.zones, ["", ...new Set(view.targets.map((target) => target.zone))].sort(), "all zones", "");
    this.render();
  }

  set(change: Partial<Filter>): void {
    Object.assign(this.filter, change);
    this.waves.value = this.filter.wave === null ? "" : String(this.filter.wave);
    this.changed();
    this.render();
  }

  focus(name: string): void {
    this.cells.get(name)?.element.focus();
  }

  private regroup(grouping: Grouping): void {
    this.grouping = grouping;
    this.render();
  }

  private choices(select: HTMLSelectElement, values: string[], all: string, prefix: string): void {
    if (select.options.length === values.length) return;
    const chosen = select.value;
    select.replaceChildren(...values.map((value) => h("option", { value }, value ? prefix + value : all)));
    select.value = chosen;
    select.hidden = values.length < 3;
  }

  private render(): void {
    const view = this.view;
    if (!view) return;
    const shown = view.targets.filter((target) => matches(target, this.filter));
    this.showChips(view);
    const compact = shown.length > MOST_CARDS;
    this.summary.textContent =
      shown.length === view.targets.length ? plural(shown.length, "target") : `${shown.length} of ${plural(view.targets.length, "target")} shown`;
    this.grid.classList.toggle("compact", compact);
    this.arrange(shown, view.rollout.final, compact);
  }

  private showChips(view: RolloutView): void {
    const final = view.rollout.final;
    this.chips.show([view.counts, this.filter.state, final], () =>
      TARGET_STATES.filter((state) => view.counts[state]).map((state) => {
        const look = targetLook(state, final);
        return h(
          "button",
          {
            type: "button",
            class: `chip tone-${look.tone}`,
            "data-key": `state-${state}`,
            "aria-pressed": String(this.filter.state === state),
            click: () => this.set({ state: this.filter.state === state ? null : state }),
          },
          symbol(look),
          `${view.counts[state]} ${look.word}`,
        );
      }),
    );
  }

  /** Put the cells in their groups; elements are kept, so that neither focus nor pointer loses its cell. */
  private arrange(shown: Target[], final: boolean, compact: boolean): void {
    const groups = new Map<string, HTMLButtonElement[]>();
    for (const target of shown) {
      const title = this.groupOf(target, final);
      const found = groups.get(title) ?? [];
      found.push(this.cell(target, final, compact));
      groups.set(title, found);
    }
    const arrangement = [...groups].map(([title, cells]) => `${title}:${cells.map((cell) => cell.dataset["key"]).join()}`).join(";");
    if (arrangement === this.arrangement && shown.length) return;
    this.arrangement = arrangement;
    const focused = (document.activeElement as HTMLElement | null)?.dataset["key"];
    const parts = [...groups].map(([title, cells]) =>
      h("div", { class: "group", role: "group", "aria-label": title }, h("h3", {}, title, h("span", { class: "quiet" }, ` ${cells.length}`)), h("div", { class: "cells" }, ...cells)),
    );
    this.grid.replaceChildren(...(parts.length ? parts : [h("p", { class: "quiet" }, "No target matches this filter.")]));
    this.oneTabStop();
    if (focused) this.focus(focused);
  }

  private groupOf(target: Target, final: boolean): string {
    if (this.grouping === "zone") return target.zone;
    if (this.grouping === "state") return capital(targetLook(target.shown_as, final).word);
    return `Wave ${target.wave}`;
  }

  private cell(target: Target, final: boolean, compact: boolean): HTMLButtonElement {
    const key = JSON.stringify([target, final, compact]);
    const known = this.cells.get(target.name);
    const element = known?.element ?? h("button", { type: "button", "data-key": target.name, click: () => this.open(target.name) });
    if (known?.key === key) return element;
    this.cells.set(target.name, { element, key });
    const look = targetLook(target.shown_as, final);
    element.className = `target tone-${look.tone} is-${target.shown_as}`;
    const waits = target.waits_for && target.waits_for !== note(target) ? ` ${capital(target.waits_for)}.` : "";
    element.setAttribute("aria-label", `${target.name}: ${look.word}. ${note(target)}.${waits}`);
    element.title = compact ? "" : capital(target.waits_for);
    element.replaceChildren(...(compact ? [symbol(look)] : this.card(target, final)));
    return element;
  }

  private card(target: Target, final: boolean): Node[] {
    const look = targetLook(target.shown_as, final);
    const time = target.seconds === null ? "" : lasting(target.seconds);
    return [
      h("span", { class: "target-name" }, target.name, target.quarantined ? h("em", {}, "quarantined") : null),
      h("span", { class: "target-state" }, symbol(look), look.word),
      h("span", { class: "note" }, note(target)),
      h("span", { class: "quiet" }, [target.zone, target.reboot ? "reboots" : "", time].filter((text) => text && text !== "-").join(" · ")),
    ];
  }

  /** Hundreds of cells are one stop of the Tab key; the arrows walk among them. */
  private oneTabStop(): void {
    const cells = [...this.grid.querySelectorAll<HTMLElement>(".target")];
    const stop = cells.find((cell) => cell.tabIndex === 0 && cell.hasAttribute("tabindex")) ?? cells[0];
    for (const cell of cells) cell.tabIndex = cell === stop ? 0 : -1;
  }

  private walk(event: KeyboardEvent): void {
    const cells = [...this.grid.querySelectorAll<HTMLElement>(".target")];
    const here = cells.indexOf(document.activeElement as HTMLElement);
    if (here < 0) return;
    const next = this.neighbour(cells, here, event.key);
    if (next === null) return;
    event.preventDefault();
    cells[here]?.setAttribute("tabindex", "-1");
    cells[next]?.setAttribute("tabindex", "0");
    cells[next]?.focus();
  }

  private neighbour(cells: HTMLElement[], here: number, key: string): number | null {
    const end = cells.length - 1;
    if (key === "ArrowRight") return Math.min(here + 1, end);
    if (key === "ArrowLeft") return Math.max(here - 1, 0);
    if (key === "Home") return 0;
    if (key === "End") return end;
    if (key !== "ArrowDown" && key !== "ArrowUp") return null;
    const from = cells[here]?.getBoundingClientRect();
    if (!from) return null;
    const down = key === "ArrowDown";
    const order = cells.map((_, index) => index).filter((index) => (down ? index > here : index < here));
    if (!down) order.reverse();
    const other = order.find((index) => {
      const box = cells[index]?.getBoundingClientRect();
      return box !== undefined && Math.abs(box.top - from.top) > 4 && Math.abs(box.left - from.left) < from.width / 2 + 2;
    });
    return other ?? null;
  }

  private point(event: Event): void {
    const cell = (event.target as Element).closest<HTMLElement>(".target");
    const target = this.view?.targets.find((item) => item.name === cell?.dataset["key"]);
    if (!cell || !target || !this.grid.classList.contains("compact")) {
      this.tip.hidden = true;
      return;
    }
    const look = targetLook(target.shown_as, this.view?.rollout.final ?? false);
    this.tip.replaceChildren(
      h("strong", {}, target.name),
      h("span", { class: `tone-${look.tone} target-state` }, symbol(look), look.word),
      h("span", {}, note(target)),
      target.waits_for && target.waits_for !== note(target) ? h("span", {}, target.waits_for) : "",
      h("span", { class: "quiet" }, `wave ${target.wave} · ${target.zone}${target.seconds === null ? "" : ` · ${lasting(target.seconds)}`}`),
    );
    this.tip.hidden = false;
    const box = cell.getBoundingClientRect();
    const left = Math.max(8, Math.min(box.left, document.documentElement.clientWidth - this.tip.offsetWidth - 8));
    const below = box.bottom + 6 + this.tip.offsetHeight < window.innerHeight;
    this.tip.style.left = `${left}px`;
    this.tip.style.top = `${below ? box.bottom + 6 : box.top - this.tip.offsetHeight - 6}px`;
  }
}
