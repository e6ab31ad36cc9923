// The documents of the API (schema_version 1); made by include/patching/report/{rollout_view,wave_view,target_view}.py.

export interface RolloutHead {
  id: string;
  policy: string;
  dag_id: string;
  state: string;
  final: boolean;
  emergency: boolean;
  opened_at: string;
  updated_at: string;
  plan_digest: string | null;
  reason: string;
}

export interface Numbers {
  treated_errors: number;
  treated_requests: number;
  reference_errors: number | null;
  reference_requests: number | null;
  treated_share: number | null;
  reference_share: number | null;
  ratio: number | null;
  ratio_low: number | null;
  p_value: number | null;
  evidence?: number | null;
  evidence_needed?: number | null;
  treated_level?: number | null;
  reference_level?: number | null;
}

export interface CheckVerdict {
  name: string;
  verdict: string;
  comparison: string | null;
  numbers: Numbers | null;
  reason: string;
}

export interface Wave {
  index: number;
  canary: boolean;
  targets: number;
  ended: number;
  state: string;
  started_at: string | null;
  soak_seconds: number;
  soak_until: string | null;
  verdict: string | null;
  verdict_at: string | null;
  reason: string;
  checks: CheckVerdict[];
  power: string[];
}

/** Something that a person may do now; `path` is below the API, `body` what is sent with the reason. */
export interface Act {
  act: string;
  label: string;
  says: string;
  tone: string;
  path: string;
  body: Record<string, unknown>;
}

export interface RunToStart {
  dag_id: string;
  conf: Record<string, unknown>;
}

export interface Done {
  sentence: string;
  run?: RunToStart | null;
}

export interface Incident {
  id: string;
  sentence: string;
  cause: string;
  targets: string[];
  opened_at: string;
  runbook: string;
}

export interface Target {
  name: string;
  acts: string[];
  wave: number;
  shown_as: string;
  phase: string;
  detail: string;
  waits_for: string;
  verdict: string | null;
  quarantined: string | null;
  quarantined_until: string | null;
  zone: string;
  change: string;
  reboot: boolean;
  began_at: string | null;
  ended_at: string | null;
  seconds: number | null;
}

export interface Point {
  at: string;
  value: number | null;
}

export interface Plot {
  wave: number;
  check: string;
  title: string;
  unit: "share" | "level";
  canary: Point[];
  control: Point[];
  tolerated: Point[];
  changes: { at: string; label: string }[];
  changed: number;
}

export interface Approval {
  required: number;
  reason: string;
  decided: boolean | null;
  answers: { person: string; decision: string; at: string; comment: string }[];
}

export interface RolloutView {
  schema_version: number;
  as_of: string;
  rollout: RolloutHead;
  headline: string;
  sentence: string;
  standing: string;
  next_steps: string[];
  stop_switch: string | null;
  incident: Incident | null;
  acts: Act[];
  target_acts: Record<string, { label: string; says: string; tone: string }>;
  counts: Record<string, number>;
  approval: Approval;
  waves: Wave[];
  targets: Target[];
  plots: Plot[];
  exclusions: { target: string; code: string; reason: string }[];
  events: { at: string; to: string; reason: string; by: string | null }[];
}

export interface RunWithoutRollout {
  schema_version: number;
  as_of: string;
  rollout: null;
  sentence: string;
}

export interface OverviewLine extends RolloutHead {
  sentence: string;
  standing: string;
  counts: Record<string, number>;
}

export interface Overview {
  schema_version: number;
  as_of: string;
  stop_switch: string | null;
  acts: Act[];
  rollouts: OverviewLine[];
}

export interface StepEntry {
  id: string;
  name: string;
  phase: string;
  generation: number;
  began_at: string;
  ended_at: string | null;
  ok: boolean | null;
  exit_code: number | null;
  detail: string;
  stdout: string;
  stderr: string;
}

export interface TargetView {
  schema_version: number;
  as_of: string;
  target: { target: string; wave: number; shown_as: string; detail: string; waits_for: string };
  planned: {
    labels: Record<string, string>;
    address: string;
    reason: string;
    priority: string;
    reboot: boolean;
    changes: string[];
    advisories: string[];
    undo: string;
    undo_possible: boolean;
    warnings: string[];
  } | null;
  steps: StepEntry[];
  log: { at: string; seq: number; kind: string; text: string }[];
}
