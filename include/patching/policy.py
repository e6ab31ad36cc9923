"""Policy: what a team wants patched, when, how carefully, and what counts as going wrong.

The YAML form is described in docs/reference/policy.md (generated from these models). Semantic checks that need more
than one field live in ``policy_rules``; positions in the file are found by ``policy_files``.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field

from patching.policy_hooks import ConnectionId, Hook, Notify
from patching.policy_metrics import HttpJsonCheck, SqlCheck
from patching.quantity import Duration, IntOrPercent
from patching.value import CamelValue

API_VERSION = "patching/v1alpha1"

DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]


class Metadata(CamelValue):
    """Name and labels of a policy; the name becomes the DAG id ``patch__<name>``."""

    name: DnsLabel
    labels: dict[str, str] = Field(default_factory=dict)
    description: str = ""


class Driver(CamelValue):
    """Which technology patches the targets, over which connection, with which options of its own."""

    name: str
    connection: ConnectionId
    options: dict[str, Any] = Field(default_factory=dict)


class Requirement(CamelValue):
    """One expression of a Kubernetes label selector."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()


class Selector(CamelValue):
    """A Kubernetes label selector: all parts must hold; an empty one selects every target."""

    match_labels: dict[str, str] = Field(default_factory=dict)
    match_expressions: tuple[Requirement, ...] = ()


class Targets(CamelValue):
    """Which targets: an inventory (a connection id or a file under policies/inventories/) and a selector."""

    inventory: str
    selector: Selector = Selector()
    max_targets: int = Field(default=200, ge=1, le=100_000)


class Accepted(CamelValue):
    """Gates of an irreversible patch that are passed on purpose; each with the sentence of whoever answers for it."""

    without_backup: str | None = None
    without_drill: str | None = None


class IrreversibleRule(CamelValue):
    """Components whose old version does not bring back what was before: a migrated database, firmware, settings."""

    match: tuple[str, ...]
    reason: str
    accept: Accepted = Accepted()


class Patches(CamelValue):
    """Which patches: classes of update, a minimum age since publication, name patterns, and what is irreversible."""

    classes: tuple[Literal["security", "all"], ...] = ("security",)
    min_age: Duration = 0.0
    include: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()
    advisories: str | None = None
    irreversible: tuple[IrreversibleRule, ...] = ()
    security_origins: tuple[str, ...] = ("Debian-Security:*", "*:*-security")


class PriorityTable(CamelValue):
    """Which decision table ranks findings."""

    table: Literal["cisa-bod-26-04", "severity"] = "severity"


class Window(CamelValue):
    """A recurring maintenance window: RFC 5545 recurrence of its days, wall-clock start, and length."""

    rrule: str
    start: Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]
    duration: Duration


class Freeze(CamelValue):
    """Days (both included, in the policy's zone) on which nothing starts."""

    from_: date = Field(alias="from")
    to: date
    reason: str


class Schedule(CamelValue):
    """When work may happen; without windows it may happen at any time, but only when somebody triggers it."""

    timezone: str = "UTC"
    windows: tuple[Window, ...] = ()
    plan_ahead: Duration = 0.0
    freezes: tuple[Freeze, ...] = ()
    on_window_close: Literal["finish-wave", "stop"] = "finish-wave"


class ApprovalWhen(CamelValue):
    """Conditions under which people must approve; any one suffices. Without conditions: always."""

    targets_over: int | None = Field(default=None, ge=0)
    reboots: bool | None = None
    undo_unavailable: bool | None = None


class Approval(CamelValue):
    """Who must approve a plan: ``required`` different people of ``approvers`` (users or groups of people.yaml)."""

    required: int = Field(default=1, ge=0, le=5)
    approvers: tuple[str, ...] = ()
    when: ApprovalWhen | None = None
    timeout: Duration | None = None


class Canary(CamelValue):
    """How many targets go first, for each value of the label ``per`` (or in all)."""

    count: int = Field(default=1, ge=1)
    per: str | None = None


