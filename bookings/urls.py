"""Addresses of this app's pages."""

from django.urls import path

from bookings import views
from bookings.handover_views import HandOverView

app_name = "bookings"

urlpatterns = [
    path("", views.BookingListView.as_view(), name="list"),
    path("new/", views.BookingCreateView.as_view(), name="create"),
    path("taken/", views.TakenView.as_view(), name="taken"),
    path("<int:pk>/", views.BookingDetailView.as_view(), name="detail"),
    path("<int:pk>/edit/", views.BookingUpdateView.as_view(), name="edit"),
    path("<int:pk>/cancel/", views.BookingCancelView.as_view(), name="cancel"),
    path("<int:pk>/hand-over/", HandOverView.as_view(), name="hand-over"),
]
