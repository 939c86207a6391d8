"""How a session's own matters are written; values, times and states are in people's library `emhub`."""

from django import template
from django.contrib.humanize.templatetags.humanize import intcomma
from django.utils import timezone
from django.utils.html import format_html

from people import words
from people.templatetags.emhub import dash
from sessions_app import dashboard

register = template.Library()

RETENTION = {
    "quiet": ("secondary", "clock-history"),
    "open": ("secondary", "clock-history"),
    "warning": ("warning", "exclamation-triangle"),
    "urgent": ("danger", "exclamation-octagon"),
    "due": ("danger", "exclamation-octagon"),
    "deleted": ("secondary", "trash"),
}


@register.filter
def retention_colour(level: str) -> str:
    return RETENTION[level][0]


@register.filter
def retention_icon(level: str) -> str:
    return RETENTION[level][1]


@register.simple_tag
def kept(retention):
    """How long the images are kept, as an icon and words."""
    colour, icon = RETENTION[retention.level]
    return format_html(
        '<span class="state text-{}-emphasis"><i class="bi bi-{}" aria-hidden="true"></i> {}</span>',
        colour,
        icon,
        retention.text,
    )


@register.simple_tag
def quantity(value, unit: str = "", why: str = "Not known"):
    """A setting with its unit as it was entered: up to six significant digits, none added."""
    if value is None:
        return dash(why)
    text = intcomma(value) if isinstance(value, int) else f"{value:.6g}"
    return format_html('{}&nbsp;<span class="unit">{}</span>', text, unit) if unit else text


@register.simple_tag
def until(end):
    """When something ends: "18:00", with the day where it is not today's."""
    return dashboard.clock(end)


@register.simple_tag
def slot_time(slot):
    """ "09:00 to 18:00", with the days where they differ from today's."""
    start, end = timezone.localtime(slot.start), timezone.localtime(slot.end)
    same_day = start.date() == end.date()
    return (
        f"{dashboard.clock(start)} to {words.clock(end)}"
        if same_day
        else f"{dashboard.clock(start)} to {end:%a} {words.clock(end)}"
    )


@register.filter
def lab_words(lab) -> str:
    """ "Hall lab" for the lab Hall."""
    return dashboard.lab_words(lab)
