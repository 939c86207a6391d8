"""The site's addresses, and one for measuring: authenticated, it does nothing more."""

from django.urls import path
from rest_framework.decorators import api_view
from rest_framework.response import Response

from emhub_site.urls import urlpatterns as site


@api_view(["GET", "POST"])
def nothing(request):
    return Response({})


urlpatterns = [path("api/v1/nothing/", nothing), *site]
