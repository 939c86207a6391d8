"""Pages that list alerts: of one session, with its limits, and of all sessions that the person may see."""

from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import F
from django.shortcuts import redirect
from django.urls import reverse
from django.views.generic import TemplateView, View

from microscopes.models import Microscope
from people.access import is_staff
from people.changes import add_errors
from preprocessing.forms import SessionLimitsForm, limit_facts
from preprocessing.models import Alert, Limits, SessionLimits
from preprocessing.session_limits import session_limits_change, session_limits_forget
from preprocessing.state import RELATED, limits_of, state_of
from sessions_app.access import can_change
from sessions_app.listing import page_number
from sessions_app.models import Session
from sessions_app.views import SessionMixin

PER_PAGE = 50
#: A session's own list; more than this is found in the list of all.
OF_SESSION = 200


class SessionAlertsMixin(SessionMixin):
    """The session that the address names, with what its state and limits are told from."""

    def setup(self, request, *args, **kwargs):
        super().setup(request, *args, **kwargs)
        if self.session is not None:
            sessions = Session.objects.with_row().select_related(*RELATED, "data_server")
            self.session = sessions.get(pk=self.session.pk)

    @property
    def may_change(self) -> bool:
        return can_change(self.request.user, self.session)

    def refuse_readers(self) -> None:
        if not self.may_change:
            raise PermissionDenied("Only staff and those who run this session may change its limits.")

    def back(self):
        return redirect("preprocessing:alerts", name=self.session.name)


class SessionAlertsPage(SessionAlertsMixin, TemplateView):
    """The tab Alerts: what is open, what was, and the limits in force; by POST these are changed."""

    template_name = "preprocessing/session_alerts.html"

    def form(self, data=None) -> SessionLimitsForm:
        limits = limits_of(self.session)
        if not isinstance(limits, SessionLimits):
            names = [field.name for field in Limits._meta.fields]
            limits = SessionLimits(
                session_id=self.session.pk, **{name: getattr(limits, name) for name in names}
            )
            # Shown as what is there, so that only what is changed is written.
            limits._state.adding = False
        return SessionLimitsForm(data, instance=limits)

    def get_context_data(self, form=None, **kwargs):
        limits = limits_of(self.session)
        alerts = Alert.objects.filter(session=self.session)
        alerts = alerts.order_by(F("resolved_at").desc(nulls_first=True), "-raised_at", "-pk")
        microscope = self.session.microscope
        return super().get_context_data(
            tab="alerts",
            state=state_of(self.session),
            alerts=list(alerts[:OF_SESSION]),
            limits=limits,
            own=isinstance(limits, SessionLimits),
            facts=limit_facts(limits),
            may_change_limits=self.may_change,
            form=form or (self.form() if self.may_change else None),
            microscope_url=_microscope_url(self.request.user, microscope),
            **kwargs,
        )

    def post(self, request, *args, **kwargs):
        self.refuse_readers()
        form = self.form(request.POST)
        if form.is_valid():
            try:
                _, changed = session_limits_change(
                    session=self.session, values=form.changes, actor=request.user
                )
            except ValidationError as error:
                add_errors(form, error)
            else:
                if changed:
                    messages.success(request, "The limits of this session were changed.")
                return self.back()
        return self.render_to_response(self.get_context_data(form=form), status=422)


class SessionLimitsForgetView(SessionAlertsMixin, View):
    """By POST: the microscope's limits hold for this session again."""

    http_method_names = ["post"]

    def post(self, request, *args, **kwargs):
        self.refuse_readers()
        if session_limits_forget(session=self.session, actor=request.user):
            messages.success(request, f"The limits of {self.session.microscope} hold for this session again.")
        return self.back()


class AlertsPage(TemplateView):
    """Alerts of all sessions that the person may see, the newest first; open ones unless `all` is asked for."""

    template_name = "preprocessing/alerts.html"

    def get_context_data(self, **kwargs):
        user, query = self.request.user, self.request.GET
        alerts = Alert.objects.visible_to(user).select_related("session__microscope", "session__lab")
        alerts = alerts.order_by("-raised_at", "-pk")
        everything = query.get("show") == "all"
        if not everything:
            alerts = alerts.open()
        microscopes = list(Microscope.objects.visible_to(user))
        chosen = next((each for each in microscopes if each.code == query.get("microscope")), None)
        if chosen is not None:
            alerts = alerts.filter(session__microscope=chosen)
        number = page_number(query.get("page"))
        first = (number - 1) * PER_PAGE
        rows = list(alerts[first : first + PER_PAGE + 1])
        return super().get_context_data(
            alerts=rows[:PER_PAGE],
            everything=everything,
            microscopes=microscopes,
            chosen=chosen,
            number=number,
            newer=number - 1,
            older=number + 1 if len(rows) > PER_PAGE else None,
            is_staff=is_staff(user),
            **kwargs,
        )


def _microscope_url(user, microscope) -> str:
    """Where staff set the microscope's limits; empty for others."""
    if not (is_staff(user) and user.has_perm("preprocessing.change_microscopelimits")):
        return ""
    if hasattr(microscope, "limits"):
        return reverse("admin:preprocessing_microscopelimits_change", args=[microscope.pk])
    return f"{reverse('admin:preprocessing_microscopelimits_add')}?microscope={microscope.pk}"
