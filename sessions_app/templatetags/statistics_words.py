"""How medians are written on pages of statistics and samples."""

from django import template

from people import words
from people.templatetags.emhub import dash, with_unit
from sessions_app.merging import Quantile
from sessions_app.statistics import Quality

register = template.Library()


@register.filter
def beside(medians, qualities) -> list[tuple]:
    """Each quality with its median."""
    return list(zip(qualities, medians, strict=True))


@register.simple_tag
def median_of(median: Quantile | None, quality: Quality, unit: bool = True):
    """A median of merged histograms; beyond their edges only the edge is known."""
    if median is None:
        return dash("No session that is over has it")
    text = f"{median.bound}{words.number(median.value, quality.decimals)}"
    return with_unit(text, quality.unit if unit else "", "")


@register.simple_tag
def own_median(row: dict, quality: Quality):
    """Of one session, as the rows of statistics have it."""
    return words.number(row[f"summary__{quality.column}"], quality.decimals)


@register.simple_tag
def session_median(session, quality: Quality):
    value = getattr(session.summary, quality.column)
    if value is None:
        why = "Not measured" if session.summary.completed_at else "Computed when the session is over"
        return dash(why)
    return words.number(value, quality.decimals)


@register.simple_tag
def percent(share: float | None):
    return dash("Nothing was booked") if share is None else words.percent(share)
