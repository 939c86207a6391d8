"""Asking staff before an admin action does what cannot be undone."""

from collections.abc import Iterable

from django.contrib.admin import helpers
from django.template.response import TemplateResponse

CONFIRMED = "confirmed"


def is_confirmed(request) -> bool:
    return CONFIRMED in request.POST


def ask(
    modeladmin,
    request,
    queryset,
    *,
    action: str,
    title: str,
    text: str,
    button: str,
    items: Iterable,
    form=None,
) -> TemplateResponse:
    """The page that says what will happen; its button posts the same action again, confirmed, with the form."""
    context = modeladmin.admin_site.each_context(request) | {
        "title": title,
        "text": text,
        "items": list(items),
        "button": button,
        "form": form,
        "action": action,
        "selected": [str(pk) for pk in queryset.values_list("pk", flat=True)],
        "opts": modeladmin.opts,
        "checkbox_name": helpers.ACTION_CHECKBOX_NAME,
        "confirmed_name": CONFIRMED,
    }
    return TemplateResponse(request, "admin/confirm_action.html", context)
