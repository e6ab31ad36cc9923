// What every page has: the time of the last answer, the banner that says when it is out of date, and quiet speech.
import type { Unanswered } from "./api";
import { h } from "./dom";
import { capital, clock, lasting } from "./words";

export class Frame {
  readonly updated = h("p", { class: "updated quiet" }, "asking…");
  readonly banner = h("div", { class: "banner", role: "alert", hidden: true });
  readonly speech = h("div", { class: "unseen", "aria-live": "polite" });
  private last: Date | null = null;

  answered(at: Date): void {
    this.last = at;
    this.banner.hidden = true;
    document.body.classList.remove("stale");
    this.updated.textContent = `live · updated ${clock(at.toISOString())}`;
  }

  failed(error: Unanswered, again: number): void {
    document.body.classList.add("stale");
    this.updated.textContent = this.last ? `out of date since ${clock(this.last.toISOString())}` : "no answer yet";
    const old = this.last ? ` What is shown is from ${clock(this.last.toISOString())} and may be out of date.` : "";
    this.banner.replaceChildren(h("strong", {}, reason(error)), `${old} Trying again in ${lasting(again / 1000)}.`);
    this.banner.hidden = false;
  }

  say(sentence: string): void {
    if (this.speech.textContent !== sentence) this.speech.textContent = sentence;
  }
}

function reason(error: Unanswered): string {
  if (error.status === 401) return "You are not logged in any more: log in to Airflow again.";
  if (error.status === 403) return `${capital(error.message)}.`;
  if (error.status === 0) return `The server cannot be reached (${error.message}).`;
  if (error.status === 503) return `Nothing here is known now: ${error.message}.`;
  return `The server answered with error ${error.status}: ${error.message}.`;
}
