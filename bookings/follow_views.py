"""The part of everyone's page on which microscopes are followed."""

from django.contrib import messages
from django.shortcuts import redirect
from django.views import View

from bookings.following import follows_set
from bookings.models import Follow
from microscopes.models import Microscope


class FollowView(View):
    http_method_names = ["post"]

    def post(self, request):
        chosen = {
            pk for pk in request.POST.getlist("microscope") if pk.isascii() and pk.isdigit() and len(pk) <= 18
        }
        follows_set(user=request.user, microscopes=Microscope.objects.in_service().filter(pk__in=chosen))
        messages.success(request, "Saved.")
        return redirect("people:profile")


def section(request) -> dict:
    """For people.sections."""
    followed = set(Follow.objects.filter(user=request.user).values_list("microscope_id", flat=True))
    return {
        "microscopes": [
            {"microscope": microscope, "followed": microscope.pk in followed}
            for microscope in Microscope.objects.in_service()
        ]
    }
