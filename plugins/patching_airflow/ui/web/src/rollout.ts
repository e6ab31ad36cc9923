// The page of one rollout: how it stands and what it waits for, then waves, verdict, targets, approvals and history.
import { Acting } from "./acts";
import { type Place, follow } from "./api";
import { Part, h } from "./dom";
import { Frame } from "./frame";
import type { Act, RolloutView, RunWithoutRollout } from "./model";
import { Panel } from "./panel";
import { Targets } from "./targets";
import { capital, clock, day, plural, rolloutLook, symbol } from "./words";
import { bar, judgedWave, strip, verdict } from "./waves";

export function rolloutPage(main: HTMLElement, here: Place): void {
  const frame = new Frame();
  const head = new Part(h("header", { class: "head" }));
  const waves = new Part(h("nav", { "aria-label": "Waves" }));
  const judgement = new Part(h("section", { class: "judgement", "aria-label": "Verdict" }));
  const record = new Part(h("section", { class: "record", "aria-label": "Approvals and history" }));
  const acting = new Acting(here.root, () => again());
  const panel = new Panel((name) => targets.focus(name), acting, (name) => (view ? targetActs(view, name) : []));
  let view: RolloutView | null = null;
  const targets = new Targets(
    (name) => void panel.open(`${here.root}/api/rollouts/${encodeURIComponent(view?.rollout.id ?? "")}`, name),
    () => view && showWaves(view),
  );
  const back = here.kind === "rollout" ? h("a", { href: `${here.root}/page/overview`, class: "back" }, "‹ All rollouts") : "";
  main.replaceChildren(
    h("div", { class: "top" }, back, frame.updated),
    frame.banner, acting.element, head.element, waves.element, judgement.element, targets.element, record.element, panel.element, frame.speech,
  );
  targets.element.hidden = true;

  const showWaves = (shown: RolloutView): void => {
    const chosen = targets.filter.wave;
    const choose = (wave: number): void => targets.set({ wave: targets.filter.wave === wave ? null : wave });
    waves.show([shown.waves, shown.counts, chosen], () => (shown.waves.length ? [strip(shown, chosen, choose)] : []));
    const judged = judgedWave(shown, chosen);
    judgement.show([judged, shown.plots], () => (judged ? verdict(shown, judged) : []));
  };

  const again = follow<RolloutView | RunWithoutRollout>(here.api, {
    document: (document) => {
      if (document.rollout === null) {
        head.show(document.sentence, () => [h("h1", {}, capital(document.sentence))]);
        return;
      }
      view = document;
      frame.say(document.headline);
      head.show([document.rollout, document.sentence, document.standing, document.next_steps, document.stop_switch, document.incident, document.acts, document.counts], () => heading(document, acting));
      showWaves(document);
      targets.element.hidden = document.targets.length === 0;
      targets.show(document);
      record.show([document.approval, document.events, document.exclusions], () => history(document));
      void panel.refresh();
    },
    answered: (at) => frame.answered(at),
    failed: (error, again) => frame.failed(error, again),
    ended: (document) => document.rollout?.final ?? false,
  });
}

/** What may be done to one target, with its name in the sentence. */
function targetActs(view: RolloutView, name: string): Act[] {
  const found = view.targets.find((target) => target.name === name);
  return (found?.acts ?? []).flatMap((act) => {
    const known = view.target_acts[act];
    if (!known) return [];
    const release = act === "release";
    const path = release ? `targets/${encodeURIComponent(name)}/release` : `rollouts/${encodeURIComponent(view.rollout.id)}/${act}`;
    return [{ ...known, act, says: known.says.replaceAll("{target}", name), path, body: release ? {} : { target: name } }];
  });
}

function heading(view: RolloutView, acting: Acting): (Node | null)[] {
  const look = rolloutLook(view.rollout.state);
  document.title = `${look.word}: ${view.rollout.policy}`;
  document.body.dataset["tone"] = look.tone;
  const sentence = view.sentence || view.standing;
  return [
    view.stop_switch === null ? null : h("p", { class: "stop", role: "alert" }, h("strong", {}, "Everything is stopped. "), view.stop_switch),
    view.incident ? h("p", { class: "stop", role: "alert" }, h("strong", {}, "The policy is locked. "), `${capital(view.incident.cause)} (incident ${view.incident.id}, ${view.incident.runbook}).`) : null,
    h(
      "p",
      { class: "which" },
      h("strong", {}, view.rollout.policy),
      view.rollout.emergency ? h("span", { class: "pill tone-bad" }, "emergency") : null,
      h("code", {}, view.rollout.id),
    ),
    h("p", { class: `state tone-${look.tone}` }, symbol(look), look.word),
    h("h1", {}, capital(sentence)),
    view.targets.length ? h("p", { class: "standing" }, bar(view.counts, view.rollout.final), view.standing) : null,
    view.acts.length ? h("div", { class: "acts", role: "group", "aria-label": "What you may do" }, ...view.acts.map((act) => acting.button(act))) : null,
    view.next_steps.length
      ? h("div", { class: "todo" }, h("h2", {}, "What to do"), h("ul", {}, ...view.next_steps.map((step) => h("li", {}, step))))
      : null,
  ];
}

function history(view: RolloutView): Node[] {
  const approval = view.approval;
  const answers = approval.answers.map((answer) =>
    h("li", {}, h("time", { datetime: answer.at }, clock(answer.at)), h("span", {}, `${answer.person}: ${answer.decision}${answer.comment ? ` (“${answer.comment}”)` : ""}`)),
  );
  const needed = approval.required ? `${plural(approval.required, "approval")} by different people` : "no approval";
  return [
    h(
      "div",
      {},
      h("h2", {}, "Approvals"),
      h("p", { class: "quiet" }, `The plan ${view.rollout.plan_digest?.slice(0, 12) ?? ""} needs ${needed}${approval.reason ? `: ${approval.reason}` : ""}.`),
      answers.length ? h("ol", { class: "log" }, ...answers) : h("p", { class: "quiet" }, "Nobody has answered."),
      view.exclusions.length
        ? h("details", {}, h("summary", {}, `${plural(view.exclusions.length, "target")} left out of the plan`), h("ul", {}, ...view.exclusions.map((item) => h("li", {}, `${item.target}: ${item.reason}`))))
        : "",
    ),
    h(
      "div",
      {},
      h("h2", {}, "History"),
      h("p", { class: "quiet" }, `Opened ${day(view.rollout.opened_at)}.`),
      h("ol", { class: "log" }, ...[...view.events].reverse().map((event) => h("li", {}, h("time", { datetime: event.at }, clock(event.at)), h("span", {}, h("b", {}, rolloutLook(event.to).word), ` ${event.reason}`)))),
    ),
  ];
}
