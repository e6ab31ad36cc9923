"""Memory: the collector's setting is the process's, so it must be as before, however a wave ends."""

from __future__ import annotations

import gc
import weakref

import pytest

from patching.rollout.memory import THRESHOLDS, seldom_searched


class Knot:
    """Refers to itself, so that only the collector can free it."""

    def __init__(self) -> None:
        self.me = self


def test_setting_is_as_before_after_the_block_and_after_an_error_in_it() -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    with seldom_searched():
        assert gc.get_threshold() == THRESHOLDS
        assert gc.get_freeze_count() > before[1]
    assert (gc.get_threshold(), gc.get_freeze_count()) == before
    with pytest.raises(ValueError, match="wave"), seldom_searched():
        raise ValueError("wave")
    assert (gc.get_threshold(), gc.get_freeze_count()) == before


def test_garbage_of_the_block_is_still_collected_in_it() -> None:
    with seldom_searched():
        knot = Knot()
        gone = weakref.ref(knot)
        del knot
        gc.collect()
        assert gone() is None
