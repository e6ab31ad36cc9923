"""Every rule of policy files with a wrong and a right example; the errors page is made from it, tests run all of it."""

from __future__ import annotations

from typing import NamedTuple

HEAD = {
    "apiVersion": "apiVersion: patching/v1alpha1",
    "kind": "kind: PatchPolicy",
    "metadata": "metadata: {name: web}",
}
SPEC = {
    "driver": "driver: {name: apt, connection: ssh_prod}",
    "targets": "targets: {inventory: fleet.yaml}",
}


class Example(NamedTuple):
    """One rule: what it says, a wrong and a right example.

    An example is a part of ``spec``, or, with ``whole``, the whole file. ``wrong_bytes`` is used where the error cannot
    be printed; ``people`` is the people.yaml beside the file; with ``in_people`` the examples are that file.
    """

    meaning: str
    wrong: str
    right: str
    whole: bool = False
    wrong_bytes: bytes | None = None
    people: str | None = None
    in_people: bool = False


def whole_file(part: str) -> str:
    """Complete a part of ``spec`` to a policy file; its top keys replace the ones that are needed anyway."""
    lines = part.strip("\n").splitlines()
    given = {line.split(":")[0] for line in lines if line[:1].strip()}
    spec = [text for key, text in SPEC.items() if key not in given] + lines
    return "\n".join([*HEAD.values(), "spec:", *(f"  {line}" for line in spec)]) + "\n"


_WINDOW = 'schedule:\n  windows: [{{rrule: "{rule}", start: 22:00, duration: {length}}}]'
_WAVES = "rollout:\n  waves:\n    - {{canary: {{count: 1}}, soak: 30m}}\n{rest}    - {{size: 100%}}"
_METRICS = """verify:
  - name: errors
    prometheus:
      connection: prom_prod
      series: {{{series}}}
      errors: '{errors}'
      requests: 'http_requests_total{{$series}}'"""
_GOOD_SERIES = 'instance: "{name}:9100"'
_GOOD_ERRORS = 'http_requests_total{code=~"5..",$series}'
_GOOD_METRICS = _METRICS.format(series=_GOOD_SERIES, errors=_GOOD_ERRORS)
_BUDGET = """errorBudgets:
  - name: availability
    connection: prom_prod
    objective: {objective}
    period: {period}
    errors: 'http_requests_total{{job="shop",code=~"5.."{more}}}'
    requests: 'http_requests_total{{job="shop"}}'"""
_GOOD_BUDGET = _BUDGET.format(objective="99.9%", period="30d", more="")
_ANY = whole_file("mode: plan")


def _sql(query: str) -> str:
    return f"verify:\n  - name: queue\n    sql:\n      connection: shop_db\n      query: {query}"


def _json(more: str) -> str:
    check = f"verify:\n  - name: queue\n    httpJson: {{connection: shop, url: /status, {more}}}"
    waves = "rollout: {waves: [{canary: {count: 1}, soak: 10m}, {size: 100%, soak: 10m}]}"
    return f"{waves}\n{check}"


def _window(rule: str = "FREQ=WEEKLY;BYDAY=TU", length: str = "4h") -> str:
    return _WINDOW.format(rule=rule, length=length)


def _waves(*rest: str) -> str:
    return _WAVES.format(rest="".join(f"    - {wave}\n" for wave in rest))


