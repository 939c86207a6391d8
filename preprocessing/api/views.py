"""What watchers and pipelines report, and how anything reads it back.

A view says who may (`visible_to` answers 404, `access.can_report` 403), which run, and hands on: `payloads` checks
what was sent, `ingest` writes it, `reading` and `statistics` tell it.
"""

from collections.abc import Callable

from django.core.exceptions import ObjectDoesNotExist
from django.db import transaction
from django.db.models import F, Sum, Window
from django.http import FileResponse
from django.shortcuts import get_object_or_404
from django.utils.cache import get_conditional_response, patch_vary_headers
from rest_framework import exceptions, status
from rest_framework.parsers import MultiPartParser
from rest_framework.permissions import SAFE_METHODS
from rest_framework.response import Response
from rest_framework.settings import api_settings
from rest_framework.views import APIView

from people.api.exceptions import Conflict, Gone, TooLarge
from people.api.parameters import check_parameters
from people.api.parsers import JSONBytesParser
from preprocessing import images, ingest, reading, statistics
from preprocessing.api import payloads, schema
from preprocessing.identity import identity
from preprocessing.models import ClassAverage, Micrograph, ProcessingRun, RunEvent
from sessions_app import access
from sessions_app.models import Session

MAX_REVISION = 2**63 - 1
CHANGES = ("after", "limit")
PAGES = ("page", "page_size")
FORMAT = 1  # Part of every ETag: raised when rows are told in another form.


ARCHIVED = (
    "This session is archived: its rows are gone and its summary is frozen. Post to the session you are processing "
    "now, or ask the facility's staff to create one."
)


class ReportView(APIView):
    """Common to all that pipelines call: finding the session or run, and errors in the contract's words."""

    parser_classes = [JSONBytesParser]
    can_be_tried = False  # Whether ?dry_run=true is understood.
    parameters: tuple[str, ...] = ()  # What a GET understands.

    def initial(self, request, *args, **kwargs):
        super().initial(request, *args, **kwargs)
        if not hasattr(self, request.method.lower()):
            return  # 405, whatever else is wrong.
        if request.method in SAFE_METHODS:
            check_parameters(request, {*self.parameters, api_settings.URL_FORMAT_OVERRIDE})
        else:
            # A misspelt ?dry_run would store what was only meant to be tried.
            known = {"dry_run"} if self.can_be_tried else set()
            in_vain = "dry_run" in set(request.query_params) - known
            only = "Only exposures, micrographs and classes can be tried." if in_vain else ""
            check_parameters(request, known, only)

    @property
    def is_trial(self) -> bool:
        text = self.request.query_params.get("dry_run", "false")
        if text not in ("true", "false"):
            raise exceptions.ValidationError({"dry_run": ["Write true or false."]})
        return text == "true"

    def recorded(self, record: Callable[[], ingest.Outcome], revision: int) -> Response:
        """The answer of `record()`; of a trial, what it would come to, with the revision as it stays.

        A trial is done in full and undone: it finds whatever the real thing would find.
        """
        if not self.is_trial:
            return Response(counts(record()))
        with transaction.atomic():
            outcome = record()
            transaction.set_rollback(True)
        outcome.revision = revision
        return Response(counts(outcome) | {"dry_run": True})

    def session(self, name: str) -> Session:
        sessions = Session.objects.visible_to(self.request.user, among_few=True).named(name)
        return get_object_or_404(sessions.select_related("summary"))

    def run(self, pk: int, columns: tuple[str, ...] = ()) -> ProcessingRun:
        """The run with its session; of what is asked for most often only the columns that are needed."""
        runs = ProcessingRun.objects.visible_to(self.request.user).select_related("session")
        return get_object_or_404(runs.only(*columns) if columns else runs, pk=pk)

    def writable_session(self, name: str) -> Session:
        return self._writable(self.session(name))

    def writable_run(self, pk: int, columns: tuple[str, ...] = ()) -> ProcessingRun:
        run = self.run(pk, columns)
        self._writable(run.session)
        return run

    def _writable(self, session: Session) -> Session:
        if not access.can_report(self.request.user, session):
            raise exceptions.PermissionDenied(
                "Only pipelines with a token for this microscope and the facility's staff report processing."
            )
        if session.status == Session.Status.ARCHIVED:
            raise Conflict(ARCHIVED)
        return session

    def refuse_pruned(self, session: Session) -> None:
        """An archived session has no rows to tell: an empty answer would be taken for the truth."""
        if session.status == Session.Status.ARCHIVED:
            raise Gone(
                f"Session {session.name} is archived: its rows are gone, its numbers are in its summary."
            )

    def body(self) -> bytes:
        """The request's JSON, unread; empty where nothing was sent."""
        data = self.request.data
        return data if isinstance(data, bytes) else b""

    def handle_exception(self, exc):
        if isinstance(exc, payloads.Invalid):
            return self._refusal(exc.detail, status.HTTP_400_BAD_REQUEST)
        if isinstance(exc, ingest.Refused):
            return self._refusal({"errors": exc.errors[: payloads.MAX_REPORTED]}, status.HTTP_409_CONFLICT)
        if isinstance(exc, ingest.SessionArchived):
            exc = Conflict(ARCHIVED)
        elif isinstance(exc, ObjectDoesNotExist):
            # Deleted by staff between the first look and the lock.
            exc = exceptions.NotFound()
        return super().handle_exception(exc)

    def _refusal(self, detail: dict, code: int) -> Response:
        response = Response(detail, status=code)
        response.exception = True
        return response

    def after(self, revision: int) -> int:
        """The revision the reader has, from ?after=."""
        text = self.request.query_params.get("after", "0")
        if not (text.isascii() and text.isdigit() and int(text) <= MAX_REVISION):
            raise exceptions.ValidationError({"after": ["Give the revision of the answer before, or 0."]})
        if int(text) > revision:
            raise exceptions.ValidationError(
                {"after": [f"Nothing has this revision yet: the newest is {revision}. Read again from 0."]}
            )
        return int(text)

    def limit(self) -> int:
        text = self.request.query_params.get("limit", str(reading.PAGE))
        if not (text.isascii() and text.isdigit() and 1 <= int(text) <= reading.PAGE):
            raise exceptions.ValidationError({"limit": [f"Give a number from 1 to {reading.PAGE}."]})
        return int(text)

    def changes(self, what: str, pk: int, revision: int, read) -> Response:
        """The answer of `read(after, limit)`, or 304 where the caller has it."""
        after, limit = self.after(revision), self.limit()
        etag = changes_etag(what, pk, after, revision, limit)
        response = get_conditional_response(self.request, etag=etag)
        if response is None:
            response = Response(read(after, limit))
        response["ETag"] = etag  # Of a 304 as well (RFC 9110, 15.4.5).
        response["Cache-Control"] = "private, no-cache"
        patch_vary_headers(response, ["Authorization", "Cookie"])
        return response

    def page(self, queryset, told) -> Response:
        paginator = api_settings.DEFAULT_PAGINATION_CLASS()
        rows = paginator.paginate_queryset(queryset, self.request, view=self)
        return paginator.get_paginated_response([told(row) for row in rows])


