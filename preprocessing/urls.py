"""Addresses of this app's pages."""

from django.urls import path

from preprocessing import export_views, live_views
from preprocessing.api.views import ImageView

app_name = "preprocessing"

urlpatterns = [
    path("sessions/<slug:name>/report.pdf", export_views.ReportView.as_view(), name="report"),
    path("sessions/<slug:name>/micrographs.csv", export_views.MicrographsCSVView.as_view(), name="csv"),
    path("sessions/<slug:name>/micrographs.star", export_views.MicrographsStarView.as_view(), name="star"),
    path("sessions/<slug:name>/summary.json", export_views.SummaryJSONView.as_view(), name="summary-json"),
    path("sessions/<slug:name>/oscem.json", export_views.OSCEMView.as_view(), name="oscem"),
    path("sessions/<slug:name>/images/<str:file>", ImageView.as_view(), name="image"),
    path("sessions/<slug:name>/live/", live_views.LivePage.as_view(), name="live"),
    path("sessions/<slug:name>/live/data/", live_views.LiveData.as_view(), name="live-data"),
    path(
        "sessions/<slug:name>/live/micrographs/<int:pk>/",
        live_views.LiveMicrograph.as_view(),
        name="live-micrograph",
    ),
]
