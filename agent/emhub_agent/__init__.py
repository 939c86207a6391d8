"""emhub-agent: follows what processing programs leave on disk and posts it to an EMhub site."""

from __future__ import annotations

from .client import (
    Client,
    Conflict,
    EMhubError,
    ItemError,
    NotAuthorised,
    NotFound,
    Refused,
    Stopped,
    Unreachable,
)

__version__ = "0.1.0"

__all__ = [
    "Client",
    "Conflict",
    "EMhubError",
    "ItemError",
    "NotAuthorised",
    "NotFound",
    "Refused",
    "Stopped",
    "Unreachable",
    "__version__",
]
