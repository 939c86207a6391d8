"""The API's router: every viewset of version 1, mounted by the apps' own api/urls modules."""

from django.urls import Resolver404, include, path, resolve
from drf_spectacular.utils import extend_schema
from rest_framework import exceptions
from rest_framework.decorators import api_view, authentication_classes, permission_classes

urlpatterns = [
    path("", include("microscopes.api.urls")),
    path("", include("bookings.api.urls")),
    path("", include("sessions_app.api.urls")),
    path("", include("preprocessing.api.urls")),
]


@extend_schema(exclude=True)
@api_view(["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
@authentication_classes([])
@permission_classes([])
def not_found(request, rest):
    """Every address under /api/ that is none, in JSON."""
    if not request.path.endswith("/"):
        try:
            found = resolve(f"{request.path}/")
        except Resolver404:
            found = None
        if found is not None and found.func is not not_found:
            raise exceptions.NotFound(f"Addresses end with a slash: {request.path}/")
    raise exceptions.NotFound("There is no such address. See /api/docs/.")
