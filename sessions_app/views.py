"""Pages about sessions."""

from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpResponse, HttpResponseRedirect, StreamingHttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.generic import FormView, TemplateView, View

from bookings.models import Booking
from people.access import is_staff
from people.changes import add_errors
from sessions_app import access, lifecycle
from sessions_app.acquisition import FIELDS, LABELS, UNITS, acquisition_defaults
from sessions_app.dashboard import dashboard
from sessions_app.data_access import data_path
from sessions_app.download import USER, ways
from sessions_app.export import csv_lines
from sessions_app.filters import DEFAULT_ORDER, SessionFilter
from sessions_app.forms import ExtendRetentionForm, SessionCreateForm, SessionEditForm
from sessions_app.listing import page_number, session_page
from sessions_app.models import Session
from sessions_app.naming import next_name
from sessions_app.retention import retention
from sessions_app.services import refusal, session_create, session_update
from sessions_app.statistics import place


class HtmxRedirect(HttpResponse):
    """Let the whole page go on: what was filled in a dialog is done."""

    def __init__(self, url: str):
        super().__init__()
        self["HX-Redirect"] = url


def next_url(request, default: str) -> str:
    """Where the person came from, if that is a page of this site."""
    url = request.POST.get("next") or request.GET.get("next") or ""
    safe = url_has_allowed_host_and_scheme(url, {request.get_host()}, require_https=request.is_secure())
    return url if safe else default


class DialogMixin:
    """A page of its own that also opens in the dialog of another page (htmx)."""

    dialog_template_name = "sessions_app/_dialog_body.html"
    cancel_url = "/"

    @property
    def is_dialog(self) -> bool:
        return bool(self.request.htmx) and not self.request.htmx.boosted

    def get_template_names(self):
        return [self.dialog_template_name if self.is_dialog else self.template_name]

    def go_to(self, url: str):
        return HtmxRedirect(url) if self.is_dialog else HttpResponseRedirect(url)

    def dispatch(self, request, *args, **kwargs):
        response = super().dispatch(request, *args, **kwargs)
        response["Vary"] = ", ".join(filter(None, [response.get("Vary"), "HX-Request"]))
        return response


class DashboardView(TemplateView):
    template_name = "sessions_app/dashboard.html"

    def get_template_names(self):
        # What the page asks for while it is open and seen.
        return ["sessions_app/_dashboard.html" if "live" in self.request.GET else self.template_name]

    def get_context_data(self, **kwargs):
        return super().get_context_data(dashboard=dashboard(self.request.user), now=timezone.now(), **kwargs)

    def render_to_response(self, context, **kwargs):
        response = super().render_to_response(context, **kwargs)
        response["Cache-Control"] = "no-store"
        return response


class SessionCreateView(DialogMixin, FormView):
    """The dialog for a new session; warns first if the booking has sessions already."""

    template_name = "sessions_app/create.html"
    dialog_template_name = "sessions_app/_create.html"
    form_class = SessionCreateForm

    def setup(self, request, *args, **kwargs):
        super().setup(request, *args, **kwargs)
        text = request.POST.get("booking") or request.GET.get("booking") or ""
        if not request.user.is_authenticated or not (text.isascii() and text.isdigit() and len(text) < 19):
            self.booking = None
            return
        bookings = Booking.objects.visible_to(request.user).with_people()
        self.booking = bookings.select_related("microscope__data_server").filter(pk=int(text)).first()

    def dispatch(self, request, *args, **kwargs):
        if self.booking is None:
            raise Http404("There is no such booking.")
        if self.booking.takes_sessions and not access.can_create(request.user, self.booking):
            raise PermissionDenied(refusal(request.user, self.booking))
        return super().dispatch(request, *args, **kwargs)

    @property
    def refusal(self) -> str:
        return refusal(self.request.user, self.booking)

    def get_initial(self):
        defaults = acquisition_defaults(self.booking)
        return defaults | {"operator": self.booking.operator_id or self.booking.owner_id}

    def get_form_kwargs(self):
        return super().get_form_kwargs() | {"booking": self.booking, "user": self.request.user}

    def get_context_data(self, **kwargs):
        earlier = list(self.booking.sessions.order_by("start", "id")[:50])
        # Somebody who has said Yes, or has filled in the form, is not asked again.
        asks = bool(earlier) and self.request.method == "GET" and self.request.GET.get("another") != "yes"
        now = timezone.now()
        name = next_name(self.booking.microscope, now)
        try:
            path = data_path(self.booking, name, now)
        except ValidationError:
            path = ""  # Said when the form is sent, where it can be helped.
        return super().get_context_data(
            booking=self.booking,
            refusal=self.refusal,
            earlier=earlier,
            asks=asks,
            proposed_name=name,
            proposed_path=path,
            is_dialog=self.is_dialog,
            **kwargs,
        )

    def form_valid(self, form):
        try:
            session = session_create(booking=self.booking, creator=self.request.user, **form.cleaned_data)
        except ValidationError as error:
            add_errors(form, error)
            return self.form_invalid(form)
        messages.success(self.request, f"Session {session.name} is running on {session.microscope}.")
        return self.go_to(reverse("sessions:dashboard"))


