"""Every error that the product raises on purpose.

PatchingError
├── PolicyError                a policy file is refused; carries diagnostics with file, line and column
├── InventoryError             an inventory cannot be read or names nobody
├── AdvisoryError              an advisory feed cannot be read
├── PlanError                  no safe plan exists; says why
├── PlanRefused                a frozen plan is not valid in this release; says where
├── LedgerError
│   ├── LedgerUnavailable      the ledger's database is gone (retryable): nothing new is launched
│   ├── LedgerConflict         the same key was used for something else, or two writers raced
│   ├── LedgerCorrupt          the hash chain does not verify
│   ├── FenceLost              somebody else has taken over: this writer must stop
│   └── TransitionRefused      a rollout may not change from this state to that one
├── ChannelError
│   ├── TargetOffline          no connection (retryable)
│   ├── LoginRefused           the host refused key, agent or password
│   ├── HostKeyUnknown         the host's key is in no known_hosts: the message prints how to accept it
│   └── HostKeyChanged         the host's key differs from the accepted one
├── MetricSourceUnavailable    a metric source gave no usable answer (retryable): the gate holds
│   └── MetricQueryRefused     it refuses the query, and will again
└── ConnectionMissing          a connection id named by a policy does not exist
"""

from __future__ import annotations


class PatchingError(Exception):
    """Base of all errors raised on purpose; ``retryable`` says whether trying again later can help."""

    retryable = False


class InventoryError(PatchingError):
    """An inventory cannot be read, or a selector names nobody."""


class AdvisoryError(PatchingError):
    """An advisory feed cannot be read; the message names the file and the record."""


class PlanError(PatchingError):
    """No safe plan exists for this policy and fleet."""


class PlanRefused(PatchingError):
    """A plan that another release froze is not valid in this one."""


class LedgerError(PatchingError):
    """Something is wrong with the ledger."""


class LedgerUnavailable(LedgerError):
    """The ledger's database cannot be reached: nothing new may be launched until it is back."""

    retryable = True


class LedgerConflict(LedgerError):
    """A key was used before for a different payload."""


class LedgerCorrupt(LedgerError):
    """The hash chain does not verify: an entry was changed, removed or inserted."""


class FenceLost(LedgerError):
    """Another owner holds this work now (its epoch is higher): stop at once."""


class TransitionRefused(LedgerError):
    """The transition table does not allow this change of a rollout's state."""


class ChannelError(PatchingError):
    """A target could not be reached or spoken to."""


class TargetOffline(ChannelError):
    """No connection to the target: offline is a state of its own, never silently dropped."""

    retryable = True


class LoginRefused(ChannelError):
    """The target refused every offered credential."""


class HostKeyUnknown(ChannelError):
    """The target's host key is not known; the message has its fingerprint and the command that accepts it."""


class HostKeyChanged(ChannelError):
    """The target's host key is not the accepted one: possibly another machine answers."""


class MetricSourceUnavailable(PatchingError):
    """A metric source failed or answered nonsense; no data is never a pass."""

    retryable = True


class MetricQueryRefused(MetricSourceUnavailable):
    """A metric source is there and refuses the query, or its answer is none that can be used: it will be so again."""

    retryable = False


class ConnectionMissing(PatchingError):
    """A policy names a connection that is not defined."""