def changes_etag(what: str, pk: int, after: int, revision: int, limit: int) -> str:
    """Of all that was asked for and the revision that was answered."""
    return f'"{FORMAT}-{what}-{pk}-{after}-{revision}-{limit}"'


def counts(outcome: ingest.Outcome) -> dict:
    return {
        "created": outcome.created,
        "updated": outcome.updated,
        "unchanged": outcome.unchanged,
        "revision": outcome.revision,
    }


def _refuse_nul(field: str, text: str) -> None:
    """PostgreSQL stores no NUL and refuses to look for one."""
    if "\x00" in text:
        raise exceptions.ValidationError({field: ["Control characters are not allowed."]})


def run_row(run: ProcessingRun, session_name: str) -> dict:
    """A run as the API tells it."""
    return {
        "id": run.pk,
        "session": session_name,
        **{
            name: getattr(run, name)
            for name in (
                "key",
                "software",
                "version",
                "host",
                "label",
                "status",
                "started_at",
                "finished_at",
                "last_seen_at",
                "parameters",
                "pixel_size",
                "width",
                "height",
                "particle_diameter",
                "micrographs",
                "motion_corrected",
                "ctf_estimated",
                "picked",
                "particles",
                "classes",
                "revision",
            )
        },
    }


class ExposureView(ReportView):
    can_be_tried = True
    parameters = CHANGES

    @schema.get_exposures
    def get(self, request, name):
        session = self.session(name)
        self.refuse_pruned(session)
        summary = session.summary
        return self.changes(
            "exposures",
            session.pk,
            summary.exposure_revision,
            lambda after, limit: reading.exposures_after(summary, after, limit),
        )

    @schema.post_exposures
    def post(self, request, name):
        session = self.writable_session(name)
        reports = payloads.exposures(self.body())
        return self.recorded(
            lambda: ingest.record_exposures(session.pk, reports), session.summary.exposure_revision
        )


class RunListView(ReportView):
    parameters = PAGES

    @schema.get_runs
    def get(self, request, name):
        session = self.session(name)
        runs = ProcessingRun.objects.filter(session=session).order_by("pk")
        return self.page(runs, lambda run: run_row(run, session.name))

    @schema.post_runs
    def post(self, request, name):
        session = self.writable_session(name)
        run, made = ingest.open_run(session.pk, **payloads.run_opening(self.body()))
        code = status.HTTP_201_CREATED if made else status.HTTP_200_OK
        return Response(run_row(run, session.name), status=code)


