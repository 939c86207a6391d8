"""`{% open_alerts session as alerts %}`: a session's open alerts, for preprocessing/_alerts.html."""

import datetime

from django import template

register = template.Library()
ICONS = {"warning": "exclamation-triangle-fill", "bad": "x-octagon-fill"}


@register.simple_tag
def open_alerts(session) -> list[dict]:
    """The worst and oldest first; `since` as an aware time, `icon` by level."""
    return [
        alert
        | {
            "since": datetime.datetime.fromisoformat(alert["since"]),
            "icon": ICONS.get(alert["level"], ICONS["warning"]),
        }
        for alert in session.summary.alerts
    ]
