// All rollouts that the reader may see: those at work first, each with the sentence of what it waits for.
import { Acting } from "./acts";
import { type Place, follow } from "./api";
import { Part, h } from "./dom";
import { Frame } from "./frame";
import type { Overview, OverviewLine } from "./model";
import { capital, day, plural, rolloutLook, symbol } from "./words";
import { bar } from "./waves";

export function overviewPage(main: HTMLElement, here: Place): void {
  const frame = new Frame();
  const list = new Part(h("section", { "aria-label": "Rollouts" }));
  const acts = new Part(h("div", { class: "acts", role: "group", "aria-label": "What you may do" }));
  const acting = new Acting(here.root, () => again());
  let latest: Overview | null = null;
  const search = h("input", { type: "search", placeholder: "Find a policy or a word", "aria-label": "Find a policy or a word", input: () => show() });
  document.title = "Patching";
  main.replaceChildren(
    h("div", { class: "top" }, h("h1", { class: "page-title" }, "Rollouts"), frame.updated),
    frame.banner,
    acting.element,
    h("div", { class: "filters" }, search, acts.element),
    list.element,
    frame.speech,
  );
  const show = (): void => {
    const known = latest;
    if (!known) return;
    const words = search.value.toLowerCase().split(/\s+/);
    const shown = known.rollouts.filter((line) => words.every((word) => `${line.policy} ${line.state} ${line.sentence} ${line.id}`.toLowerCase().includes(word)));
    list.show([shown, known.stop_switch], () => [
      known.stop_switch === null ? null : h("p", { class: "stop", role: "alert" }, h("strong", {}, "Everything is stopped. "), known.stop_switch),
      ...section("Open", shown.filter((line) => !line.final), here, "No rollout is open."),
      ...section("Ended", shown.filter((line) => line.final), here, "None has ended yet."),
    ]);
    acts.show(known.acts, () => known.acts.map((act) => acting.button(act)));
    frame.say(`${plural(shown.filter((line) => !line.final).length, "rollout")} open`);
  };
  const again = follow<Overview>(here.api, {
    document: (document) => {
      latest = document;
      show();
    },
    answered: (at) => frame.answered(at),
    failed: (error, again) => frame.failed(error, again),
    ended: () => false,
  });
}

function section(title: string, lines: OverviewLine[], here: Place, none: string): Node[] {
  const rows = lines.map((line) => {
    const look = rolloutLook(line.state);
    return h(
      "li",
      {},
      h(
        "a",
        { href: `${here.root}/page/rollout/${encodeURIComponent(line.id)}`, class: `rollout-line tone-${look.tone}`, "data-key": line.id },
        h("span", { class: "target-state" }, symbol(look), look.word),
        h("span", { class: "line-main" }, h("strong", {}, line.policy), line.emergency ? h("span", { class: "pill tone-bad" }, "emergency") : null, h("span", {}, capital(line.sentence))),
        h("span", { class: "line-standing" }, bar(line.counts, line.final), h("span", { class: "quiet" }, line.standing)),
        h("span", { class: "quiet" }, day(line.opened_at)),
      ),
    );
  });
  return [h("h2", {}, title), rows.length ? h("ul", { class: "rollout-lines" }, ...rows) : h("p", { class: "quiet" }, none)];
}
