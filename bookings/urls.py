"""Addresses of this app's pages."""

from django.urls import path

from bookings import calendar_views, feed_views, follow_views, views
from bookings.handover_views import HandOverView
from bookings.taken_views import TakenView

app_name = "bookings"

urlpatterns = [
    path("", views.BookingListView.as_view(), name="list"),
    path("calendar/", calendar_views.CalendarView.as_view(), name="calendar"),
    path("calendar/events/", calendar_views.CalendarEventsView.as_view(), name="calendar-events"),
    path("calendar/choice/", calendar_views.CalendarChoiceView.as_view(), name="calendar-choice"),
    path("calendar/new/", calendar_views.CalendarBookView.as_view(), name="calendar-new"),
    path("calendar/<int:pk>/move/", calendar_views.CalendarMoveView.as_view(), name="calendar-move"),
    path("new/", views.BookingCreateView.as_view(), name="create"),
    path("taken/", TakenView.as_view(), name="taken"),
    path("<int:pk>/", views.BookingDetailView.as_view(), name="detail"),
    path("<int:pk>/edit/", views.BookingUpdateView.as_view(), name="edit"),
    path("<int:pk>/cancel/", views.BookingCancelView.as_view(), name="cancel"),
    path("follow/", follow_views.FollowView.as_view(), name="follow"),
    path("feeds/new/", feed_views.FeedMakeView.as_view(), name="feed-make"),
    path("feeds/<int:pk>/renew/", feed_views.FeedRenewView.as_view(), name="feed-renew"),
    path("feeds/<int:pk>/stop/", feed_views.FeedStopView.as_view(), name="feed-stop"),
    path("feed/<int:pk>-<str:secret>.ics", feed_views.FeedView.as_view(), name="feed"),
    path("<int:pk>/hand-over/", HandOverView.as_view(), name="hand-over"),
]
