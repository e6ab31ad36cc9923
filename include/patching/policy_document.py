"""A file of the policies folder that is one model (``people.yaml``, ``limits.yaml``); all errors, at their places."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from patching.diagnostics import Diagnostic, PolicyError
from patching.policy_schema_errors import explain
from patching.policy_yaml import Document, read
from patching.value import CamelValue

M = TypeVar("M", bound=CamelValue)


def load_document(file: Path, model: type[M], check: Callable[[M, Document], Iterable[Diagnostic]]) -> M | None:
    """Read a file, None where there is none; raises PolicyError with all errors: broken is not absent."""
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        message = f"the file cannot be read: {error.strerror}"
        raise PolicyError([Diagnostic(path=str(file), line=1, col=1, message=message, rule="file")]) from error
    return parse_document(raw, str(file), model, check)


def parse_document(
    raw: str | bytes, path: str, model: type[M], check: Callable[[M, Document], Iterable[Diagnostic]]
) -> M:
    """Read a model, all of whose fields have defaults, from text; raises PolicyError with all errors.

    Strict, as JSON: a list may become a tuple, but ``no`` never becomes false, nor ``3`` text.
    """
    document = read(raw, path)
    errors = list(document.errors)
    value = model()
    if document.root is not None:
        try:
            value = model.model_validate_json(json.dumps(document.data), strict=True, by_alias=True, by_name=False)
        except ValidationError as error:
            errors.extend(explain(error, model, document))
        errors.extend(check(value, document))
    if errors:
        raise PolicyError(errors)
    return value
