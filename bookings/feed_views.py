"""The address of a calendar feed, and the part of everyone's page on which feeds are made, renewed and stopped."""

from django.contrib import messages
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.cache import get_conditional_response
from django.utils.decorators import method_decorator
from django.views import View

from bookings import feeds
from bookings.models import CalendarFeed
from microscopes.models import Microscope
from people.access import is_staff
from people.models import Lab

Scope = CalendarFeed.Scope


@method_decorator(login_not_required, name="dispatch")
class FeedView(View):
    """Read by programs: the secret is all they have. A wrong one and a feed that is no more read the same."""

    http_method_names = ["get", "head"]

    def get(self, request, pk, secret):
        feed = feeds.find(pk, secret)
        if feed is None:
            raise Http404("There is no calendar at this address.")
        bookings = list(feeds.bookings_of(feed))
        etag = feeds.etag(feed, bookings)
        response = get_conditional_response(request, etag=etag)
        if response is None:
            response = HttpResponse(feeds.text(feed, bookings), content_type="text/calendar; charset=utf-8")
        response.headers["ETag"] = etag
        response.headers["Content-Disposition"] = 'inline; filename="bookings.ics"'
        response.headers["Cache-Control"] = "private, no-cache"
        response.headers["X-Robots-Tag"] = "noindex"
        feeds.note_read(feed)
        return response


class FeedMakeView(View):
    http_method_names = ["post"]

    def post(self, request):
        scope, pk = request.POST.get("scope", ""), request.POST.get("of", "")
        of = int(pk) if pk.isascii() and pk.isdigit() and len(pk) <= 18 else None
        lab = Lab.objects.visible_to(request.user).filter(pk=of).first() if scope == Scope.LAB else None
        microscope = Microscope.objects.filter(pk=of).first() if scope == Scope.MICROSCOPE else None
        try:
            feed = feeds.feed_make(user=request.user, scope=scope, lab=lab, microscope=microscope)
        except PermissionDenied:
            messages.error(request, "Choose one of the calendars that are offered.")
        else:
            messages.success(request, f"The address of “{feed}” is below: add it to your calendar program.")
        return redirect("people:profile")


class OwnFeedView(View):
    """For what is done with one's own feed; others' answer 404."""

    http_method_names = ["post"]

    def post(self, request, pk):
        self.act(get_object_or_404(CalendarFeed, pk=pk, user=request.user))
        return redirect("people:profile")


class FeedRenewView(OwnFeedView):
    def act(self, feed):
        feeds.feed_renew(feed)
        messages.success(
            self.request, f"“{feed}” has a new address. Calendars that read the old one get nothing any more."
        )


class FeedStopView(OwnFeedView):
    def act(self, feed):
        name = str(feed)
        feed.delete()
        messages.success(self.request, f"“{name}” is stopped. Its address gives nothing any more.")


def section(request) -> dict:
    """For people.sections: one's feeds with their addresses, and those that can still be made."""
    user = request.user
    own = list(CalendarFeed.objects.filter(user=user).select_related("lab", "microscope"))
    labs = {feed.lab_id for feed in own}
    microscopes = {feed.microscope_id for feed in own}
    return {
        "feeds": [
            {
                "feed": feed,
                "address": request.build_absolute_uri(feeds.path_of(feed)),
                "works": feeds.may_have(user, feed.scope, lab=feed.lab, microscope=feed.microscope),
            }
            for feed in own
        ],
        "mine": all(feed.scope != Scope.MINE for feed in own),
        "labs": [lab for lab in Lab.objects.of(user) if lab.pk not in labs],
        "microscopes": [scope for scope in Microscope.objects.in_service() if scope.pk not in microscopes]
        if is_staff(user)
        else [],
        "days_back": feeds.DAYS_BACK,
    }
