"""The API's router: every viewset of version 1, mounted by the apps' own api/urls modules."""

from django.urls import include, path

urlpatterns = [
    path("", include("microscopes.api.urls")),
    path("", include("sessions_app.api.urls")),
    path("", include("preprocessing.api.urls")),
]
