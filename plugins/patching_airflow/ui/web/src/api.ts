// Where this page is, how it asks the API, and how it keeps asking: every 2 s, seldom when hidden, ended or failing.

export interface Place {
  root: string;
  kind: "overview" | "rollout" | "run";
  api: string;
}

/** Read the page's own address, so that it works under any prefix. */
export function place(path: string): Place {
  const found = /^(.*?)\/page\/(overview|rollout|run)(?:\/(.*))?$/.exec(path);
  const root = found?.[1] ?? "";
  const kind = (found?.[2] ?? "overview") as Place["kind"];
  const rest = found?.[3] ?? "";
  if (kind === "overview") return { root, kind, api: `${root}/api/rollouts` };
  if (kind === "rollout") return { root, kind, api: `${root}/api/rollouts/${rest}` };
  return { root, kind, api: `${root}/api/run/${rest}` };
}

/** An answer that is none of ours to show; `status` 0 means that no answer came. */
export class Unanswered extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

const WAIT = 15_000;

async function detail(response: Response): Promise<string> {
  try {
    return String(((await response.json()) as { detail?: unknown }).detail ?? response.statusText);
  } catch {
    return response.statusText;
  }
}

/** Ask once; null means that nothing has changed since `tag`. */
export async function ask<T>(url: string, tag = ""): Promise<{ document: T; tag: string } | null> {
  let response: Response;
  try {
    const headers: Record<string, string> = tag ? { "If-None-Match": tag } : {};
    response = await fetch(url, { headers, signal: AbortSignal.timeout(WAIT) });
  } catch (error) {
    throw new Unanswered(0, error instanceof Error && error.name === "TimeoutError" ? "it took too long" : "no connection");
  }
  if (response.status === 304) return null;
  if (!response.ok) throw new Unanswered(response.status, await detail(response));
  return { document: (await response.json()) as T, tag: response.headers.get("ETag") ?? "" };
}

/** Send JSON once; what changes something is never sent again by itself. */
export async function send<T>(url: string, body: unknown): Promise<T> {
  let response: Response;
  try {
    const headers = { "Content-Type": "application/json" };
    response = await fetch(url, { method: "POST", headers, body: JSON.stringify(body), signal: AbortSignal.timeout(WAIT) });
  } catch (error) {
    throw new Unanswered(0, error instanceof Error && error.name === "TimeoutError" ? "it took too long, look whether it was done" : "no connection, look whether it was done");
  }
  if (!response.ok) throw new Unanswered(response.status, await detail(response));
  return (await response.json()) as T;
}

export interface Listener<T> {
  document(document: T): void;
  answered(at: Date): void;
  failed(error: Unanswered, again: number): void;
  ended(document: T): boolean;
}

const LIVE = 2_000;
const SELDOM = 20_000;

/** Keep a document up to date until the page is left; gives a function that asks at once. */
export function follow<T>(url: string, listener: Listener<T>): () => void {
  let tag = "";
  let latest: T | null = null;
  let failures = 0;
  let timer = 0;
  let asking = false;

  const pause = (): number => {
    if (failures) return Math.min(LIVE * 2 ** failures, 30_000);
    if (document.hidden) return SELDOM * 3;
    return latest !== null && listener.ended(latest) ? SELDOM : LIVE;
  };
  const turn = async (): Promise<void> => {
    if (asking) return;
    asking = true;
    try {
      const answer = await ask<T>(url, tag);
      failures = 0;
      if (answer) {
        tag = answer.tag;
        latest = answer.document;
        listener.document(answer.document);
      }
      listener.answered(new Date());
    } catch (error) {
      if (!(error instanceof Unanswered)) throw error;
      failures = Math.min(failures + 1, 4);
      listener.failed(error, pause());
    } finally {
      asking = false;
      window.clearTimeout(timer);
      timer = window.setTimeout(() => void turn(), pause());
    }
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    void turn();
  });
  void turn();
  return () => void turn();
}
