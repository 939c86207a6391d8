"""What every template may use of the facility."""

from django.conf import settings


def facility(request):
    return {
        "facility_name": settings.FACILITY_NAME,
        "logo_text": settings.LOGO_TEXT,
        "time_zone_name": settings.TIME_ZONE,
        "version": settings.VERSION,
    }
