"""What every template may use of the facility."""

from django.conf import settings

from people import words


def facility(request):
    return {
        "facility_name": settings.FACILITY_NAME,
        "logo_text": settings.LOGO_TEXT,
        "time_zone_name": settings.TIME_ZONE,
        "version": settings.VERSION,
        # For scripts that write times: "h23" or "h12".
        "hour_cycle": words.hour_cycle,
    }