class SessionListView(TemplateView):
    template_name = "sessions_app/list.html"

    def get_context_data(self, **kwargs):
        request = self.request
        filterset = session_filter(request)
        number = page_number(request.GET.get("page"))
        page = session_page(filterset.sessions(), number, collected=not is_staff(request.user))
        today = timezone.localdate()
        rows = [(session, retention(session, today)) for session in page.rows]
        return super().get_context_data(
            filter=filterset,
            page=page,
            rows=rows,
            columns=columns(filterset),
            sentence=filterset.sentence(),
            query=address(request, page=None),
            previous_query=address(request, page=page.number - 1 if page.number > 2 else None),
            next_query=address(request, page=page.number + 1),
            has_any=bool(rows) or Session.objects.visible_to(request.user).exists(),
            may_delete=access.can_delete(request.user),
            **kwargs,
        )


class SessionCSVView(View):
    """What the list shows with the same address, all pages of it."""

    def get(self, request):
        filterset = session_filter(request)
        if not filterset.is_valid():
            return redirect(f"{reverse('sessions:list')}?{address(request)}")
        response = StreamingHttpResponse(
            csv_lines(filterset.sessions()), content_type="text/csv; charset=utf-8"
        )
        response["Content-Disposition"] = f'attachment; filename="sessions-{timezone.localdate()}.csv"'
        response["Cache-Control"] = "no-store"
        return response


def session_filter(request) -> SessionFilter:
    return SessionFilter(request.GET, queryset=Session.objects.visible_to(request.user), request=request)


def address(request, **changes) -> str:
    """The present query string with some parameters changed, or left out where None."""
    query = {key: value for key, value in request.GET.items() if value and key not in changes}
    return urlencode(query | {key: value for key, value in changes.items() if value is not None})


def columns(filterset: SessionFilter) -> list[dict]:
    """The table's heads; those that can be sorted have the address that does so."""
    heads = []
    for label, css, order in (
        ("Name", "", "name"),
        ("Start", "", "-start"),
        ("Microscope", "", None),
        ("Status", "", None),
        ("Processing", "", None),
        ("Images", "text-end", None),
        ("Size", "text-end", "-size"),
        ("Owner", "", None),
        ("Operator", "", None),
        ("Sample", "", None),
        ("Days left", "text-end", "days"),
    ):
        head = {"label": label, "css": css, "query": None, "sorted": ""}
        if order:
            opposite = order[1:] if order.startswith("-") else f"-{order}"
            if filterset.order in (order, opposite):
                head["sorted"] = "descending" if filterset.order.startswith("-") else "ascending"
            target = opposite if filterset.order == order else order
            head["query"] = address(
                filterset.request, page=None, sort=None if target == DEFAULT_ORDER else target
            )
        heads.append(head)
    return heads


class SessionMixin:
    """Finds the session that the address names, if this person may see it."""

    def setup(self, request, *args, **kwargs):
        super().setup(request, *args, **kwargs)
        self.session = None
        if request.user.is_authenticated:
            sessions = Session.objects.visible_to(request.user, among_few=True).named(kwargs["name"])
            self.session = get_object_or_404(sessions.with_row().select_related("data_server"))

    def get_context_data(self, **kwargs):
        user, session = self.request.user, self.session
        return super().get_context_data(
            session=session,
            retention=retention(session),
            may={
                "change": access.can_change(user, session),
                "finish": access.can_finish(user, session),
                "reopen": access.can_reopen(user, session),
                "extend": access.can_extend_retention(user, session),
                "archive": access.can_archive(user, session),
                "delete": access.can_delete(user, session),
                "sample": access.can_see_sample(user, session.sample),
            },
            **kwargs,
        )

    @property
    def session_url(self) -> str:
        return reverse("sessions:detail", args=[self.session.name])


