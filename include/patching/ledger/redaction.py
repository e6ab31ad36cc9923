"""Redaction: no secret enters the ledger, because nothing written there can ever be taken out again.

Pure. It works on shapes that secrets have in text (``password=…``, ``Authorization: …``, key blocks, ``user:pw@``)
and on names that secrets have in JSON. It is a net below the rule that secrets travel in connections, not instead.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from patching.value import JsonValue, Value

REDACTED = "[redacted]"
LONGEST = 64 * 1024

# "passwd" is no word here on purpose: it is a Debian package, and "passwd=1:4.13" is a version, not a secret.
_WORDS = r"(?:password|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|authorization)"
# A name ends with one of the words. Names with hyphens only as options or headers: "node-foo-token=1.2" is a package.
_NAME = rf"(?<![\w-])(?:(?:--?|X-)[\w-]*|\w*){_WORDS}"
# A value that starts with "$" is a reference to a secret that is elsewhere, as it should be.
_ASSIGNED = re.compile(rf"(?i)({_NAME}[\"']?\s*[=:]\s*)(\"(?!\$)[^\"\n]+\"|'(?!\$)[^'\n]+'|(?![\"'$\[])[^\s\"'&,;]+)")
_SCHEME = re.compile(r"(?i)\b(authorization[\"']?\s*[:=]\s*[\"']?)(?!\$|\[redacted)[^\s\"'$]+(?:[ \t]+[^\s\"'$]+)?")
_BEARER = re.compile(r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/-]{8,}=*")
_KEY_BLOCK = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----|\Z)", re.S
)
_URL = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,30}://[^\s/:@\"']{0,256}:)(?!\$)[^\s/@\"']{1,1024}@")
# Whatever the patterns above match has one of these in it: most texts have none and are done with at once.
_SUSPECT = re.compile(r"(?i)pass(?:word|phrase)|secret|token|key|authorization|bearer|://")
_SUSPECT_WORDS = ("password", "passphrase", "secret", "token", "key", "authorization", "bearer", "://")
_SECRET_KEY = re.compile(rf"(?i)(?:[\w-]*[_-])?{_WORDS}")


@dataclass(frozen=True)
class Redaction:
    """A cleaned value, and the JSON paths where something was taken out (``$.step.call.script``)."""

    value: JsonValue
    paths: tuple[str, ...]


def redact(value: JsonValue, *, longest: int | None = LONGEST) -> Redaction:
    """Take secrets out of a JSON value and cap its strings at ``longest`` bytes of UTF-8 (None: no cap).

    Redacting twice changes nothing more. Strings become valid Unicode; enums and tuples become plain JSON.
    """
    paths: list[str] = []
    return Redaction(_clean(value, "$", longest, paths), tuple(paths))


def redact_text(text: str) -> str:
    """Take secrets out of one string."""
    if not _suspect(text):
        return text
    text = _KEY_BLOCK.sub(REDACTED, text)
    text = _SCHEME.sub(rf"\g<1>{REDACTED}", text)
    text = _BEARER.sub(rf"\g<1>{REDACTED}", text)
    text = _URL.sub(rf"\g<1>{REDACTED}@", text)
    return _ASSIGNED.sub(rf"\g<1>{REDACTED}", text)


def _suspect(text: str) -> bool:
    """Whether a pattern may match: looking for words is many times as fast, but ``ſ`` is an s only for a pattern."""
    if not text.isascii():
        return _SUSPECT.search(text) is not None
    small = text.lower()
    for word in _SUSPECT_WORDS:  # noqa: SIM110 - any() takes three times as long
        if word in small:
            return True
    return False


def cap(text: str, longest: int = LONGEST) -> str:
    """Shorten a string to ``longest`` bytes of UTF-8: head and tail stay, a marker says how much is gone."""
    if 4 * len(text) <= longest:
        return text
    raw = text.encode()
    if len(raw) <= longest:
        return text
    marker = f"\n[… {len(raw) - longest} of {len(raw)} bytes or a few more left out …]\n"
    room = longest - len(marker.encode())
    head, tail = raw[: room // 2], raw[len(raw) - (room - room // 2) :]
    return head.decode(errors="ignore") + marker + tail.decode(errors="ignore")


def _clean(value: JsonValue, path: str, longest: int | None, paths: list[str]) -> JsonValue:
    if isinstance(value, str):
        return _clean_text(value, path, longest, paths)
    if value is None or isinstance(value, (int, float)):
        return value
    if isinstance(value, Value):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {_valid(str(name)): _clean_member(name, item, path, longest, paths) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item, f"{path}[{index}]", longest, paths) for index, item in enumerate(value)]
    return value


def _clean_member(name: str, item: JsonValue, path: str, longest: int | None, paths: list[str]) -> JsonValue:
    where = f"{path}.{name}"
    hides = isinstance(item, str) and item and not item.startswith("$") and _secret_name(str(name))
    if not hides:
        return _clean(item, where, longest, paths)
    if item != REDACTED:
        paths.append(where)
    return REDACTED


@lru_cache(maxsize=1024)
def _secret_name(name: str) -> bool:
    return _SECRET_KEY.fullmatch(name) is not None


def _clean_text(text: str, path: str, longest: int | None, paths: list[str]) -> str:
    if type(text) is str and text.isascii() and (longest is None or len(text) <= longest) and not _suspect(text):
        return text
    text = _valid(text)
    cleaned = redact_text(text)
    if longest is not None:
        cleaned = cap(cleaned, longest)
    if cleaned != text:
        paths.append(path)
    return cleaned


def _valid(text: str) -> str:
    """Replace lone surrogates (bytes that were no UTF-8), which canonical JSON cannot hold."""
    if text.isascii() and type(text) is str:
        return text
    return text.encode("utf-8", "replace").decode("utf-8")
