"""What binds bookings of a microscope, as people read it before they book. The rules themselves: bookings/rules.py."""

import datetime

from microscopes.models import Microscope
from people import words


def limits_in_words(microscope: Microscope) -> list[str]:
    """A sentence for each limit that the microscope has; none for none."""
    told = []
    least, most = microscope.min_length_minutes, microscope.max_length_hours
    if least is not None and most is not None:
        told.append(f"A booking takes from {_long(minutes=least)} to {_long(hours=most)}.")
    elif least is not None:
        told.append(f"A booking takes {_long(minutes=least)} at least.")
    elif most is not None:
        told.append(f"A booking takes {_long(hours=most)} at most.")
    if microscope.max_days_ahead is not None:
        told.append(f"It can be booked {_count(microscope.max_days_ahead, 'day')} ahead.")
    change, cancel = microscope.change_notice_hours, microscope.cancel_notice_hours
    if change is not None and change == cancel:
        told.append(f"A booking can be changed and cancelled until {_before(change)}.")
    else:
        if change is not None:
            told.append(f"The time of a booking can be changed until {_before(change)}.")
        if cancel is not None:
            told.append(f"A booking can be cancelled until {_before(cancel)}.")
    if microscope.max_pending is not None:
        where = f" on the microscopes of the group {microscope.group}" if microscope.group else ""
        told.append(f"Everyone has at most {_count(microscope.max_pending, 'booking')} to come{where}.")
    if microscope.requires_application:
        told.append("Every booking is charged to an application.")
    if microscope.requires_slot:
        told.append("It is booked inside the slots that the staff open for your lab.")
    return told


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _long(**length: int) -> str:
    return words.duration(datetime.timedelta(**length))


def _before(hours: int) -> str:
    return "it starts" if hours == 0 else f"{_long(hours=hours)} before it starts"