class WaveRule(CamelValue):
    """One wave: a canary, or a size as a cumulative share of the planned targets; then a soak."""

    canary: Canary | None = None
    size: IntOrPercent | None = None
    soak: Duration = 0.0


class FleetBudget(CamelValue):
    """Budgets over all waves of a rollout; without ``failedTargets`` it is twice that of a wave."""

    failed_targets: int | None = Field(default=None, ge=1)
    failed_percent: IntOrPercent | None = None


class SequentialTest(CamelValue):
    """Wald's sequential test of a wave's failure rate: stops as soon as the failures seen speak for the bad rate."""

    acceptable: IntOrPercent = "1%"
    unacceptable: IntOrPercent = "5%"
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    beta: float = Field(default=0.10, gt=0, lt=0.5)


class StopWhen(CamelValue):
    """Budgets that stop launching; failures, unknown, drifted and offline targets are each counted apart."""

    failed_targets: int | None = Field(default=2, ge=1)
    failed_percent: IntOrPercent | None = None
    same_cause: int | None = Field(default=2, ge=1)
    unknown_targets: int = Field(default=1, ge=1)
    drifted_percent: IntOrPercent | None = "20%"
    offline_percent: IntOrPercent | None = None
    fleet: FleetBudget = FleetBudget()
    sequential: SequentialTest | None = SequentialTest()


class RolloutRules(CamelValue):
    """How far, how fast and in which order: failure domain, services, unavailable at once, waves and budgets."""

    failure_domain: str | None = None
    service: str | None = None
    max_unavailable: IntOrPercent = "25%"
    min_healthy: IntOrPercent | None = None
    depends_on: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    waves: tuple[WaveRule, ...] = (
        WaveRule(canary=Canary(), soak=600.0),
        WaveRule(size="10%", soak=600.0),
        WaveRule(size="100%"),
    )
    drill: bool = False
    watch: Duration = 0.0
    stop_when: StopWhen = StopWhen()


class Reboot(CamelValue):
    """Whether a target is rebooted when its patches need it, how long it may take, how many at once."""

    policy: Literal["if-required", "never"] = "if-required"
    timeout: Duration = 900.0
    max_concurrent: int = Field(default=1, ge=1)
    loss_class: str = "hardware"


class Compare(CamelValue):
    """What the patched targets are compared with (the first that has the data) and how much worse is too much."""

    against: tuple[Literal["control", "before", "threshold"], ...] = ("control", "before", "threshold")
    max_relative_increase: IntOrPercent = "50%"
    threshold: IntOrPercent | None = None
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    min_requests: int = Field(default=20, ge=1)
    direction: Literal["increase", "decrease", "either"] = "increase"
    weight: float = Field(default=1.0, gt=0, le=1000)


class PrometheusCheck(CamelValue):
    """A metric in Prometheus; ``$series`` stands for the matchers made from ``series``.

    Either counters: ``requests`` with ``errors``, or with ``good`` (then the rest is errors, as with a histogram's
    bucket); or a gauge: an expression ``query`` with one value a target.
    """

    connection: ConnectionId
    series: dict[str, str] = Field(default_factory=lambda: {"instance": "{name}"})
    errors: str | None = None
    good: str | None = None
    requests: str | None = None
    query: str | None = None
    errors_may_be_missing: bool = False
    before: Duration = 3600.0

    history: ClassVar[bool] = True

    @property
    def gauge(self) -> bool:
        """Whether it has values of its own, instead of two counters."""
        return self.query is not None


Metric: TypeAlias = PrometheusCheck | SqlCheck | HttpJsonCheck
METRIC_KINDS = {"prometheus": "prometheus", "sql": "sql", "httpJson": "http_json"}
"""Kinds of metric as they are written, and the fields of a check."""


class HttpProbe(CamelValue):
    """An HTTP request from the worker to the target; ``url`` may use {name} and {address}."""

    url: str
    status: tuple[int, ...] = (200,)
    contains: str | None = None
    timeout: Duration = 10.0


