"""Addresses of this app's pages."""

from django.urls import path

from preprocessing import live_views
from preprocessing.api.views import ImageView

app_name = "preprocessing"

urlpatterns = [
    path("sessions/<slug:name>/images/<str:file>", ImageView.as_view(), name="image"),
    path("sessions/<slug:name>/live/", live_views.LivePage.as_view(), name="live"),
    path("sessions/<slug:name>/live/data/", live_views.LiveData.as_view(), name="live-data"),
    path(
        "sessions/<slug:name>/live/micrographs/<int:pk>/",
        live_views.LiveMicrograph.as_view(),
        name="live-micrograph",
    ),
]
