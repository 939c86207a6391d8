"""Hooks by which a higher app puts a part of its own on everyone's page (people:profile)."""

from collections.abc import Callable
from dataclasses import dataclass

ContextMaker = Callable[[object], dict]


@dataclass(frozen=True)
class Section:
    """A template with its heading, and what `context(request)` gives it beside the page's own context."""

    template: str
    context: ContextMaker


_sections: list[Section] = []


def register(template: str, context: ContextMaker) -> None:
    """For a higher app's `ready()`. Sections stand in the order in which they were registered."""
    section = Section(template, context)
    if section not in _sections:
        _sections.append(section)


def sections(request) -> list[dict]:
    """Each section's template and context for this request."""
    return [{"template": section.template, **section.context(request)} for section in _sections]