class CommandProbe(CamelValue):
    """A command on the target that must exit 0."""

    run: str
    sudo: bool = False
    timeout: Duration = 30.0


class UnitProbe(CamelValue):
    """Service units that must be active."""

    active: tuple[str, ...]


class Check(CamelValue):
    """One verification: exactly one of a per-target probe (http, command, unit) or a metric that is compared."""

    name: DnsLabel
    prometheus: PrometheusCheck | None = None
    sql: SqlCheck | None = None
    http_json: HttpJsonCheck | None = None
    http: HttpProbe | None = None
    command: CommandProbe | None = None
    unit: UnitProbe | None = None
    compare: Compare = Compare()
    on_inconclusive: Literal["hold", "ask", "promote"] = "hold"
    critical: bool = True
    dry_run: bool = False

    @property
    def metric(self) -> Metric | None:
        """What is measured, None for a probe."""
        return self.prometheus or self.sql or self.http_json

    def looking_back(self, seconds: float) -> Check:
        """Give the check with a time before of at least so many seconds; a probe has none."""
        kind = next((kind for kind in METRIC_KINDS.values() if getattr(self, kind) is not None), None)
        if kind is None or (metric := getattr(self, kind)).before >= seconds:
            return self
        return self.model_copy(update={kind: metric.model_copy(update={"before": seconds})})


class ErrorBudget(CamelValue):
    """A service level objective whose error budget opens and closes the gates of the waves.

    ``errors`` and ``requests`` are selectors of counters of the whole service; ``objective`` is the share of requests
    that must be good within ``period``.
    """

    name: DnsLabel
    connection: ConnectionId
    objective: IntOrPercent
    period: Duration = 2_592_000.0
    errors: str
    requests: str
    errors_may_be_missing: bool = False


class Emergency(CamelValue):
    """What an emergency run of this policy may pass, and who must approve it."""

    ignore: tuple[Literal["window", "freeze", "error-budget", "min-age"], ...] = ()
    approval: Approval = Approval(required=1)


class Retry(CamelValue):
    """Further tries after an error that time can mend; the wait doubles from try to try up to the longest."""

    times: int = Field(default=2, ge=0, le=9)
    wait: Duration = 20.0
    longest: Duration = 300.0


class OnFailure(CamelValue):
    """What happens to targets that fail or are judged bad."""

    undo: Literal["auto", "never"] = "auto"
    irreversible: Literal["hold", "undo-others"] = "hold"
    quarantine: bool = True
    quarantine_for: Duration = 1_209_600.0
    retry: Retry = Retry()


class PlanRules(CamelValue):
    """How long a plan stays valid, and what a superseded package version means for it."""

    valid_for: Duration | None = None
    on_superseded: Literal["install-planned", "replan"] = "install-planned"


class Spec(CamelValue):
    """The body of a policy; everything but driver and targets has a safe default."""

    mode: Literal["plan", "apply"] = "plan"
    driver: Driver
    targets: Targets
    patches: Patches = Patches()
    priority: PriorityTable = PriorityTable()
    schedule: Schedule = Schedule()
    approval: Approval = Approval()
    rollout: RolloutRules = RolloutRules()
    hooks: tuple[Hook, ...] = ()
    reboot: Reboot = Reboot()
    verify: tuple[Check, ...] = ()
    error_budgets: tuple[ErrorBudget, ...] = ()
    emergency: Emergency = Emergency()
    on_failure: OnFailure = OnFailure()
    plan: PlanRules = PlanRules()
    notify: tuple[Notify, ...] = ()


class Policy(CamelValue):
    """One PatchPolicy document."""

    api_version: Literal["patching/v1alpha1"]
    kind: Literal["PatchPolicy"]
    metadata: Metadata
    spec: Spec

    @property
    def name(self) -> str:
        """Name of the policy."""
        return self.metadata.name

    @property
    def dag_id(self) -> str:
        """DAG id of the policy."""
        return f"patch__{self.metadata.name}"