class RunView(ReportView):
    @schema.get_run
    def get(self, request, pk):
        run = self.run(pk)
        return Response(run_row(run, run.session.name))

    @schema.patch_run
    def patch(self, request, pk):
        run = self.writable_run(pk)
        changed = ingest.change_run(run.session_id, run.pk, **payloads.run_change(self.body()))
        return Response(run_row(changed, run.session.name))


class MicrographView(ReportView):
    can_be_tried = True
    parameters = CHANGES
    columns = ("revision", "session__name", "session__status")

    @schema.get_micrographs
    def get(self, request, pk):
        run = self.run(pk, self.columns)
        self.refuse_pruned(run.session)
        return self.changes(
            "micrographs",
            run.pk,
            run.revision,
            lambda after, limit: reading.micrographs_after(run, run.session.name, after, limit),
        )

    @schema.post_micrographs
    def post(self, request, pk):
        run = self.writable_run(pk, self.columns)
        if failed := getattr(request._request, "ingestion_failed", None):
            raise failed  # Tried already, on the short way.
        reports = payloads.micrographs(self.body())
        return self.recorded(lambda: ingest.record_micrographs(run.session_id, run.pk, reports), run.revision)


class CoordinateView(ReportView):
    @schema.get_coordinates
    def get(self, request, pk):
        micrographs = Micrograph.objects.visible_to(request.user).select_related("run")
        micrograph = get_object_or_404(micrographs, pk=pk)
        points = reading.points(micrograph.pk)
        return Response(
            {
                "micrograph": micrograph.pk,
                "name": micrograph.name,
                "width": micrograph.run.width,
                "height": micrograph.run.height,
                "coordinates": None if points is None else points.tolist(),
            }
        )


class ClassView(ReportView):
    can_be_tried = True
    parameters = ("job", "iteration", "latest", *PAGES)

    @schema.get_classes
    def get(self, request, pk):
        run = self.run(pk)
        params = request.query_params
        rows = ClassAverage.objects.filter(run=run)
        latest = params.get("latest", "false")
        if latest not in ("true", "false"):
            raise exceptions.ValidationError({"latest": ["Write true or false."]})
        if latest == "true":
            rows = ClassAverage.objects.latest_set(run)
        if "job" in params:
            _refuse_nul("job", params["job"])
            rows = rows.filter(job=params["job"])
        if "iteration" in params:
            text = params["iteration"]
            if not (text.isascii() and text.isdigit() and len(text) < 10):
                raise exceptions.ValidationError({"iteration": ["Give a whole number."]})
            rows = rows.filter(iteration=int(text))
        rows = rows.annotate(
            of_set=Window(Sum("particles"), partition_by=[F("job"), F("iteration")])
        ).order_by("job", "-iteration", "-particles", "number")
        return self.page(rows, lambda row: _class_row(row, run.session.name))

    @schema.post_classes
    def post(self, request, pk):
        run = self.writable_run(pk)
        batch = payloads.classes(self.body())
        return self.recorded(
            lambda: ingest.record_classes(
                run.session_id,
                run.pk,
                job=batch.job,
                iteration=batch.iteration,
                classes=[payloads.given(item) for item in batch.classes],
            ),
            run.revision,
        )


def _class_row(row: ClassAverage, session_name: str) -> dict:
    return {
        "id": row.pk,
        "job": row.job,
        "iteration": row.iteration,
        "number": row.number,
        "particles": row.particles,
        "share": row.particles / row.of_set if row.of_set else None,
        "resolution": row.resolution,
        "image": reading.image_url(session_name, row.image),
        "revision": row.revision,
    }


class EventView(ReportView):
    parameters = PAGES

    @schema.get_events
    def get(self, request, pk):
        run = self.run(pk)
        return self.page(RunEvent.objects.filter(run=run).order_by("-pk"), _event_row)

    @schema.post_event
    def post(self, request, pk):
        run = self.writable_run(pk)
        event, made = ingest.record_event(run.session_id, run.pk, **payloads.event(self.body()))
        return Response(_event_row(event), status=status.HTTP_201_CREATED if made else status.HTTP_200_OK)


def _event_row(event: RunEvent) -> dict:
    return {
        "id": event.pk,
        "at": event.at,
        "level": event.level,
        "text": event.text,
        "revision": event.revision,
    }


