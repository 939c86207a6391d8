"""How a session's values are written for people."""

from django import template
from django.contrib.humanize.templatetags.humanize import intcomma
from django.utils import timezone
from django.utils.html import format_html

from sessions_app import dashboard
from sessions_app.models import Session, SessionSummary

register = template.Library()

STATUS = {
    Session.Status.PENDING: ("warning", "hourglass-split"),
    Session.Status.ACTIVE: ("success", "record-circle"),
    Session.Status.FINISHED: ("secondary", "check-circle"),
    Session.Status.FAILED: ("danger", "x-octagon"),
    Session.Status.ARCHIVED: ("secondary", "archive"),
}
PROCESSING = {
    SessionSummary.Processing.NONE: ("secondary", "dash-circle"),
    SessionSummary.Processing.QUEUED: ("secondary", "hourglass-split"),
    SessionSummary.Processing.RUNNING: ("success", "activity"),
    SessionSummary.Processing.FINISHED: ("secondary", "check-circle"),
    SessionSummary.Processing.FAILED: ("danger", "x-octagon"),
    SessionSummary.Processing.STOPPED: ("warning", "stop-circle"),
}
RETENTION = {
    "quiet": ("secondary", "clock-history"),
    "open": ("secondary", "clock-history"),
    "warning": ("warning", "exclamation-triangle"),
    "urgent": ("danger", "exclamation-octagon"),
    "due": ("danger", "exclamation-octagon"),
    "deleted": ("secondary", "trash"),
}


def dash(why: str):
    """Unknown, and why."""
    return format_html('<span class="unknown" title="{}">–</span>', why)


@register.simple_tag
def unknown(why: str):
    return dash(why)


@register.simple_tag
def state(kind: str, value: str, label: str = ""):
    """An icon and a word in the state's colour."""
    colour, icon = {"session": STATUS, "processing": PROCESSING, "retention": RETENTION}[kind][value]
    return format_html(
        '<span class="state text-{}-emphasis"><i class="bi bi-{}" aria-hidden="true"></i> {}</span>',
        colour,
        icon,
        label or value,
    )


@register.filter
def retention_colour(level: str) -> str:
    return RETENTION[level][0]


@register.filter
def retention_icon(level: str) -> str:
    return RETENTION[level][1]


@register.simple_tag
def count(value, why: str = "Nothing was reported yet"):
    """A whole number with its thousands apart."""
    return dash(why) if value is None else intcomma(value)


def size_text(size: int) -> tuple[str, str]:
    """Number and unit of a size in bytes, in powers of 1000 as disks are sold: ("1.8", "TB")."""
    units = ["bytes", "kB", "MB", "GB", "TB", "PB"]
    value, unit = float(size), 0
    while value >= 999.5 and unit < len(units) - 1:
        value, unit = value / 1000, unit + 1
    return (f"{value:.1f}" if unit and value < 99.95 else f"{value:.0f}"), units[unit]


@register.simple_tag
def data_size(size, why: str = "The acquisition watcher has not reported yet"):
    if size is None:
        return dash(why)
    number, unit = size_text(size)
    return format_html(
        '<span title="{} bytes">{}&nbsp;<span class="unit">{}</span></span>', intcomma(size), number, unit
    )


@register.simple_tag
def quantity(value, unit: str = "", why: str = "Not known"):
    """A measured value with its unit; up to six significant digits, none made up."""
    if value is None:
        return dash(why)
    text = intcomma(value) if isinstance(value, int) else f"{value:.6g}"
    return format_html('{}&nbsp;<span class="unit">{}</span>', text, unit) if unit else text


@register.simple_tag
def moment(value, why: str = "Not yet"):
    """Local date and time, the day left out when it is today; the exact time on hover."""
    if value is None:
        return dash(why)
    local = timezone.localtime(value)
    today = timezone.localdate()
    if local.date() == today:
        text = f"today {local:%H:%M}"
    elif local.year == today.year:
        text = f"{local.day} {local:%b %H:%M}"
    else:
        text = f"{local.day} {local:%b %Y %H:%M}"
    return format_html(
        '<time datetime="{}" title="{}">{}</time>',
        local.isoformat(timespec="seconds"),
        f"{local:%a} {local.day} {local:%b %Y %H:%M:%S %Z}",
        text,
    )


@register.simple_tag
def until(end):
    """When something ends: "18:00", with the day where it is not today's."""
    return dashboard.clock(end)


@register.simple_tag
def slot_time(slot):
    """ "09:00 to 18:00", with the days where they differ from today's."""
    start, end = timezone.localtime(slot.start), timezone.localtime(slot.end)
    return (
        f"{dashboard.clock(start)} to {end:%H:%M}"
        if start.date() == end.date()
        else f"{dashboard.clock(start)} to {end:%a %H:%M}"
    )


@register.filter
def lab_words(lab) -> str:
    """ "Hall lab" for the lab Hall."""
    return dashboard.lab_words(lab)
