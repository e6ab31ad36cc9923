// What a person may do: buttons, and one dialog that says in a sentence what will happen and asks for the reason.
import { Unanswered, ask, place, send } from "./api";
import { h } from "./dom";
import type { Act, Done, RunToStart } from "./model";
import { capital } from "./words";

const LONGEST_REASON = 400;

/** Airflow's own API is beside ours: the page is mounted under `/patching`. */
function airflow(root: string): string {
  return root.replace(/\/patching$/, "");
}

/** Start the run that carries it out, as the person who is logged in; gives what to say of it. */
async function start(run: RunToStart): Promise<string> {
  const dag = `${airflow(place(window.location.pathname).root)}/api/v2/dags/${encodeURIComponent(run.dag_id)}`;
  try {
    const found = await ask<{ is_paused: boolean }>(dag);
    if (found?.document.is_paused) return `That stands, but no run was started: ${run.dag_id} is paused in Airflow.`;
    const begun = await send<{ dag_run_id: string }>(`${dag}/dagRuns`, { logical_date: null, conf: run.conf });
    return `Run ${begun.dag_run_id} is started.`;
  } catch (error) {
    if (!(error instanceof Unanswered)) throw error;
    return `That stands, but no run was started: ${error.message}. The next run goes on with it.`;
  }
}

export class Acting {
  private readonly title = h("h2", { id: "act-title" }, "");
  private readonly says = h("p", { id: "act-says" }, "");
  private readonly reason = h("textarea", { id: "act-reason", required: true, rows: 3, maxlength: LONGEST_REASON });
  private readonly problem = h("p", { class: "error", role: "alert" });
  private readonly confirm = h("button", { type: "submit", class: "act" }, "");
  private readonly cancel = h("button", { type: "button", class: "plain", click: () => this.dialog.close() }, "Cancel");
  private readonly form = h(
    "form",
    { submit: (event) => void this.submit(event) },
    this.title,
    this.says,
    h("label", { for: "act-reason" }, "Why? It is kept in the ledger with your name."),
    this.reason,
    this.problem,
    h("div", { class: "buttons" }, this.cancel, this.confirm),
  );
  private readonly dialog = h("dialog", { class: "acting", "aria-labelledby": "act-title", "aria-describedby": "act-says" }, this.form);
  private readonly result = h("p", { class: "result", role: "status", hidden: true });
  readonly element = h("div", {}, this.result, this.dialog);
  private act: Act | null = null;
  private key = "";

  constructor(
    private readonly root: string,
    private readonly done: () => void,
  ) {
    this.dialog.addEventListener("close", () => document.querySelector<HTMLElement>(`[data-key="${CSS.escape(this.key)}"]`)?.focus());
  }

  /** A button that opens the dialog for an act. */
  button(act: Act, key = `act-${act.act}`): HTMLButtonElement {
    return h("button", { type: "button", class: `act tone-${tone(act)}`, "data-key": key, "data-act": act.act, title: act.says, click: () => this.open(act, key) }, act.label);
  }

  private open(act: Act, key: string): void {
    this.act = act;
    this.key = key;
    this.title.textContent = act.label;
    this.says.textContent = act.says;
    this.confirm.textContent = act.label;
    this.confirm.className = `act tone-${tone(act)}`;
    this.problem.textContent = "";
    this.result.hidden = true;
    this.reason.value = "";
    this.dialog.showModal();
    this.reason.focus();
  }

  private async submit(event: Event): Promise<void> {
    event.preventDefault();
    const act = this.act;
    const reason = this.reason.value.trim();
    if (!act || this.confirm.disabled) return;
    if (!reason) {
      this.problem.textContent = "A reason is needed.";
      return;
    }
    this.confirm.disabled = true;
    try {
      const done = await send<Done>(`${this.root}/api/${act.path}`, { ...act.body, reason });
      this.done();
      const run = done.run ? ` ${await start(done.run)}` : "";
      this.result.textContent = `${capital(done.sentence)}.${run}`;
      this.result.hidden = false;
      this.dialog.close();
      this.done();
    } catch (error) {
      if (!(error instanceof Unanswered)) throw error;
      this.problem.textContent = `Not done: ${error.message}.`;
    } finally {
      this.confirm.disabled = false;
    }
  }
}

function tone(act: Act): string {
  if (act.tone === "go") return "busy";
  return act.tone === "back" ? "back" : "bad";
}
