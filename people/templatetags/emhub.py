"""`{% load emhub %}`: how values, people, states and lists are written on every page.

Unknown values (None, "", NaN, infinity) become an en dash whose title says why: give the reason as `why`.

Values, as tags so that they take a unit and a reason::

    {% num session.data_movies why="The watcher has not reported yet" %}          12,480
    {% num session.pixel_size "Å" digits=3 %}   three significant digits            0.832 Å
    {% num microscope.voltage_kv "kV" decimals=0 %}                                300 kV
    {% angstrom row.ctf_resolution why="No CTF yet" %}                              3.4 Å
    {% defocus row.defocus_u %}                 given in Å, shown in µm             1.42 µm
    {% bytes session.data_bytes %}              exact number on hover               1.8 TB
    {% duration left %}                         timedelta or seconds                3 h 20 min
    {% unknown "No pipeline yet" %}                                                 –

Times, local, with the exact one on hover::

    {% ago run.last_seen_at why="..." %}        ages while the page is open         4 min ago
    {% moment session.start %}                  weekday=False: without it           Mon 23 Nov 09:02
    {% when booking.start booking.end %}                                            Mon 23 Nov 09:00–18:00

People, microscopes and states::

    {% person user %}                           initials and name; chip=False: the name alone
    {% scope microscope %}                      its colour and name
    {% badge "session" session.status %}        icon and word on a ground; kinds: STATES below
    {% state "processing" summary.processing %} icon and word in the line's flow

Parts of pages::

    {% crumbs "Sessions" "sessions:list" session.name %}      label and URL name (or address) in turn, last: here
    {% note "warning" %}...{% endnote %}        quiet, info, success, warning, danger
    {% empty_state "No sessions yet" "What to do next." icon="collection" url=url action="Book" %}
    {% sort_header "start" "Start" numeric=True %}   a <th> with a link that keeps the filters (?sort=-start)
    {% pagination page_obj "sessions" %}        "51 to 100 of 1,234 sessions", links keep the filters
    {{ server.instructions|markdown }}          Markdown, sanitised

`sort_header` and `pagination` need `request` in the context; for other links Django's own {% querystring %} serves.
"""

from dataclasses import dataclass

import markdown as markdown_package
import nh3
from django import template
from django.urls import reverse
from django.utils import timezone
from django.utils.html import conditional_escape, format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe

from people import words

register = template.Library()


# -- Values ----------------------------------------------------------------------------------------------------
def dash(why: str) -> SafeString:
    return format_html('<span class="unknown" title="{}">–</span>', why or "Not known")


def with_unit(text: str | None, unit: str, why: str) -> SafeString:
    if text is None:
        return dash(why)
    if not unit:
        return conditional_escape(text)
    # No space before a percent or degree sign.
    gap = "" if unit in ("%", "°") else words.NBSP
    return format_html('<span class="text-nowrap">{}{}<span class="unit">{}</span></span>', text, gap, unit)


@register.simple_tag
def unknown(why: str = ""):
    return dash(why)


@register.simple_tag
def num(value, unit: str = "", *, decimals: int | None = None, digits: int | None = None, why: str = ""):
    """A number with thousands apart; `decimals` after the point, or `digits` significant ones."""
    text = words.significant(value, digits) if digits else words.number(value, decimals)
    return with_unit(text, unit, why)


@register.simple_tag
def angstrom(value, *, decimals: int = 1, why: str = ""):
    return with_unit(words.number(value, decimals), "Å", why)


@register.simple_tag
def defocus(value, *, decimals: int = 2, why: str = ""):
    """Given in Å (underfocus positive), shown in µm."""
    return with_unit(words.number(words.micrometres(value), decimals), "µm", why)


@register.simple_tag(name="bytes")
def bytes_tag(value, *, why: str = ""):
    size = words.size(value)
    if size is None:
        return dash(why)
    return format_html('<span title="{} bytes">{}</span>', words.number(int(value)), with_unit(*size, why))


@register.simple_tag
def duration(value, *, why: str = ""):
    text = words.duration(value)
    return dash(why) if text is None else text


