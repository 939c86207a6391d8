"""Locking out who guesses passwords: what django-axes is told of our logins, and what people read.

A lock is on a name at an address, so that nobody can lock a colleague out from elsewhere. It ends by itself, by a new
password through a mailed link, or when staff delete the attempts in the administration.
"""

import hashlib
import math

from django.conf import settings
from django.shortcuts import render
from django.utils.cache import add_never_cache_headers

from people.addresses import client_address
from people.backends import user_named


def login_name(request, credentials=None) -> str:
    """Whose login is tried: the username, however it was typed; two spellings of one person count together.

    What is nobody's name is kept as a hash alone: people type passwords into the wrong field.
    """
    typed = (credentials or {}).get("username") or request.POST.get("username") or ""
    known = request.__dict__.setdefault("_login_names", {})  # Asked several times in a request.
    if typed not in known:
        user = user_named(typed)
        if user is not None:
            known[typed] = user.username
        else:
            digest = hashlib.sha256(typed.strip().lower().encode("utf-8", "replace")).hexdigest()
            known[typed] = f"nobody:{digest[:24]}"
    return known[typed]


def login_address(request) -> str | None:
    return client_address(request) or None


def locked_out(request, response=None, credentials=None):
    """The login page, saying that it is locked and for how long."""
    from people.forms import LoginForm

    cool_off = settings.AXES_COOLOFF_TIME
    answer = render(
        request,
        "people/login.html",
        {
            "form": LoginForm(request, initial={"username": request.POST.get("username", "")[:254]}),
            "next": request.POST.get("next", ""),
            "locked_minutes": math.ceil(cool_off.total_seconds() / 60),
        },
        status=429,
    )
    answer["Retry-After"] = str(math.ceil(cool_off.total_seconds()))
    add_never_cache_headers(answer)
    return answer
