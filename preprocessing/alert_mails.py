"""Who hears of an alert by e-mail, and in which words.

The session's operator and its booking's owner, each as they have chosen (people.Preferences); what they hear in one
check comes in one mail. A mail about a kind of alert is followed by no other of that kind and session for QUIET,
though it may have recovered and come again meanwhile; the alerts themselves are all listed.
"""

import datetime
from collections.abc import Sequence

from django.conf import settings
from django.template.loader import render_to_string
from django.urls import reverse

from people import outbox, words
from people.models import Preferences
from preprocessing.models import Alert
from preprocessing.state import state_of
from sessions_app.dashboard import lab_words

QUIET = datetime.timedelta(hours=1)
ABOUT_MACHINES = frozenset({Alert.Kind.NO_FILE, Alert.Kind.WATCHER, Alert.Kind.PIPELINE, Alert.Kind.ERROR})


def write(session, raised: Sequence[Alert], over: Sequence[Alert], now: datetime.datetime) -> None:
    """Write the mails about what was raised and what is over, in the caller's transaction."""
    raised = [alert for alert in raised if not _told_lately(alert, now)]
    if not raised and not over:
        return
    for person in _people(session):
        choices = Preferences.of(person)
        new = [alert for alert in raised if _wanted(choices, alert)]
        gone = [alert for alert in over if choices.mail_alert_over and _wanted(choices, alert)]
        if new or gone:
            with words.times_as(choices.hour_cycle):
                _queue(person, session, new, gone, now)


def _told_lately(alert: Alert, now: datetime.datetime) -> bool:
    same = Alert.objects.filter(session=alert.session_id, kind=alert.kind).exclude(pk=alert.pk)
    return same.filter(raised_at__gt=now - QUIET).exists()


def _people(session) -> list:
    """Operator and owner, each once."""
    booking = session.booking
    operator = session.operator or booking.operator
    return list({person.pk: person for person in (operator, booking.owner) if person is not None}.values())


def _wanted(choices: Preferences, alert: Alert) -> bool:
    return choices.mail_alert_machines if alert.kind in ABOUT_MACHINES else choices.mail_alert_data


def _queue(person, session, new: list[Alert], gone: list[Alert], now: datetime.datetime) -> None:
    first, count = (new or gone)[0], len(new or gone)
    what = first.text if count == 1 else f"{count} alerts"
    body = render_to_string(
        "preprocessing/mail/alerts.txt",
        {
            "person": person,
            "session": session,
            "lab": lab_words(session.lab),
            "new": [_line(alert) for alert in new],
            "gone": [_line(alert) for alert in gone],
            "state": state_of(session, now).words.replace(words.NBSP, " "),
            "live_url": outbox.absolute(reverse("preprocessing:live", args=[session.name])),
            "alerts_url": outbox.absolute(reverse("preprocessing:alerts", args=[session.name])),
            "choices_url": outbox.absolute(reverse("people:profile")),
            "time_zone": settings.TIME_ZONE,
            "facility_name": settings.FACILITY_NAME,
        },
    )
    outbox.queue(to=person, subject=f"{session.name}: {'' if new else 'over: '}{what}", body=body)


def _line(alert: Alert) -> str:
    return f"{alert.text} (since {words.exact(alert.since)})".replace(words.NBSP, " ")
