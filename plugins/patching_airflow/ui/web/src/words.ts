// How states are said and drawn: every state has a word and a symbol, so colour never carries the meaning alone.
import { svg } from "./dom";

export interface Look {
  word: string;
  symbol: string;
  tone: "good" | "busy" | "quiet" | "bad" | "back" | "warn";
}

const CHECK = "M3 8.5l3.5 3.5L13 4.5";
const CROSS = "M4 4l8 8M12 4l-8 8";
const BACK = "M6 3L3 6l3 3M3 6h6.5a3.5 3.5 0 0 1 0 7H7";
const PAUSE = "M5.5 3.5v9M10.5 3.5v9";
const PLAY = "M5.5 3.5l7 4.5-7 4.5z";
const CLOCK = "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zM8 5v3.2l2.2 1.3";
const RING = "M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6z";
const EQUAL = "M4 6h8M4 10h8";
const UNEQUAL = "M4 6h8M4 10h8M10.5 3l-5 10";
const ASK = "M5.5 6a2.5 2.5 0 1 1 3.8 2.1C8.4 8.7 8 9.2 8 10M8 12.7v.2";
const NONE = "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2zM3.8 12.2l8.4-8.4";
const NEXT = "M4 4l4 4-4 4M9 4l4 4-4 4";
const LOCK = "M4 7.5h8v6H4zM5.5 7.5v-2a2.5 2.5 0 0 1 5 0v2";
const ALARM = "M8 2l6.5 11.5h-13zM8 6.2v3.6M8 11.6v.2";
const PERSON = "M8 2.5a2.5 2.5 0 1 0 0 5 2.5 2.5 0 0 0 0-5zM3 14c0-3 2.2-4.5 5-4.5s5 1.5 5 4.5";

const TARGET: Record<string, Look> = {
  undo_failed: { word: "undo failed", symbol: ALARM, tone: "bad" },
  stays_changed: { word: "cannot be undone", symbol: LOCK, tone: "bad" },
  unknown: { word: "unknown", symbol: ASK, tone: "bad" },
  failed: { word: "failed", symbol: CROSS, tone: "bad" },
  offline: { word: "offline", symbol: NONE, tone: "warn" },
  drifted: { word: "drifted", symbol: UNEQUAL, tone: "warn" },
  quarantined: { word: "quarantined", symbol: LOCK, tone: "warn" },
  undoing: { word: "undoing", symbol: BACK, tone: "back" },
  running: { word: "at work", symbol: PLAY, tone: "busy" },
  waiting: { word: "waits", symbol: CLOCK, tone: "busy" },
  undone: { word: "undone", symbol: BACK, tone: "back" },
  applied: { word: "applied", symbol: CHECK, tone: "good" },
  nothing_to_do: { word: "nothing to do", symbol: EQUAL, tone: "good" },
  skipped: { word: "skipped", symbol: NEXT, tone: "quiet" },
  superseded: { word: "superseded", symbol: NEXT, tone: "quiet" },
  pending: { word: "to go", symbol: RING, tone: "quiet" },
};

/** States of targets in the order of what a person looks at first. */
export const TARGET_STATES = Object.keys(TARGET);

const ROLLOUT: Record<string, Look> = {
  planned: { word: "Planned", symbol: RING, tone: "quiet" },
  awaiting_approval: { word: "Waits for approval", symbol: PERSON, tone: "busy" },
  waiting: { word: "Waits", symbol: CLOCK, tone: "busy" },
  running: { word: "Running", symbol: PLAY, tone: "busy" },
  held: { word: "Held", symbol: PAUSE, tone: "warn" },
  undoing: { word: "Undoing", symbol: BACK, tone: "back" },
  completed: { word: "Completed", symbol: CHECK, tone: "good" },
  undone: { word: "Undone", symbol: BACK, tone: "back" },
  aborted: { word: "Aborted", symbol: CROSS, tone: "bad" },
  superseded: { word: "Superseded", symbol: NEXT, tone: "quiet" },
  expired: { word: "Expired", symbol: CLOCK, tone: "quiet" },
};

const WAVE: Record<string, Look> = {
  ahead: { word: "ahead", symbol: RING, tone: "quiet" },
  not_reached: { word: "not reached", symbol: RING, tone: "quiet" },
  running: { word: "at work", symbol: PLAY, tone: "busy" },
  paused: { word: "paused", symbol: CLOCK, tone: "busy" },
  soaking: { word: "soaking", symbol: CLOCK, tone: "busy" },
  held: { word: "held", symbol: PAUSE, tone: "warn" },
  promoted: { word: "promoted", symbol: CHECK, tone: "good" },
  undoing: { word: "undoing", symbol: BACK, tone: "back" },
  undone: { word: "undone", symbol: BACK, tone: "back" },
  undo_failed: { word: "undo failed", symbol: ALARM, tone: "bad" },
};

const VERDICT: Record<string, Look> = {
  promote: { word: "promote", symbol: CHECK, tone: "good" },
  hold: { word: "hold", symbol: PAUSE, tone: "warn" },
  inconclusive: { word: "not enough data", symbol: ASK, tone: "warn" },
  undo: { word: "undo", symbol: BACK, tone: "bad" },
};

function unlisted(name: string): Look {
  return { word: name.replaceAll("_", " "), symbol: ASK, tone: "quiet" };
}

/** A target that a finished rollout never began is not "to go". */
export function targetLook(state: string, final: boolean): Look {
  const look = TARGET[state] ?? unlisted(state);
  return final && state === "pending" ? { ...look, word: "not begun" } : look;
}

export const rolloutLook = (state: string): Look => ROLLOUT[state] ?? unlisted(state);
export const waveLook = (state: string): Look => WAVE[state] ?? unlisted(state);
export const verdictLook = (verdict: string): Look => VERDICT[verdict] ?? unlisted(verdict);

export function symbol(look: Look): SVGElement {
  return svg("svg", { class: "symbol", viewBox: "0 0 16 16", "aria-hidden": "true" }, svg("path", { d: look.symbol }));
}

export function clock(iso: string | null): string {
  return iso ? new Date(iso).toLocaleTimeString("en-GB") : "";
}

export function day(iso: string): string {
  const at = new Date(iso);
  return `${at.toLocaleDateString("en-GB", { weekday: "short", day: "numeric", month: "short" })} ${at.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })}`;
}

export function lasting(seconds: number): string {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function percent(share: number | null): string {
  if (share === null) return "no data";
  const value = share * 100;
  return `${value === 0 ? "0" : value < 0.1 ? value.toPrecision(1) : value < 10 ? value.toFixed(2) : value.toFixed(1)} %`;
}

export function level(value: number | null | undefined): string {
  return typeof value === "number" ? String(Number(value.toPrecision(4))) : "–";
}

export function count(value: number | null): string {
  return value === null ? "–" : Math.round(value).toLocaleString("en-GB").replaceAll(",", " ");
}

export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

export function plural(number: number, one: string): string {
  return `${number} ${one}${number === 1 ? "" : "s"}`;
}
