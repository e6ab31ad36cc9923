"""Rules about selectors and about which patches are wanted."""

from __future__ import annotations

from collections.abc import Iterator

from patching.policy import Spec
from patching.policy_rules.finding import Wrong


def breaches(spec: Spec) -> Iterator[Wrong]:
    """Check the selector's expressions, the inventory's name, and that some patches are wanted."""
    at = ("spec", "targets", "selector", "matchExpressions")
    for index, item in enumerate(spec.targets.selector.match_expressions):
        listed = item.operator in ("In", "NotIn")
        if listed and not item.values:
            message = f'"{item.operator}" needs values, for example values: [web]'
            yield Wrong((*at, index, "operator"), message, "selector-values")
        if not listed and item.values:
            message = (
                f'"{item.operator}" takes no values; did you mean "{"In" if item.operator == "Exists" else "NotIn"}"?'
            )
            yield Wrong((*at, index, "values"), message, "selector-values", key=True)
    if not spec.targets.inventory.strip():
        message = "the inventory has no name; give a connection id or a file under policies/inventories/"
        yield Wrong(("spec", "targets", "inventory"), message, "empty-list")
    for key, values in (("classes", spec.patches.classes), ("include", spec.patches.include)):
        if not values:
            message = f'"{key}" is empty, so no patch is wanted; leave the key out for the default'
            yield Wrong(("spec", "patches", key), message, "empty-list", key=True)
