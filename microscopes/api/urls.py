"""This app's part of API version 1."""

from rest_framework.routers import SimpleRouter

from microscopes.api.views import MicroscopeViewSet

router = SimpleRouter()
router.register("microscopes", MicroscopeViewSet, basename="microscope")

urlpatterns = router.urls