FILES = {
    "file": Example("The file cannot be read.", "", _ANY, whole=True),
    "yaml-syntax": Example("The file is not YAML.", _ANY.replace("web}", "web"), _ANY, whole=True),
    "yaml-tab": Example("A tab is used for indentation.", "spec:\n\tmode: plan", _ANY, whole=True),
    "yaml-encoding": Example(
        "The file is not UTF-8.",
        "description: für alle   # saved as Latin-1",
        "description: für alle   # saved as UTF-8",
        whole=True,
        wrong_bytes=_ANY.replace("web", "für").encode("latin-1"),
    ),
    "yaml-control-character": Example(
        "The file contains a character that YAML does not allow.",
        r"metadata: {name: web\x07}",
        _ANY,
        whole=True,
        wrong_bytes=_ANY.replace("web", "web\x07").encode(),
    ),
    "yaml-empty": Example("The file has no document.", "# only a comment", _ANY, whole=True),
    "yaml-documents": Example("The file has a second document.", _ANY + "---\n" + _ANY, _ANY, whole=True),
    "yaml-size": Example(
        "The file has more than one megabyte.", "# a very long file", _ANY, True, wrong_bytes=b"#" * (2 << 20)
    ),
    "yaml-depth": Example("Nested too deeply.", "spec: " + "[" * 50 + "]" * 50, _ANY, whole=True),
    "yaml-alias": Example("An alias refers to no anchor.", "metadata: *common", _ANY, whole=True),
    "yaml-alias-bomb": Example(
        "Aliases expand to too many values, or contain themselves.", "metadata: &a {labels: *a}", _ANY, whole=True
    ),
    "yaml-key": Example("A key is not text.", "metadata: {name: web, labels: {1: x}}", _ANY, whole=True),
    "yaml-number": Example(
        "A number cannot be stored exactly.",
        "rollout: {maxUnavailable: 12345678901234567890}",
        "rollout: {maxUnavailable: 12}",
    ),
    "yaml-tag": Example("A tag asks for more than plain data.", "mode: !!python/name:os.system x", "mode: plan"),
    "duplicate-key": Example("A key appears twice in one mapping.", "mode: plan\nmode: apply", "mode: apply"),
    "duplicate-name": Example(
        "Two policies, two checks or two hooks have one name.",
        "verify:\n  - {name: up, unit: {active: [nginx]}}\n  - {name: up, unit: {active: [cron]}}",
        "verify:\n  - {name: web-up, unit: {active: [nginx]}}\n  - {name: cron-up, unit: {active: [cron]}}",
    ),
    "unknown-key": Example("A key is not known here.", "rollout: {maxUnavailble: 2}", "rollout: {maxUnavailable: 2}"),
    "missing-key": Example("A required key is missing.", "driver: {name: apt}", SPEC["driver"]),
    "wrong-type": Example("A value has another type.", 'reboot: {maxConcurrent: "2"}', "reboot: {maxConcurrent: 2}"),
    "unknown-value": Example("A value is not one of those allowed.", "mode: aply", "mode: apply"),
    "invalid-value": Example("A value has the wrong form.", "reboot: {timeout: 15}", "reboot: {timeout: 15m}"),
    "out-of-range": Example(
        "A number is too small or too large.", "approval: {required: 9}", "approval: {required: 2}"
    ),
    "dns-label": Example("A name is no DNS label.", _ANY.replace("web", "Web_1"), _ANY, whole=True),
}

