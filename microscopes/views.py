"""A microscope's page and its picture."""

from django.db.models import Prefetch
from django.http import FileResponse, Http404
from django.shortcuts import get_object_or_404
from django.utils import timezone
from django.utils.http import http_date
from django.views.generic import DetailView, View

from microscopes.limits import limits_in_words
from microscopes.models import Camera, Microscope
from microscopes.pictures import content_type

UPCOMING = 10


class MicroscopeDetailView(DetailView):
    """What it is, whether it runs, and when it is taken next."""

    template_name = "microscopes/detail.html"

    def get_object(self, queryset=None):
        cameras = Prefetch("cameras", Camera.objects.filter(is_active=True), to_attr="cameras_in_use")
        microscopes = Microscope.objects.visible_to(self.request.user)
        microscopes = microscopes.select_related("data_server").prefetch_related(cameras)
        return get_object_or_404(microscopes, code__iexact=self.kwargs["code"])

    def get_context_data(self, **kwargs):
        user = self.request.user
        bookings = (
            self.object.bookings.standing()
            .blocking_or_visible_to(user)
            .filter(end__gt=timezone.now())
            .with_people()
            .with_details_visible_to(user)
            .order_by("start", "pk")
        )
        return super().get_context_data(**kwargs) | {
            "bookings": bookings[:UPCOMING],
            "limits": limits_in_words(self.object),
        }


class MicroscopePictureView(View):
    """The picture as it was rewritten on upload, for whoever is logged in."""

    def get(self, request, code):
        microscope = get_object_or_404(Microscope.objects.visible_to(request.user), code__iexact=code)
        kind = content_type(microscope.picture.name) if microscope.picture else None
        if kind is None:
            raise Http404("This microscope has no picture.")
        try:
            file = microscope.picture.open("rb")
            changed = microscope.picture.storage.get_modified_time(microscope.picture.name)
        except FileNotFoundError as error:
            raise Http404("The picture's file is gone.") from error
        return FileResponse(
            file,
            content_type=kind,
            headers={
                "Cache-Control": "private, max-age=3600",
                "Last-Modified": http_date(changed.timestamp()),
                "Content-Security-Policy": "default-src 'none'",
            },
        )
