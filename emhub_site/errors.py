"""What is answered where no view could: JSON to programs, pages to people."""

from django.core.exceptions import DisallowedHost
from django.http import JsonResponse
from django.views import defaults


def bad_request(request, exception):
    if not request.path_info.startswith("/api/"):
        return defaults.bad_request(request, exception)
    words = "This request cannot be read."
    if isinstance(exception, DisallowedHost):
        words = "The site is not known by this name. Use the address that people open it with."
    return JsonResponse({"detail": words}, status=400)


def server_error(request):
    if not request.path_info.startswith("/api/"):
        return defaults.server_error(request)
    words = "Something went wrong on our side, and it is in the site's log. The same may be sent again later."
    return JsonResponse({"detail": words}, status=500)
