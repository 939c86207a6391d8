"""Where calls of pipelines and open pages leave the way of all requests: see preprocessing.api.short and polls."""

from emhub_site.throttles import take_call
from preprocessing import polls
from preprocessing.api import short


class ShortWay:
    """Middleware; stands behind the checks of transport and size, before everything that is there for people."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        return short.answer(request, take_call) or polls.answer(request) or self.get_response(request)
