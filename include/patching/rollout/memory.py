"""Memory: while a wave is worked on, Python looks less often for garbage, and not among what was there before."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = (20_000, 20, 50)
"""Objects made before a young collection, and young ones before an older one: Python's own are for small programs."""


@contextmanager
def seldom_searched() -> Iterator[None]:
    """Collect garbage more seldom until the end of the block; what exists at its begin is left out.

    A wave makes few cycles and many objects that live as long as a connection, beside some hundred thousand of the
    libraries that live for ever: searching all of them again and again costs a worker up to a tenth of its CPU.
    The setting is the process's. Source: ``gc.freeze``, Python's library reference.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
