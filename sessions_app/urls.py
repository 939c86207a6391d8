"""Addresses of this app's pages."""

from django.urls import path

from sessions_app import sample_views, statistics_views, views

app_name = "sessions"

urlpatterns = [
    path("", views.DashboardView.as_view(), name="dashboard"),
    path("sessions/", views.SessionListView.as_view(), name="list"),
    path("sessions/new", views.SessionCreateView.as_view(), name="create"),
    path("sessions/sessions.csv", views.SessionCSVView.as_view(), name="csv"),
    path("statistics/", statistics_views.StatisticsView.as_view(), name="statistics"),
    path("statistics/<slug:table>.csv", statistics_views.StatisticsCSVView.as_view(), name="statistics_csv"),
    path("samples/", sample_views.SampleListView.as_view(), name="samples"),
    path("samples/<int:pk>/", sample_views.SampleView.as_view(), name="sample"),
    path("sessions/<slug:name>/", views.SessionDetailView.as_view(), name="detail"),
    path("sessions/<slug:name>/data/", views.SessionDataView.as_view(), name="data"),
    path("sessions/<slug:name>/edit/", views.SessionEditView.as_view(), name="edit"),
    path("sessions/<slug:name>/finish/", views.SessionFinishView.as_view(), name="finish"),
    path("sessions/<slug:name>/reopen/", views.SessionReopenView.as_view(), name="reopen"),
    path("sessions/<slug:name>/keep/", views.SessionExtendView.as_view(), name="extend"),
    path("sessions/<slug:name>/archive/", views.SessionArchiveView.as_view(), name="archive"),
    path("sessions/<slug:name>/delete/", views.SessionDeleteView.as_view(), name="delete"),
]
