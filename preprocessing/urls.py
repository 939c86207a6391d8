"""Addresses of this app's pages."""

from django.urls import path

from preprocessing import alerts_views, browse_views, export_views, live_views, results_views
from preprocessing.api.views import ImageView

app_name = "preprocessing"

urlpatterns = [
    path("alerts/", alerts_views.AlertsPage.as_view(), name="all-alerts"),
    path("sessions/<slug:name>/alerts/", alerts_views.SessionAlertsPage.as_view(), name="alerts"),
    path(
        "sessions/<slug:name>/alerts/forget/",
        alerts_views.SessionLimitsForgetView.as_view(),
        name="limits-forget",
    ),
    path("sessions/<slug:name>/micrographs/", browse_views.MicrographsPage.as_view(), name="micrographs"),
    path(
        "sessions/<slug:name>/micrographs/data/",
        browse_views.MicrographsData.as_view(),
        name="micrographs-data",
    ),
    path("sessions/<slug:name>/micrographs/next/", browse_views.NextView.as_view(), name="micrographs-next"),
    path("sessions/<slug:name>/micrographs/verdict/", browse_views.VerdictView.as_view(), name="verdict"),
    path(
        "sessions/<slug:name>/micrographs/undo/<int:pk>/",
        browse_views.UndoView.as_view(),
        name="verdict-undo",
    ),
    path(
        "sessions/<slug:name>/micrographs/<int:pk>/", browse_views.MicrographView.as_view(), name="micrograph"
    ),
    path("sessions/<slug:name>/classes/", results_views.ClassesPage.as_view(), name="classes"),
    path(
        "sessions/<slug:name>/classes/select/",
        results_views.ClassesSelectView.as_view(),
        name="classes-select",
    ),
    path("sessions/<slug:name>/classes/montage.png", results_views.MontageView.as_view(), name="montage"),
    path("sessions/<slug:name>/runs/", results_views.RunsPage.as_view(), name="runs"),
    path("sessions/<slug:name>/report.pdf", export_views.ReportView.as_view(), name="report"),
    path("sessions/<slug:name>/micrographs.csv", export_views.MicrographsCSVView.as_view(), name="csv"),
    path("sessions/<slug:name>/micrographs.star", export_views.MicrographsStarView.as_view(), name="star"),
    path("sessions/<slug:name>/summary.json", export_views.SummaryJSONView.as_view(), name="summary-json"),
    path("sessions/<slug:name>/oscem.json", export_views.OSCEMView.as_view(), name="oscem"),
    path("sessions/<slug:name>/images/<str:file>", ImageView.as_view(), name="image"),
    path("sessions/<slug:name>/live/", live_views.LivePage.as_view(), name="live"),
    path("sessions/<slug:name>/live/data/", live_views.LiveData.as_view(), name="live-data"),
    path("sessions/<slug:name>/live/range/", live_views.LiveRange.as_view(), name="live-range"),
    path("sessions/<slug:name>/live/pair/", live_views.LivePair.as_view(), name="live-pair"),
    path("sessions/<slug:name>/live/shifts/", live_views.LiveShifts.as_view(), name="live-shifts"),
    path("sessions/<slug:name>/live/limits/", live_views.LiveLimits.as_view(), name="live-limits"),
    path("sessions/<slug:name>/where/", live_views.WherePage.as_view(), name="where"),
    path("sessions/<slug:name>/where/data/", live_views.WhereData.as_view(), name="where-data"),
    path(
        "sessions/<slug:name>/live/micrographs/<int:pk>/",
        live_views.LiveMicrograph.as_view(),
        name="live-micrograph",
    ),
]