# -- Times -----------------------------------------------------------------------------------------------------
def time_element(moment, text: str, *, relative: bool = False) -> SafeString:
    return format_html(
        '<time datetime="{}" title="{}"{}>{}</time>',
        timezone.localtime(moment).isoformat(timespec="seconds"),
        words.exact(moment),
        mark_safe(" data-relative") if relative else "",
        text,
    )


@register.simple_tag
def ago(value, *, why: str = "Not yet"):
    return dash(why) if value is None else time_element(value, words.relative(value), relative=True)


@register.simple_tag
def moment(value, *, weekday: bool = True, why: str = "Not yet"):
    if value is None:
        return dash(why)
    local = timezone.localtime(value)
    return time_element(value, f"{words.day(local.date(), weekday=weekday)} {words.clock(local)}")


@register.simple_tag
def when(start, end):
    title = f"{words.exact(start)} to {words.exact(end)} ({words.duration(end - start)})"
    return format_html('<span class="num" title="{}">{}</span>', title, words.span(start, end))


# -- People, microscopes, states -------------------------------------------------------------------------------
@register.simple_tag
def person(user, *, chip: bool = True, why: str = "Nobody was named"):
    if user is None:
        return dash(why)
    if not chip:
        return conditional_escape(str(user))
    return format_html(
        '<span class="person"><span class="initials" aria-hidden="true">{}</span>{}</span>',
        user.initials,
        user,
    )


@register.simple_tag
def scope(microscope):
    return format_html(
        '<span class="scope-chip"><span class="scope-dot" style="--scope: {}" aria-hidden="true"></span>{}</span>',
        microscope.colour,
        microscope.name,
    )


@dataclass(frozen=True)
class State:
    """How a state looks: one of Bootstrap's tones, an icon of bootstrap-icons and a word."""

    tone: str
    icon: str
    word: str


#: kind -> value -> how it looks. Green, amber and red mean the same everywhere: well, care soon, care now.
STATES = {
    "session": {
        "pending": State("warning", "hourglass-split", "pending"),
        "active": State("success", "record-circle", "active"),
        "finished": State("secondary", "check-circle", "finished"),
        "failed": State("danger", "x-octagon", "failed"),
        "archived": State("secondary", "archive", "archived"),
    },
    "processing": {
        "none": State("secondary", "dash-circle", "no pipeline yet"),
        "queued": State("secondary", "hourglass-split", "queued"),
        "running": State("success", "activity", "running"),
        "finished": State("secondary", "check-circle", "finished"),
        "failed": State("danger", "x-octagon", "failed"),
        "stopped": State("warning", "stop-circle", "stopped"),
    },
    "microscope": {
        "active": State("success", "check-circle", "active"),
        "maintenance": State("warning", "tools", "in maintenance"),
        "retired": State("secondary", "archive", "retired"),
    },
    "booking": {
        "booking": State("primary", "calendar-check", "booking"),
        "slot": State("secondary", "calendar2", "slot"),
        "downtime": State("secondary", "moon", "downtime"),
        "maintenance": State("warning", "tools", "maintenance"),
        "special": State("primary", "star", "special"),
        "cancelled": State("secondary", "x-circle", "cancelled"),
    },
    "person": {
        "active": State("success", "check-circle", "active"),
        "invited": State("warning", "envelope", "invited"),
        "deactivated": State("secondary", "slash-circle", "deactivated"),
    },
}


def look_of(kind: str, value: str) -> State:
    """Raises KeyError for a kind that does not exist; a value that is not foreseen is shown as its word."""
    return STATES[kind].get(value, State("secondary", "circle", str(value)))


@register.simple_tag
def badge(kind: str, value: str, label: str = ""):
    look = look_of(kind, value)
    return format_html(
        '<span class="badge text-bg-{}"><i class="bi bi-{}" aria-hidden="true"></i> {}</span>',
        look.tone,
        look.icon,
        label or look.word,
    )


@register.simple_tag
def state(kind: str, value: str, label: str = ""):
    look = look_of(kind, value)
    return format_html(
        '<span class="state text-{}-emphasis"><i class="bi bi-{}" aria-hidden="true"></i> {}</span>',
        look.tone,
        look.icon,
        label or look.word,
    )


