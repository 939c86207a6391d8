"""What may stand behind an address's question mark."""

from collections.abc import Collection

from rest_framework import exceptions


def check_parameters(request, known: Collection[str], because: str = "") -> None:
    """Refuse parameters that the call does not know or that are given twice, each by name.

    A misspelt one would otherwise do something else than was asked for, and nobody would be told. `because` is said
    of unknown ones.
    """
    given = request.query_params
    if unknown := sorted(set(given) - set(known)):
        words = f"There is no such parameter here. {because}".strip()
        raise exceptions.ValidationError({name: [words] for name in unknown})
    if twice := sorted(name for name in given if len(given.getlist(name)) > 1):
        raise exceptions.ValidationError({name: ["Give this parameter once."] for name in twice})
