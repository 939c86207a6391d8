"""Every address of the site."""

from django.contrib import admin
from django.contrib.auth.decorators import login_required
from django.urls import include, path, re_path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

from emhub_site.api_urls import not_found
from emhub_site.api_urls import urlpatterns as api_urlpatterns
from emhub_site.health import health

admin.site.site_header = "EMhub administration"
admin.site.site_title = "EMhub"
admin.site.index_title = "Records"

handler400 = "emhub_site.errors.bad_request"
handler500 = "emhub_site.errors.server_error"

urlpatterns = [
    path("health/", health, name="health"),
    path("admin/", admin.site.urls),
    path("api/v1/", include((api_urlpatterns, "api"))),
    path("api/schema/", SpectacularAPIView.as_view(), name="schema"),
    path(
        "api/docs/",
        login_required(SpectacularSwaggerSplitView.as_view(url_name="schema")),
        name="api-docs",
    ),
    re_path(r"^api/(?P<rest>[\s\S]*)$", not_found),
    path("people/", include("people.urls")),
    path("microscopes/", include("microscopes.urls")),
    path("bookings/", include("bookings.urls")),
    path("", include("preprocessing.urls")),
    path("", include("sessions_app.urls")),
]
