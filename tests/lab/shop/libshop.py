"""What the shop knows: its version, and how a request is answered."""

VERSION = "@VERSION@"
# Of ten requests, those with these last digits fail: a bad release fails at a known rate, not by luck.
FAILING = frozenset((@FAILING@))


def answer(number):
    return 500 if number % 10 in FAILING else 200
