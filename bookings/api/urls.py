"""This app's part of API version 1."""

from rest_framework.routers import SimpleRouter

from bookings.api.viewsets import BookingViewSet

router = SimpleRouter()
router.register("bookings", BookingViewSet, basename="booking")

urlpatterns = router.urls
