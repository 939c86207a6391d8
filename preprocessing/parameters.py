"""A run's parameters as they come back from the database."""

import json

LARGEST, SMALLEST = 2**64 - 1, -(2**63)


def _whole(text: str) -> int | float:
    """PostgreSQL writes 1e30 out in digits; what no program reads as a whole number is the float that it was."""
    value = int(text) if len(text) <= 20 else float(text)
    return value if SMALLEST <= value <= LARGEST else float(value)


class ParametersDecoder(json.JSONDecoder):
    """JSON whose whole numbers have at most 64 bits."""

    def __init__(self, **options):
        super().__init__(**{**options, "parse_int": _whole})