class ImageUploadView(ReportView):
    parser_classes = [MultiPartParser]
    of_micrograph = {"micrograph": "micrograph_image", "psd": "psd_image"}

    @schema.post_image
    def post(self, request, pk):
        run = self.writable_run(pk)
        self._check_length()
        target = self._target(run)
        file = request.FILES.get("file")
        if file is None or len(request.FILES) != 1:
            raise exceptions.ValidationError({"file": ["Send one picture: PNG, JPEG or WebP."]})
        try:
            images.check_size(file.size)
            name = images.store(run.session, images.encode(file))
        except images.TooLarge as error:
            raise TooLarge({"file": [str(error)]}) from error
        except images.WrongType as error:
            refusal = exceptions.UnsupportedMediaType("", detail={"file": [str(error)]})
            raise refusal from error
        except images.Broken as error:
            raise exceptions.ValidationError({"file": [str(error)]}) from error
        row, changed = ingest.attach_image(run.session_id, run.pk, target, name)
        return Response(
            {
                "id": row.pk,
                "kind": request.data["kind"],
                "image": reading.image_url(run.session.name, name),
                "unchanged": not changed,
                "revision": row.revision,
            },
            status=status.HTTP_201_CREATED if changed else status.HTTP_200_OK,
        )

    def _check_length(self) -> None:
        """Refused by its announced length, before anything of it is read."""
        try:
            images.check_size(int(self.request.META.get("CONTENT_LENGTH") or 0) - 64 * 1024)
        except images.TooLarge as error:
            raise TooLarge({"file": [str(error)]}) from error

    def _target(self, run: ProcessingRun) -> ingest.ImageOf:
        data = self.request.data
        self._check_texts(data)
        kind = data.get("kind")
        allowed = {"kind", "file"} | (
            {"micrograph"} if kind in self.of_micrograph else {"job", "iteration", "number"}
        )
        if kind not in (*self.of_micrograph, "class_average"):
            raise exceptions.ValidationError({"kind": ["Give micrograph, psd or class_average."]})
        if unknown := sorted(set(data) - allowed):
            raise exceptions.ValidationError({name: ["There is no such field here."] for name in unknown})
        if kind == "class_average":
            return self._class(run, data)
        return self._micrograph(run, data.get("micrograph", ""), self.of_micrograph[kind])

    def _check_texts(self, data) -> None:
        """Every field but `file` is a text, and is there once."""
        for name in data:
            given = data.getlist(name)
            if len(given) > 1:
                raise exceptions.ValidationError({name: ["Give this field once."]})
            if name != "file" and not isinstance(given[0], str):
                raise exceptions.ValidationError({name: ["Send this as a text of the form, not as a file."]})

    def _micrograph(self, run: ProcessingRun, given: str, column: str) -> ingest.ImageOf:
        """By its name as posted, or any that means the same exposure; by its id in this run."""
        rows = Micrograph.objects.filter(run=run)
        _refuse_nul("micrograph", given)
        try:
            row = rows.filter(exposure__session=run.session_id, exposure__identity=identity(given)).first()
        except ValueError:
            row = None
        if row is None and given.isascii() and given.isdigit() and len(given) < 19:
            row = rows.filter(pk=int(given)).first()
        if row is None:
            raise exceptions.ValidationError(
                {
                    "micrograph": [
                        "This run has no such micrograph. Post the micrograph first, then its pictures."
                    ]
                }
            )
        return ingest.ImageOf(Micrograph, column, {"pk": row.pk})

    def _class(self, run: ProcessingRun, data) -> ingest.ImageOf:
        lookup, errors = {"job": data.get("job", "")}, {}
        for name in ("iteration", "number"):
            text = data.get(name, "0" if name == "iteration" else "")
            if text.isascii() and text.isdigit() and len(text) < 10:
                lookup[name] = int(text)
            else:
                errors[name] = ["Give a whole number."]
        _refuse_nul("job", lookup["job"])
        if errors:
            raise exceptions.ValidationError(errors)
        if not ClassAverage.objects.filter(run=run, **lookup).exists():
            raise exceptions.ValidationError(
                {"number": ["This run has no such class. Post the class first, then its picture."]}
            )
        return ingest.ImageOf(ClassAverage, "image", lookup)


class SummaryView(ReportView):
    @schema.get_summary
    def get(self, request, name):
        return Response(statistics.summary(self.session(name)))


class ImageView(ReportView):
    """A picture, for whoever sees its session: by the login cookie or by a pipeline's token."""

    @schema.get_image
    def get(self, request, name, file):
        session = self.session(name)
        path = images.image_path(session, file)
        if path is None:
            raise exceptions.NotFound()
        etag = f'"{path.stem}"'
        response = get_conditional_response(request, etag=etag)
        if response is None:
            response = FileResponse(path.open("rb"), content_type=images.CONTENT_TYPE)
        response["ETag"] = etag
        # The name is the content's hash: what it means never changes. Private, as others may not see it.
        response["Cache-Control"] = "private, max-age=31536000, immutable"
        response["X-Content-Type-Options"] = "nosniff"
        response["Content-Disposition"] = f'inline; filename="{path.name}"'
        return response
