"""Times of day as the person at the other end has chosen."""

from collections.abc import Callable

from django.utils import translation

from people import words
from people.models import Preferences

#: Django writes the admin's times by language: emhub_site/formats has both, alike but for the hours.
ADMIN_LANGUAGE = "en-us"


class TimesAsTheReaderWants:
    """Lets `people.words` write 18:00 or 6:00 pm; the person is asked for only once a time is written."""

    def __init__(self, get_response: Callable):
        self.get_response = get_response

    def __call__(self, request):
        with words.times_as(lambda: chosen(request)):
            return self.get_response(request)

    def process_view(self, request, view, args, kwargs):
        """The admin's pages are Django's own, which know languages alone."""
        match = request.resolver_match
        if match is None or match.app_name != "admin" or chosen(request) != words.H12:
            return None
        with translation.override(ADMIN_LANGUAGE):
            response = view(request, *args, **kwargs)
            if hasattr(response, "render") and not response.is_rendered:
                response.render()
            return response


def chosen(request) -> str:
    """The hour cycle of the request's person; the facility's usual one where nobody is logged in."""
    user = getattr(request, "user", None)
    return Preferences.of(user).hour_cycle if user is not None and user.is_authenticated else words.H23