MEANINGS = {
    "unknown-driver": Example(
        "There is no such driver.",
        "driver: {name: atp, connection: ssh_prod}",
        "driver: {name: apt, connection: ssh_prod}",
    ),
    "selector-values": Example(
        "`In` and `NotIn` need values; `Exists` and `DoesNotExist` take none.",
        "targets:\n  inventory: fleet.yaml\n  selector: {matchExpressions: [{key: role, operator: In}]}",
        "targets:\n  inventory: fleet.yaml\n  selector: {matchExpressions: [{key: role, operator: In, values: [web]}]}",
    ),
    "empty-list": Example(
        "A list is empty that makes the rest pointless.", "patches: {classes: []}", "patches: {classes: [security]}"
    ),
    "unknown-timezone": Example(
        "There is no such IANA time zone.", "schedule: {timezone: Europe/Berln}", "schedule: {timezone: Europe/Berlin}"
    ),
    "window-rule": Example(
        "The recurrence rule is not usable for days.", _window("FREQ=WEEKLY;BYDAY=TUE"), _window("FREQ=WEEKLY;BYDAY=TU")
    ),
    "window-duration": Example("The window has no length.", _window(length="0s"), _window(length="4h")),
    "window-never": Example(
        "The window never opens in the next five years.",
        _window("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30"),
        _window("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=28"),
    ),
    "window-overlap": Example(
        "The window is still open when it opens again.", _window("FREQ=DAILY", "30h"), _window("FREQ=DAILY", "4h")
    ),
    "window-frozen": Example(
        "Freezes cover every window.",
        _window() + '\n  freezes: [{from: "2000-01-01", to: "2099-12-31", reason: quiet}]',
        _window() + '\n  freezes: [{from: "2026-12-18", to: "2027-01-04", reason: year-end}]',
    ),
    "freeze-order": Example(
        "A freeze ends before it begins.",
        'schedule: {freezes: [{from: "2027-01-04", to: "2026-12-18", reason: year-end}]}',
        'schedule: {freezes: [{from: "2026-12-18", to: "2027-01-04", reason: year-end}]}',
    ),
    "max-unavailable": Example(
        "Nothing may be unavailable, so nothing could be patched.",
        "rollout: {maxUnavailable: 0}",
        "rollout: {maxUnavailable: 1}",
    ),
    "canary-first": Example(
        "The first wave, and only the first, is a canary.", "rollout: {waves: [{size: 100%}]}", _waves()
    ),
    "wave-kind": Example(
        "A wave has either a canary or a size.", _waves("{soak: 10m}"), _waves("{size: 10%, soak: 10m}")
    ),
    "wave-order": Example(
        "Sizes are cumulative and must grow.",
        _waves("{size: 50%}", "{size: 20%}"),
        _waves("{size: 20%}", "{size: 50%}"),
    ),
    "last-wave": Example(
        "The last wave must be 100%, or targets would be left out.",
        "rollout:\n  waves:\n    - {canary: {count: 1}, soak: 30m}\n    - {size: 50%}",
        _waves("{size: 50%}"),
    ),
    "dependency-cycle": Example(
        "Services wait for each other in a circle.",
        "rollout:\n  dependsOn:\n    web: [db]\n    db: [web]",
        "rollout:\n  dependsOn:\n    web: [db]",
    ),
    "too-many-waves": Example(
        "At most eight waves are possible.",
        _waves(*(f"{{size: {number}0%}}" for number in range(1, 8))),
        _waves("{size: 10%}", "{size: 50%}"),
    ),
    "needs-percent": Example(
        "A share is written as a number.",
        "rollout: {stopWhen: {failedPercent: 5}}",
        "rollout: {stopWhen: {failedPercent: 5%}}",
    ),
    "sequential-rates": Example(
        "The two failure rates of the sequential test must differ, the acceptable one being the lower.",
        "rollout: {stopWhen: {sequential: {acceptable: 5%, unacceptable: 5%}}}",
        "rollout: {stopWhen: {sequential: {acceptable: 1%, unacceptable: 5%}}}",
    ),
    "zero-timeout": Example("A time limit is zero.", "reboot: {timeout: 0s}", "reboot: {timeout: 15m}"),
    "hook-kind": Example(
        "A hook needs exactly one kind.",
        "hooks: [{connection: lb_prod}]",
        "hooks: [{drain: haproxy, connection: lb_prod}]",
    ),
    "hook-key": Example(
        "A key belongs to another kind of hook.",
        'hooks: [{drain: haproxy, connection: lb_prod, matchers: {instance: "{name}"}}]',
        "hooks: [{drain: haproxy, connection: lb_prod, backend: shop}]",
    ),
    "hook-connection": Example(
        "A hook lacks the connection of its service, or has one that nothing uses.",
        "hooks: [{drain: haproxy}]",
        "hooks: [{drain: haproxy, connection: lb_prod}]",
    ),
    "hook-target": Example(
        "A hook would do the same thing for every target.",
        "hooks: [{silence: alertmanager, connection: alerts, matchers: {job: shop}}]",
        'hooks: [{silence: alertmanager, connection: alerts, matchers: {instance: "{address}:9100"}}]',
    ),
    "hook-url": Example(
        "A request needs a path with a connection, or a whole URL without one.",
        "hooks: [{http: {name: tell, enter: {url: /changes}}}]",
        "hooks: [{http: {name: tell, enter: {url: /changes}}, connection: change_board}]",
    ),
    "hook-backup": Example(
        "A backup that may fail, or that is not made before the change, is none.",
        "hooks: [{command: {name: dump, enter: dump-all, onError: ignore}, backup: true}]",
        "hooks: [{command: {name: dump, enter: dump-all}, backup: true}]",
    ),
    "irreversible-gate": Example(
        "What cannot be taken back needs a backup hook and a drill, or the reason why it is right without.",
        'patches: {irreversible: [{match: ["postgresql-*"], reason: its data are migrated}]}',
        """\
hooks: [{command: {name: dump, enter: dump-all}, backup: true}]
rollout: {drill: true}
patches: {irreversible: [{match: ["postgresql-*"], reason: its data are migrated}]}""",
    ),
    "irreversible-reason": Example(
        "Somebody has to decide by this reason: it is not empty.",
        """\
patches:
  irreversible:
    - {match: ["fwupd*"], reason: "", accept: {withoutBackup: spare hosts, withoutDrill: spare hosts}}""",
        """\
patches:
  irreversible:
    - {match: ["fwupd*"], reason: a fuse is blown, accept: {withoutBackup: spare hosts, withoutDrill: spare hosts}}""",
    ),
    "approval-required": Example(
        "More people must approve than there are, or nobody although approvers are given.",
        "approval: {required: 0, approvers: [alice]}",
        "approval: {required: 1, approvers: [alice]}",
    ),
    "unknown-approver": Example(
        "An approver is not in people.yaml.",
        "approval: {approvers: [sre-lead]}",
        "approval: {approvers: [sre-leads]}",
        people="groups: {sre-leads: [alice, bob]}\n",
    ),
    "empty-group": Example(
        "A group of people.yaml has nobody in it.",
        "groups: {sre-leads: []}",
        "groups: {sre-leads: [alice]}",
        in_people=True,
    ),
    "nested-group": Example(
        "A group of people.yaml contains a group.",
        "groups: {leads: [alice], all: [leads, bob]}",
        "groups: {leads: [alice], all: [alice, bob]}",
        in_people=True,
    ),
    "check-kind": Example(
        "A check needs exactly one kind.", "verify: [{name: up}]", "verify: [{name: up, unit: {active: [nginx]}}]"
    ),
    "url": Example(
        "This is no http or https URL.",
        'verify: [{name: up, http: {url: "{address}:8080"}}]',
        'verify: [{name: up, http: {url: "http://{address}:8080/"}}]',
    ),
    "secret": Example(
        "A secret stands in the file.",
        'verify: [{name: up, http: {url: "http://me:pass@{address}/"}}]',
        'verify: [{name: up, http: {url: "http://{address}/"}}]',
    ),
    "unknown-placeholder": Example(
        "A placeholder is not known.",
        'verify: [{name: up, http: {url: "http://{adress}/"}}]',
        'verify: [{name: up, http: {url: "http://{address}/"}}]',
    ),
    "no-series": Example(
        "A query would measure the whole fleet.",
        _METRICS.format(series=_GOOD_SERIES, errors='http_requests_total{code=~"5.."}'),
        _GOOD_METRICS,
    ),
    "objective": Example(
        "An objective is a share between 0 and 100 percent, and leaves a budget.",
        _BUDGET.format(objective="100%", period="30d", more=""),
        _GOOD_BUDGET,
    ),
    "budget-period": Example(
        "The period of an error budget must hold the windows in which burn rates are measured.",
        _BUDGET.format(objective="99.9%", period="1d", more=""),
        _GOOD_BUDGET,
    ),
    "budget-series": Example(
        "An error budget is about the whole service, not about single targets.",
        _BUDGET.format(objective="99.9%", period="30d", more=",$series"),
        _GOOD_BUDGET,
    ),
    "check-metric": Example(
        "A metric is two counters or one gauge.",
        _GOOD_METRICS + "\n      query: 'queue_length{$series}'",
        _GOOD_METRICS,
    ),
    "same-series": Example(
        "Every target would have the same metrics.",
        _METRICS.format(series="job: shop", errors=_GOOD_ERRORS),
        _GOOD_METRICS,
    ),
    "canary-soak": Example(
        "The canary does not soak, but metrics shall judge it.",
        _GOOD_METRICS + "\nrollout:\n  waves:\n    - {canary: {count: 1}}\n    - {size: 100%}",
        _GOOD_METRICS + "\n" + _waves(),
    ),
    "sql-query": Example(
        "A query is no single SELECT with the parameters `:targets`, `:start` and `:end`.",
        _sql("SELECT host AS target, at AS time, depth AS value FROM queue WHERE host IN :hosts"),
        _sql("SELECT host AS target, at AS time, depth AS value FROM queue WHERE host IN :targets AND at > :start"),
    ),
    "json-pointer": Example(
        "The place of a number is no JSON Pointer (RFC 6901).",
        _json("pointer: '$.hosts.{name}.depth'"),
        _json("pointer: '/hosts/{name}/depth'"),
    ),
    "poll-every": Example(
        "A service is asked too often, or its answer is waited for too long.",
        _json("pointer: '/hosts/{name}/depth', every: 2s"),
        _json("pointer: '/hosts/{name}/depth', every: 30s"),
    ),
    "poll-soak": Example(
        "A wave soaks for fewer values than a check needs that is asked during the rollout.",
        _json("pointer: '/hosts/{name}/depth', every: 5m"),
        _json("pointer: '/hosts/{name}/depth', every: 1m"),
    ),
    "no-history": Example(
        "What is asked only during the rollout has no time before its first wave, and none after its end.",
        _json("pointer: '/hosts/{name}/depth'") + "\n    compare: {against: [before]}",
        _json("pointer: '/hosts/{name}/depth'") + "\n    compare: {against: [control, before]}",
    ),
    "check-compare": Example(
        "Only metrics are compared.",
        "verify: [{name: up, unit: {active: [nginx]}, compare: {alpha: 0.01}}]",
        "verify: [{name: up, unit: {active: [nginx]}}]",
    ),
    "check-threshold": Example(
        "A threshold is listed but not given, or given but not listed.",
        _GOOD_METRICS + "\n    compare: {against: [control, threshold]}",
        _GOOD_METRICS + "\n    compare: {against: [control, threshold], threshold: 2%}",
    ),
}

EXAMPLES: dict[str, Example] = FILES | MEANINGS
