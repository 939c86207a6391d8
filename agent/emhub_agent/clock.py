"""The microscope computer's clock, whose files give times without an offset."""

from __future__ import annotations

from datetime import datetime, timezone
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError


class Clock:
    """Local time of one zone (an IANA name as ``Europe/Stockholm``); without a name, of this machine.

    Raises ValueError for a name that is no zone.
    """

    def __init__(self, name: str | None = None):
        self.zone: ZoneInfo | None = None
        if name:
            try:
                self.zone = ZoneInfo(name)
            except (ZoneInfoNotFoundError, ValueError, OSError) as error:
                raise ValueError(f"{name} is no time zone; write one as Europe/Stockholm or UTC.") from error

    def moment(self, local: datetime, near: float | None = None) -> datetime | None:
        """Return a time in UTC; one that has an offset keeps its moment. None for one out of all bounds.

        Of an hour that comes twice (clocks set back) the occurrence nearer to ``near`` (seconds since 1970,
        the time of the file) is taken, without it the first. An hour that does not exist (clocks set forward)
        is that of a clock that was not set yet: it counts by the offset before the change.
        """
        try:
            if local.tzinfo is not None:
                return local.astimezone(timezone.utc)
            first, second = (self._at(local.replace(fold=fold)) for fold in (0, 1))
            if near is None or second <= first:
                return first
            return min((first, second), key=lambda moment: abs(moment.timestamp() - near))
        except (OverflowError, ValueError, OSError):
            return None

    def _at(self, local: datetime) -> datetime:
        if self.zone is not None:
            local = local.replace(tzinfo=self.zone)
        return local.astimezone(timezone.utc)