class SessionDetailView(SessionMixin, TemplateView):
    """The tab Overview."""

    template_name = "sessions_app/detail.html"
    tab = "overview"

    def get(self, request, *args, **kwargs):
        if kwargs["name"] != self.session.name:
            return redirect(request.resolver_match.view_name, name=self.session.name)
        return super().get(request, *args, **kwargs)

    def get_context_data(self, **kwargs):
        others = self.session.booking.sessions.exclude(pk=self.session.pk).order_by("start", "id")[:20]
        acquisition = [(LABELS[name], getattr(self.session, name), UNITS.get(name, "")) for name in FIELDS]
        return super().get_context_data(
            tab=self.tab,
            others=list(others),
            acquisition=acquisition,
            places=place(self.session) if self.tab == "overview" else [],
            **kwargs,
        )


class SessionDataView(SessionDetailView):
    """The tab Data Download."""

    template_name = "sessions_app/data.html"
    tab = "data"

    def get_context_data(self, **kwargs):
        found = ways(self.session)
        return super().get_context_data(
            ways=found,
            has_account=any(USER in way.command for way in found),
            placeholder=USER,
            **kwargs,
        )


class SessionActionView(SessionMixin, DialogMixin, TemplateView):
    """Asks, then does by POST. `allowed` names the rule of access.py."""

    template_name = "sessions_app/confirm.html"
    dialog_template_name = "sessions_app/_confirm.html"
    allowed = None
    done_url = None

    def dispatch(self, request, *args, **kwargs):
        if not self.allowed(request.user, self.session):
            raise PermissionDenied(self.denied())
        return super().dispatch(request, *args, **kwargs)

    def denied(self) -> str:
        return "You may see this session but not change it. Ask the facility's staff."

    def get_context_data(self, **kwargs):
        return super().get_context_data(
            is_dialog=self.is_dialog, cancel_url=next_url(self.request, self.session_url), **kwargs
        )

    def post(self, request, *args, **kwargs):
        try:
            message = self.act()
        except ValidationError as error:
            messages.error(request, " ".join(error.messages))
            return self.go_to(self.session_url)
        except Session.DoesNotExist:
            message = f"Session {self.session.name} was deleted meanwhile."
            return self._done(messages.WARNING, message, reverse("sessions:list"))
        return self._done(messages.SUCCESS, message, self.get_done_url())

    def _done(self, level, message, url):
        messages.add_message(self.request, level, message)
        return self.go_to(url)

    def get_done_url(self) -> str:
        return next_url(self.request, self.session_url)


class SessionFinishView(SessionActionView):
    allowed = staticmethod(access.can_finish)

    def denied(self) -> str:
        if not self.session.is_running:
            return "This session has ended already."
        return super().denied()

    def dispatch(self, request, *args, **kwargs):
        # Pressed twice, or by two people: what they wanted is the case.
        if self.session.status == Session.Status.FINISHED:
            return self.go_to(self.session_url)
        return super().dispatch(request, *args, **kwargs)

    def get_context_data(self, **kwargs):
        days = self.session.microscope.effective_retention_days
        return super().get_context_data(
            title=f"Finish session {self.session.name}?",
            button="Finish session",
            button_class="btn-primary",
            paragraphs=[
                "It ends now and leaves the dashboard. Late files and results are still taken.",
                f"The images are kept for {days} days after the last file.",
            ],
            **kwargs,
        )

    def act(self) -> str:
        session = lifecycle.session_finish(self.session, self.request.user)
        return f"Session {session.name} is finished. {retention(session).text}"


