"""Finishing and deleting a session, and the hooks by which a higher app says what would be lost and acts."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Loss:
    """Something that goes when a session is deleted: `count` of `what` (a plural, for instance "micrographs")."""

    what: str
    count: int


LossCounter = Callable[[object], list[Loss]]
Deleter = Callable[[object], None]

_loss_counters: list[LossCounter] = []
_deleters: list[Deleter] = []


def register(*, count: LossCounter, delete: Deleter) -> None:
    """For a higher app's `ready()`: `count(session)` tells what would go, `delete(session)` removes it.

    `delete` runs inside the deletion's transaction, before the session's row goes; work on files belongs into
    `transaction.on_commit`.
    """
    _loss_counters.append(count)
    _deleters.append(delete)


def losses(session) -> list[Loss]:
    """Everything that goes with the session, for the confirmation to name."""
    return [loss for counter in _loss_counters for loss in counter(session)]
