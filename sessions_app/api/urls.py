"""This app's part of API version 1."""

from rest_framework.routers import SimpleRouter

from sessions_app.api.viewsets import SessionViewSet

router = SimpleRouter()
router.register("sessions", SessionViewSet, basename="session")

urlpatterns = router.urls
