"""This app's part of API version 1."""

from django.urls import path

from preprocessing.api import views
from preprocessing.api.alerts import AlertListView

urlpatterns = [
    path("alerts/", AlertListView.as_view(), name="alert-list"),
    path("sessions/<slug:name>/exposures/", views.ExposureView.as_view(), name="session-exposures"),
    path("sessions/<slug:name>/runs/", views.RunListView.as_view(), name="session-runs"),
    path("sessions/<slug:name>/summary/", views.SummaryView.as_view(), name="session-summary"),
    path("runs/<int:pk>/", views.RunView.as_view(), name="run-detail"),
    path("runs/<int:pk>/micrographs/", views.MicrographView.as_view(), name="run-micrographs"),
    path("runs/<int:pk>/images/", views.ImageUploadView.as_view(), name="run-images"),
    path("runs/<int:pk>/classes/", views.ClassView.as_view(), name="run-classes"),
    path("runs/<int:pk>/events/", views.EventView.as_view(), name="run-events"),
    path("micrographs/<int:pk>/coordinates/", views.CoordinateView.as_view(), name="micrograph-coordinates"),
]