# -- Parts of pages --------------------------------------------------------------------------------------------
@register.simple_tag
def crumbs(*parts):
    """Raises NoReverseMatch for a URL name that does not exist."""
    *way, here = parts
    items = [
        format_html(
            '<li class="breadcrumb-item"><a href="{}">{}</a></li>', url if "/" in url else reverse(url), label
        )
        for label, url in zip(way[::2], way[1::2], strict=True)
    ]
    items.append(format_html('<li class="breadcrumb-item active" aria-current="page">{}</li>', here))
    return format_html(
        '<nav aria-label="Where you are"><ol class="breadcrumb">{}</ol></nav>',
        format_html_join("", "{}", ((item,) for item in items)),
    )


NOTE_ICONS = {
    "quiet": "info-circle",
    "info": "info-circle",
    "success": "check-circle",
    "warning": "exclamation-triangle",
    "danger": "exclamation-octagon",
}


@register.simple_block_tag
def note(content, level: str = "info", icon: str = ""):
    return format_html(
        '<div class="note note-{}" role="note"><i class="bi bi-{}" aria-hidden="true"></i><div>{}</div></div>',
        level,
        icon or NOTE_ICONS[level],
        content,
    )


@register.inclusion_tag("site/_empty.html")
def empty_state(
    title: str, text: str = "", *, icon: str = "inbox", url: str = "", action: str = "", level: int = 2
):
    """What is not here yet and what to do next; `url` and `action` make a button, `level` is the heading's."""
    return {"title": title, "text": text, "icon": icon, "url": url, "action": action, "level": level}


def _address(request, **changes) -> str:
    """The query string of this page with some of it changed; None or "" removes a part."""
    query = request.GET.copy()
    for name, value in changes.items():
        if value in (None, ""):
            query.pop(name, None)
        else:
            query[name] = value
    return f"?{query.urlencode()}"


@register.inclusion_tag("site/_sort_header.html", takes_context=True)
def sort_header(
    context, field: str, label: str, *, numeric: bool = False, default: str = "", descending: bool = False
):
    """`default` is the order of a page without ?sort=; `descending`: the first click sorts from large to small."""
    current = context["request"].GET.get("sort") or default
    direction = ""
    if current.lstrip("-") == field:
        direction = "descending" if current.startswith("-") else "ascending"
    down = descending if not direction else direction == "ascending"
    return {
        "label": label,
        "numeric": numeric,
        "direction": direction,
        "address": _address(context["request"], sort=f"-{field}" if down else field, page=None),
    }


@register.inclusion_tag("site/_pagination.html", takes_context=True)
def pagination(context, page, what: str = "entries"):
    request = context["request"]
    pages = page.paginator.get_elided_page_range(page.number, on_each_side=1, on_ends=1)
    return {
        "page": page,
        "what": what,
        "links": [
            {"number": number, "address": _address(request, page=number) if isinstance(number, int) else None}
            for number in pages
        ],
        "previous": _address(request, page=page.previous_page_number()) if page.has_previous() else None,
        "next": _address(request, page=page.next_page_number()) if page.has_next() else None,
    }


# -- Markdown --------------------------------------------------------------------------------------------------
ALLOWED_TAGS = {
    *("p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "ul", "ol", "li", "dl", "dt", "dd", "blockquote"),
    *("pre", "code", "kbd", "em", "strong", "del", "sub", "sup", "a"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}


@register.filter
def markdown(text: str) -> SafeString:
    """Markdown as HTML in which nothing can run, and no picture tells another host who reads it."""
    html = markdown_package.markdown(text or "", extensions=["fenced_code", "tables", "sane_lists"])
    clean = nh3.clean(
        html,
        tags=ALLOWED_TAGS,
        attributes={"a": {"href", "title"}},
        url_schemes={"http", "https", "mailto", "sftp", "ftp", "smb"},
        link_rel="noopener noreferrer nofollow",
    )
    return mark_safe(clean)  # noqa: S308 (nh3 left only the tags above)
