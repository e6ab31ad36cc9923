"""Rules about hooks and notifications: one kind each, with its connection, its own keys and something of the target."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

from patching.policy import Spec
from patching.policy_hooks import Hook, HttpCall
from patching.policy_rules.finding import Wrong

KINDS = ("command", "http", "drain", "silence")
_SHARED = {"onError": "on_error", "timeout": "timeout"}
_DRAIN = {"backend": "backend", "server": "server", "wait": "wait", "onSessionsLeft": "on_sessions_left"}
_SILENCE = {"matchers": "matchers", "atMost": "at_most"}
_OWN: dict[str, dict[str, str]] = {"command": {}, "http": {}, "drain": _SHARED | _DRAIN, "silence": _SHARED | _SILENCE}
_KEYS = _SHARED | _DRAIN | _SILENCE
_TARGET = re.compile(r"\{(name|address|label:[^{}]+)\}")

_Loc = tuple[str | int, ...]


def breaches(spec: Spec) -> Iterator[Wrong]:
    """Check every entry of ``hooks`` and ``notify``."""
    titles = Counter(hook.title for hook in spec.hooks)
    for index, hook in enumerate(spec.hooks):
        at: _Loc = ("spec", "hooks", index)
        kinds = [kind for kind in KINDS if getattr(hook, kind) is not None]
        if len(kinds) != 1:
            shown = " and ".join(f'"{kind}"' for kind in kinds) or "none"
            yield Wrong(at, f"a hook needs exactly one of {', '.join(KINDS)}; this one has {shown}", "hook-kind")
            continue
        if titles[hook.title] > 1:
            where = (*at, kinds[0], "name") if hook.named is not None else (*at, "connection")
            yield Wrong(where, f'two hooks are called "{hook.title}"', "duplicate-name")
        yield from _keys(at, kinds[0], hook)
        yield from _connection(at, kinds[0], hook)
        yield from _times(at, kinds[0], hook)
        yield from _target(at, hook)
        yield from _calls(at, hook)
    for index, notify in enumerate(spec.notify):
        if not notify.events:
            message = '"events" is empty, so nothing would be told; name an event such as held'
            yield Wrong(("spec", "notify", index, "events"), message, "empty-list", key=True)


def _keys(at: _Loc, kind: str, hook: Hook) -> Iterator[Wrong]:
    for key, field in _KEYS.items():
        if field in hook.model_fields_set and key not in _OWN[kind]:
            inside = hook.named is not None and key in _SHARED
            hint = f'; write it inside of "{kind}"' if inside else ""
            yield Wrong((*at, key), f'"{key}" means nothing for a hook of kind "{kind}"{hint}', "hook-key", key=True)


def _connection(at: _Loc, kind: str, hook: Hook) -> Iterator[Wrong]:
    if kind in ("drain", "silence") and hook.connection is None:
        message = f'"{kind}" needs the Airflow connection of the service; add for example connection: lb_prod'
        yield Wrong((*at, kind), message, "hook-connection")
    if kind == "command" and hook.connection is not None:
        message = "a command runs on the target, over the driver's connection; leave this key out"
        yield Wrong((*at, "connection"), message, "hook-connection", key=True)


def _times(at: _Loc, kind: str, hook: Hook) -> Iterator[Wrong]:
    inner: _Loc = (*at, kind, "timeout") if hook.named is not None else (*at, "timeout")
    if (hook.named.timeout if hook.named is not None else hook.timeout) <= 0:
        yield Wrong(inner, "a hook needs time; write for example 5m", "zero-timeout")
    if hook.silence and hook.at_most <= 0:
        yield Wrong((*at, "atMost"), "a silence needs time; write for example 2h", "zero-timeout")


def _target(at: _Loc, hook: Hook) -> Iterator[Wrong]:
    """Whoever drains or silences the same thing for every target hides a whole fleet."""
    if hook.drain and not _TARGET.search(hook.server):
        message = '"server" contains neither {name} nor {label:…}, so every target would be the same server'
        yield Wrong((*at, "server"), message, "hook-target")
    if hook.silence and not any(_TARGET.search(value) for value in hook.matchers.values()):
        message = 'no value of "matchers" contains {name}, {address} or {label:…}: alerts of all targets were silenced'
        where: _Loc = (*at, "matchers") if "matchers" in hook.model_fields_set else (*at, "silence")
        yield Wrong(where, message, "hook-target")


def _calls(at: _Loc, hook: Hook) -> Iterator[Wrong]:
    if hook.http is None:
        return
    if hook.http.enter is None and hook.http.leave is None:
        yield Wrong((*at, "http"), 'the hook has neither "enter" nor "leave", so it does nothing', "hook-kind")
    for side in ("enter", "leave"):
        call: HttpCall | None = getattr(hook.http, side)
        if call is not None:
            yield from _call((*at, "http", side), call, hook.connection)


def _call(at: _Loc, call: HttpCall, connection: str | None) -> Iterator[Wrong]:
    if not call.status:
        message = '"status" is empty, so no answer could ever pass; leave the key out'
        yield Wrong((*at, "status"), message, "empty-list", key=True)
    where: _Loc = (*at, "url")
    if connection is not None:
        # Credentials of the connection go to its own host and nowhere else.
        if not call.url.startswith("/") or call.url.startswith("//"):
            message = f'"url" must be a path such as /changes: the host is the one of connection "{connection}"'
            yield Wrong(where, message, "hook-url")
        return
    try:
        split = urlsplit(_TARGET.sub("x", call.url))
    except ValueError as error:
        yield Wrong(where, f"this is not a URL: {error}", "hook-url")
        return
    if split.scheme not in ("http", "https") or not split.netloc:
        yield Wrong(where, "without a connection a whole http or https URL is needed", "hook-url")
    elif split.password is not None:
        yield Wrong(where, "the URL contains a password; secrets belong into a connection, never into a file", "secret")
