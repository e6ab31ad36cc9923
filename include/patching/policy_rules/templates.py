"""Rules about what a policy writes once for all of its targets: placeholders that are known, URLs that can be asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from patching.diagnostics import did_you_mean
from patching.policy_rules.finding import Wrong

PLACEHOLDERS = ("{name}", "{address}")
_TARGET = re.compile(r"\{(name|address|label:[^{}]+)\}")
_BRACES = re.compile(r"\{[^{}]*\}")

Loc = tuple[str | int, ...]


def tells_targets_apart(*texts: str) -> bool:
    """Say whether any of the texts is another one for each target."""
    return any(_TARGET.search(text) for text in texts)


def unknown_placeholders(at: Loc, text: str) -> Iterator[Wrong]:
    """Check that every placeholder is one that is filled in."""
    for found in _BRACES.findall(text):
        if not _TARGET.fullmatch(found):
            yield Wrong(at, f'unknown placeholder "{found}"{did_you_mean(found, PLACEHOLDERS)}', "unknown-placeholder")


def whole_url(at: Loc, url: str) -> Iterator[Wrong]:
    """Check that a URL has a host and no secret."""
    yield from unknown_placeholders(at, url)
    try:
        split = urlsplit(_BRACES.sub("x", url))
    except ValueError as error:
        yield Wrong(at, f"this is not a URL: {error}", "url")
        return
    if split.scheme not in ("http", "https") or not split.netloc:
        yield Wrong(at, f'"{url}" is no http or https URL; write for example http://{{address}}:8080/health', "url")
    elif split.password is not None:
        yield Wrong(at, "the URL contains a password; secrets belong into a connection, never into a file", "secret")