class SessionReopenView(SessionActionView):
    allowed = staticmethod(access.can_reopen)

    def get_context_data(self, **kwargs):
        return super().get_context_data(
            title=f"Let session {self.session.name} run again?",
            button="Reopen session",
            button_class="btn-primary",
            paragraphs=[
                "It appears on the dashboard again, and its date of deletion is set anew when it finishes."
            ],
            **kwargs,
        )

    def act(self) -> str:
        lifecycle.session_reopen(self.session, self.request.user)
        return f"Session {self.session.name} is running again."


class SessionArchiveView(SessionActionView):
    allowed = staticmethod(access.can_archive)

    def denied(self) -> str:
        if self.session.status == Session.Status.ARCHIVED:
            return "This session is archived already."
        return "Only the facility's staff archive sessions, once they are over."

    def get_context_data(self, **kwargs):
        return super().get_context_data(
            title=f"Archive session {self.session.name}?",
            button="Archive session",
            button_class="btn-danger",
            losses=[loss for loss in lifecycle.archive_losses(self.session) if loss.count],
            is_archive=True,
            **kwargs,
        )

    def act(self) -> str:
        lifecycle.session_archive(self.session, self.request.user)
        return f"Session {self.session.name} is archived. Its charts, numbers and classes stay."


class SessionDeleteView(SessionActionView):
    allowed = staticmethod(access.can_delete)

    def denied(self) -> str:
        return "Only the facility's staff delete sessions."

    def get_context_data(self, **kwargs):
        losses = [loss for loss in lifecycle.losses(self.session) if loss.count]
        return super().get_context_data(
            title=f"Delete session {self.session.name}?",
            button=delete_label(self.session, losses),
            button_class="btn-danger",
            losses=losses,
            is_delete=True,
            **kwargs,
        )

    def act(self) -> str:
        lifecycle.session_delete(self.session, self.request.user)
        stays = f" The files in {self.session.data_path} were left alone." if self.session.data_path else ""
        return f"Session {self.session.name} was deleted.{stays}"

    def get_done_url(self) -> str:
        url = next_url(self.request, reverse("sessions:list"))
        return reverse("sessions:list") if url.startswith(self.session_url) else url


def delete_label(session, losses) -> str:
    """ "Delete session krios1-20261122-02 and 5,114 micrographs"."""
    micrographs = next((loss.count for loss in losses if loss.what == "micrographs"), 0)
    more = f" and {micrographs:,} micrograph{'' if micrographs == 1 else 's'}" if micrographs else ""
    return f"Delete session {session.name}{more}"


class SessionExtendView(SessionMixin, DialogMixin, FormView):
    template_name = "sessions_app/extend.html"
    dialog_template_name = "sessions_app/_extend.html"
    form_class = ExtendRetentionForm

    def dispatch(self, request, *args, **kwargs):
        if not access.can_extend_retention(request.user, self.session):
            raise PermissionDenied(
                "Only the facility's staff keep images longer, once a session has its date."
            )
        return super().dispatch(request, *args, **kwargs)

    def get_form_kwargs(self):
        return super().get_form_kwargs() | {"session": self.session}

    def get_context_data(self, **kwargs):
        return super().get_context_data(is_dialog=self.is_dialog, cancel_url=self.session_url, **kwargs)

    def form_valid(self, form):
        try:
            lifecycle.extend_retention(self.session, self.request.user, until=form.cleaned_data["until"])
        except ValidationError as error:
            add_errors(form, error)
            return self.form_invalid(form)
        messages.success(self.request, f"Session {self.session.name}: {retention(self.session).text}")
        return self.go_to(self.session_url)


class SessionEditView(SessionMixin, FormView):
    template_name = "sessions_app/edit.html"
    form_class = SessionEditForm

    def dispatch(self, request, *args, **kwargs):
        if not access.can_change(request.user, self.session):
            raise PermissionDenied("You may see this session but not change it. Ask the facility's staff.")
        return super().dispatch(request, *args, **kwargs)

    def get_form_kwargs(self):
        return super().get_form_kwargs() | {"instance": self.session, "user": self.request.user}

    def form_valid(self, form):
        if form.changes:
            try:
                session_update(self.session, self.request.user, **form.changes)
            except ValidationError as error:
                add_errors(form, error)
                return self.form_invalid(form)
            messages.success(self.request, f"Session {self.session.name} was saved.")
        else:
            messages.info(self.request, "Nothing was changed.")
        return HttpResponseRedirect(self.session_url)
