"""The meaning of every field of a policy, by class and field as the YAML file spells it.

The JSON Schema (editor hints) and docs/reference/policy.md are made from it; a test sees to it that no field is
missing. It is data of its own because a task start, which imports the models, has no use for it.
"""

from __future__ import annotations

MEANING: dict[str, dict[str, str]] = {
    "Policy": {
        "apiVersion": "Version of this format.",
        "kind": "Kind of document.",
        "metadata": "Name, labels and description.",
        "spec": "What is patched, when, and how carefully.",
    },
    "Metadata": {
        "name": "Name of the policy, a DNS label; the DAG is called `patch__<name>`.",
        "labels": "Labels for filtering; `owner` becomes the DAG's owner.",
        "description": "One or two sentences for people.",
    },
    "Spec": {
        "mode": "`plan` stops after the plan; `apply` goes on. New policies begin with `plan`.",
        "driver": "Which technology patches the targets.",
        "targets": "Which targets belong to the policy.",
        "patches": "Which patches are wanted.",
        "priority": "How findings are ranked.",
        "schedule": "When work may happen.",
        "approval": "Who must approve a plan.",
        "rollout": "How far and how fast.",
        "hooks": "What is done around the change of each target, in this order; left in reverse order.",
        "reboot": "Whether targets are rebooted when their patches need it.",
        "verify": "What proves that a wave is good; every check must pass.",
        "errorBudgets": "Service level objectives whose error budgets open and close the gates of the waves.",
        "emergency": "What an emergency run of this policy may pass.",
        "onFailure": "What happens to targets that fail or are judged bad.",
        "plan": "How long a plan stays valid.",
        "notify": "Who is told what, once each.",
    },
    "Driver": {
        "name": "Name of the driver: `apt`, or `simulated` for drills.",
        "connection": "Airflow connection with login and key; secrets never stand in a policy.",
        "options": "Options of the driver itself.",
    },
    "Targets": {
        "inventory": "Airflow connection of an inventory, or a file under `policies/inventories/`.",
        "selector": "Kubernetes label selector; empty selects every target of the inventory.",
        "maxTargets": "A plan with more targets is refused: a wrong selector must not patch the whole estate.",
    },
    "Selector": {
        "matchLabels": "Labels that a target must have.",
        "matchExpressions": "Expressions that must hold as well.",
    },
    "Requirement": {
        "key": "Label that is looked at.",
        "operator": "How it is compared.",
        "values": "Values for `In` and `NotIn`; the others take none.",
    },
    "Patches": {
        "classes": "Classes of update: `security` only, or `all`.",
        "minAge": "Minimum time since the fix was published.",
        "include": "Name patterns (`*` and `?`) of components that may be patched.",
        "exclude": "Name patterns of components that are left alone.",
        "advisories": "Path of OSV records, relative to the folder of the policies; without it origins decide.",
        "irreversible": "What cannot be taken back by bringing the old version back; it needs a backup and a drill.",
        "securityOrigins": "Archives (`Label:Suite` patterns) whose updates count as security updates.",
    },
    "IrreversibleRule": {
        "match": "Name patterns (`*` and `?`) of such components.",
        "reason": "Why; it stands in the plan, in the ledger and in the incident.",
        "accept": "Gates that these patches pass on purpose; else a `backup` hook and `rollout.drill` are needed.",
    },
    "Accepted": {
        "withoutBackup": "Why no `backup` hook is needed; it stands in the plan.",
        "withoutDrill": "Why the undo need not be tried on the first canary; it stands in the plan.",
    },
    "PriorityTable": {"table": "Decision table that ranks findings."},
    "Schedule": {
        "timezone": "IANA time zone in which windows and freezes are meant.",
        "windows": "Maintenance windows; without any, work may happen whenever somebody triggers a run.",
        "planAhead": "How long before a window the plan is made and approval is asked for.",
        "freezes": "Days on which nothing starts.",
        "onWindowClose": "`finish-wave` begins a wave only if all of it fits, and then finishes it; `stop` begins a "
        "target only if it fits.",
    },
    "Window": {
        "rrule": "Days, as an RFC 5545 rule such as `FREQ=WEEKLY;BYDAY=TU,WE`; intervals count from 1 January 2024.",
        "start": "Wall-clock time `HH:MM` at which the window opens in the policy's zone.",
        "duration": "How long it is open, in elapsed time.",
    },
    "Freeze": {
        "from": "First day.",
        "to": "Last day.",
        "reason": "Why; shown to everybody whose rollout waits for its end.",
    },
    "Approval": {
        "required": "How many different people must approve, the requester not counted; 0 = nobody.",
        "approvers": "Users, or groups of `policies/people.yaml`; empty = anybody who may approve in Airflow.",
        "when": "Conditions under which approval is needed; without conditions always.",
        "timeout": "How long the question stays open; by default until the window opens.",
    },
    "ApprovalWhen": {
        "targetsOver": "The plan has more targets than this.",
        "reboots": "The plan reboots a target.",
        "undoUnavailable": "The plan has a change that cannot be undone.",
    },
    "RolloutRules": {
        "failureDomain": "Label of targets that fail together, such as a zone; canaries spread over it.",
        "service": "Label that names the service of a target, for `maxUnavailable`, `minHealthy` and `dependsOn`.",
        "maxUnavailable": "Targets of a failure domain, and of a service, that may be unavailable at once; those "
        "already down count.",
        "minHealthy": "Targets of a service (without `service`: of the policy) that always stay healthy.",
        "dependsOn": "Services that are done before a service begins: `web: [db, cache]`; judged with their waves.",
        "waves": "At most eight waves: a canary first, growing sizes, 100% last; by default 1, 10%, 100%.",
        "drill": "Whether the first canary is undone and changed again, as a proof, before anybody else follows.",
        "watch": "How long the metrics are watched for a late regression after the rollout was completed.",
        "stopWhen": "Budgets that stop a wave.",
    },
    "WaveRule": {
        "canary": "Only in the first wave: who goes first.",
        "size": "Share of the planned targets that is done when this wave ends; cumulative.",
        "soak": "How long to watch after the wave before it is judged.",
    },
    "Canary": {"count": "Targets that go first.", "per": "Label; `count` targets for each of its values."},
    "StopWhen": {
        "failedTargets": "Failed targets of a wave that stop it.",
        "failedPercent": "Failed share of those finished that stops it, from the fifth finished target on.",
        "sameCause": "Targets of the whole rollout that failed in the same way and stop it; scattered failures do not.",
        "unknownTargets": "Targets of a wave of which nobody knows how their change ended, that hold it; no undo.",
        "driftedPercent": "Share of those finished that somebody else had changed since planning, and that holds the "
        "wave, from the fifth finished target on; never an undo.",
        "offlinePercent": "Share of a wave's targets that is offline and stops it; counted apart from failures.",
        "fleet": "Budgets over all waves.",
        "sequential": "Sequential test of a wave's failure rate; `null` turns it off.",
    },
    "FleetBudget": {
        "failedTargets": "Failed targets of all waves that stop the rollout; by default twice the wave's.",
        "failedPercent": "Failed share of all finished targets of the rollout that stops it, from the fifth on.",
    },
    "SequentialTest": {
        "acceptable": "Failure rate of a good patch.",
        "unacceptable": "Failure rate of a bad patch; between the two either answer is right.",
        "alpha": "Probability of stopping at the acceptable rate, as Wald's limit is built: at most `alpha/(1-beta)`.",
        "beta": "Probability of calling the unacceptable rate acceptable, as Wald's limit is built.",
    },
    "Hook": {
        "command": "A command on the target.",
        "http": "An HTTP request from the worker.",
        "drain": "`haproxy`: no new sessions for the target's server during its change, over the runtime socket.",
        "silence": "`alertmanager`: alerts of the target are silenced during its change.",
        "connection": "Airflow connection of the load balancer, the Alertmanager or the HTTP service.",
        "backend": "Only for `drain`: the one backend that is drained; by default every one that has the server.",
        "server": "Only for `drain`: name of the target's server in HAProxy, made from `{name}` and `{label:…}`.",
        "wait": "Only for `drain`: how long to wait until the server has no session any more.",
        "onSessionsLeft": "Only for `drain`: sessions left after that time `fail` the target, or it may `proceed`.",
        "matchers": "Only for `silence`: labels and values of the alerts, with `{name}`, `{address}`, `{label:…}`.",
        "atMost": "Only for `silence`: when it ends by itself, should nobody be there any more to end it.",
        "onError": "Only for `drain` and `silence`: `fail` fails the target, `ignore` goes on.",
        "timeout": "Only for `drain` and `silence`: time limit of each exchange with the service.",
        "backup": "Only for `command` and `http`: it makes the backup or snapshot that an irreversible patch needs; "
        "it must succeed, and is not made again of a target in mid-change.",
    },
    "HttpHook": {
        "name": "Name of the hook.",
        "enter": "Request before the change.",
        "leave": "Request after it, whatever happened; only where the one before was attempted.",
        "onError": "`fail` fails the target, `ignore` goes on.",
        "timeout": "Time limit of each request.",
    },
    "HttpCall": {
        "method": "Method; what is no `GET`, `PUT` or `DELETE` is never sent twice, even after a crash.",
        "url": "Path under the connection, such as `/changes`, or a whole URL without one; may contain `{name}`.",
        "body": "JSON document that is sent; its text may contain `{name}`, `{address}` and `{label:…}`.",
        "status": "Accepted status codes.",
    },
    "Notify": {
        "events": "What is told.",
        "connection": "Airflow connection: an HTTP webhook (Slack's too) gets JSON, an SMTP server sends a mail.",
    },
    "CommandHook": {
        "name": "Name of the hook.",
        "enter": "Shell command before the change.",
        "leave": "Shell command after it, whatever happened.",
        "onError": "`fail` fails the target, `ignore` goes on.",
        "timeout": "Time limit of each command.",
    },
    "Reboot": {
        "policy": "`if-required`, or `never` (the finding then stays open as *applied, not active*).",
        "timeout": "Time until the target must be back.",
        "maxConcurrent": "Targets of the policy that may reboot at once.",
        "lossClass": "Label of targets of the same hardware: after one that does not come back from its reboot, no "
        "other of its class begins; one without the label stands for the whole wave.",
    },
    "Check": {
        "name": "Name of the check, a DNS label.",
        "prometheus": "Compare metrics of a Prometheus server.",
        "sql": "Compare values of a database.",
        "httpJson": "Compare a number in the JSON answer of a service.",
        "http": "Send a request to each target.",
        "command": "Run a command on each target.",
        "unit": "Look at service units of each target.",
        "compare": "How what is measured is compared; only with a metric.",
        "onInconclusive": "What happens when there are too few data to decide: `hold` stops and waits, `ask` stops and "
        "says that a person is asked to promote or undo, `promote` goes on. No data at all, from a target or from the "
        "source, and a probe without an answer always hold.",
        "critical": "Whether its alarm undoes; the alarm of a check that is not critical holds.",
        "dryRun": "Whether its answer is only recorded, for trying a check out: it neither holds nor undoes.",
    },
    "PrometheusCheck": {
        "connection": "Airflow connection of the Prometheus server.",
        "series": "How a target is found in the metrics: label and value with `{name}` or `{address}`.",
        "errors": "Counter of errors; `$series` stands for the matchers.",
        "good": "Counter of good requests instead of `errors`: the others are errors. With a histogram's bucket, "
        '`http_request_duration_seconds_bucket{le="0.5",$series}`, those are the slow ones.',
        "requests": "Counter of requests; no request is *no data*, and no data never passes.",
        "errorsMayBeMissing": "Whether the counter of errors appears only with its first error. Otherwise a name that "
        "the server does not know is an error of the plan: a renamed counter would count no error for ever.",
        "query": "Expression of a gauge instead, with one value for each target; it keeps the labels of `series`.",
        "before": "Length of the time before the change: who is alike, how much hosts vary, and what `before` "
        "compares with. Four times the soak is good.",
    },
    "SqlCheck": {
        "connection": "Airflow connection of the database, of type `postgres` or `sqlite`, whose user may only read.",
        "query": "One SELECT of the columns `target`, `time` and `value`. Its parameters are `:targets` (for `IN`), "
        "`:start` and `:end`; they are bound, never written into the text.",
        "target": "What the rows call a target; with `{name}`, `{address}` or `{label:KEY}`.",
        "before": "Length of the time before the change, as for `prometheus`.",
    },
    "HttpJsonCheck": {
        "connection": "Airflow connection of type HTTP; `url` is then a path under its host.",
        "url": "Path under the connection, such as `/status/{name}`, or a whole URL without one.",
        "pointer": "Place of the number in the answer, a JSON Pointer (RFC 6901) such as `/queue/depth`; it and `url` "
        "may contain `{name}`, `{address}` and `{label:KEY}`.",
        "every": "How often it is asked while a wave is applied and soaks; at least 10s.",
        "timeout": "Time limit of each request.",
        "before": "How far back answers from earlier waves are looked at.",
    },
    "Compare": {
        "against": "What patched targets are compared with: the first in the list that has the data.",
        "maxRelativeIncrease": "Relative increase of the error share that is still accepted.",
        "threshold": "Highest accepted share of errors for `threshold`.",
        "alpha": "Accepted probability of calling a good patch bad.",
        "minRequests": "Requests below which there are not enough data.",
        "direction": "Which change is bad: an `increase`, a `decrease`, or `either`.",
        "weight": "Share of the rollout's false-alarm bound, relative to the other metric checks.",
    },
    "HttpProbe": {
        "url": "URL; may contain `{name}` and `{address}`.",
        "status": "Accepted status codes.",
        "contains": "Text that the answer must contain.",
        "timeout": "Time limit.",
    },
    "CommandProbe": {
        "run": "Shell command that must exit 0.",
        "sudo": "Whether it runs as root.",
        "timeout": "Time limit.",
    },
    "UnitProbe": {"active": "Service units that must be active."},
    "ErrorBudget": {
        "name": "Name of the objective, unique within the policy.",
        "connection": "Airflow connection of the Prometheus that counts.",
        "objective": "Share of requests that must be good within the period, such as 99.9%.",
        "period": "Time for which the budget is; at least 7d.",
        "errors": "Selector of the counters of bad requests of the whole service.",
        "requests": "Selector of the counters of all requests of the whole service.",
        "errorsMayBeMissing": "Whether the counter of errors appears only with its first error; otherwise a name that "
        "the server does not know is an error of the plan.",
    },
    "Emergency": {
        "ignore": "What an emergency run may pass: the `window`, a `freeze`, the `error-budget`, the `min-age`; "
        "empty = nothing.",
        "approval": "Who must approve an emergency's plan.",
    },
    "OnFailure": {
        "undo": "`auto` brings targets of a bad wave back by itself; `never` leaves it to people.",
        "irreversible": "A bad wave has targets that cannot be undone: `hold` undoes nothing, `undo-others` undoes "
        "those that can be, service by service; the rollout is held either way.",
        "quarantine": "Whether a target that failed, or cannot be brought back, is left out of later plans.",
        "quarantineFor": "How long it is left out, unless somebody releases it before.",
        "retry": "Further tries after a lost connection or a download that failed; never after a package that failed.",
    },
    "Retry": {
        "times": "Further tries after the first; `0` = none.",
        "wait": "Wait before the second try; it doubles from try to try.",
        "longest": "Longest wait between two tries.",
    },
    "PlanRules": {
        "validFor": "How long a plan may be carried out; by default until the close of the second window.",
        "onSuperseded": "What happens when a planned version was replaced by a newer one in the archive.",
    },
}
