"""Sessions as programs and browsers see them."""

import datetime

from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.http import Http404
from django.shortcuts import get_object_or_404
from django.utils import timezone
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import exceptions, mixins, status, viewsets
from rest_framework.permissions import SAFE_METHODS, IsAuthenticated
from rest_framework.response import Response

from people.access import is_pipeline, is_staff
from people.api.exceptions import Conflict
from people.api.parameters import check_parameters
from sessions_app import access
from sessions_app.api.filters import SessionFilterSet
from sessions_app.api.serializers import (
    DATA_FIELDS,
    SessionCreateSerializer,
    SessionReadSerializer,
    SessionUpdateSerializer,
)
from sessions_app.lifecycle import session_finish, session_reopen
from sessions_app.models import Session
from sessions_app.naming import NAME
from sessions_app.services import session_create

HEARTBEAT = datetime.timedelta(minutes=1)

NEW_EXAMPLE = {
    "booking": 17,
    "camera": "Falcon 4i",
    "sample": "apoferritin",
    "magnification": 130_000,
    "pixel_size": 0.885,
    "total_dose": 40.0,
    "frames": 40,
    "exposure_time": 2.4,
}
FILES_EXAMPLE = {
    "data_movies": 214,
    "data_files": 642,
    "data_bytes": 188_743_680_000,
    "last_file_at": "2026-11-23T14:02:11+01:00",
}


def _examples(**values) -> list[OpenApiExample]:
    return [
        OpenApiExample(name.replace("_", " "), value=value, request_only=True)
        for name, value in values.items()
    ]


@extend_schema_view(
    list=extend_schema(summary="Sessions you may see, newest first"),
    retrieve=extend_schema(summary="One session"),
)
class SessionViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    """Found by name, in whatever case. Pipelines read and correct; people also create. Nobody deletes here."""

    queryset = Session.objects.none()
    serializer_class = SessionReadSerializer
    filterset_class = SessionFilterSet
    permission_classes = [IsAuthenticated]
    lookup_field = "name"
    http_method_names = ["get", "post", "patch", "head", "options"]

    def initial(self, request, *args, **kwargs):
        super().initial(request, *args, **kwargs)
        if self.action and request.method not in SAFE_METHODS:
            check_parameters(request, ())

    def get_queryset(self):
        sessions = Session.objects.visible_to(self.request.user).with_row().select_related("data_server")
        return sessions.order_by("-start", "-id")

    def paginate_queryset(self, queryset):
        """Ids first: what a row tells is joined for this page alone, not for all that the person may see."""
        ids = super().paginate_queryset(queryset.values_list("pk", flat=True))
        rows = Session.objects.filter(pk__in=ids).with_row().select_related("data_server").in_bulk()
        return [rows[pk] for pk in ids if pk in rows]

    def get_object(self):
        name = self.kwargs["name"]
        session = self.get_queryset().named(name).first() if NAME.fullmatch(name) else None
        if session is None:
            raise Http404
        return session

    @extend_schema(
        summary="Create a session for a booking that runs now",
        request=SessionCreateSerializer,
        responses={
            201: SessionReadSerializer,
            403: OpenApiResponse(description="Not your booking, or a pipeline's token."),
        },
        examples=_examples(A_session=NEW_EXAMPLE),
    )
    def create(self, request):
        if request.user.is_service:
            raise exceptions.PermissionDenied("Sessions are created by people, not by pipelines.")
        serializer = SessionCreateSerializer(data=request.data, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        try:
            session = session_create(creator=request.user, **serializer.validated_data)
        except PermissionDenied as error:
            raise exceptions.PermissionDenied(str(error)) from error
        return Response(self._read(session.name), status=status.HTTP_201_CREATED)

    @extend_schema(
        summary="Correct acquisition, status or data counters",
        description="Only what is given is written. Data counters and an empty change, sent by token, are the "
        "watcher's sign of life.",
        request=SessionUpdateSerializer,
        responses={
            200: SessionReadSerializer,
            403: OpenApiResponse(description="You may read but not change this."),
            409: OpenApiResponse(description="The session is archived, or has ended and cannot run again."),
        },
        examples=_examples(
            Files_so_far=FILES_EXAMPLE,
            Acquisition={"pixel_size": 0.885, "total_dose": 40.0, "camera": "Falcon 4i"},
            It_has_finished={"status": "finished"},
            The_watcher_is_alive={},
        ),
    )
    def partial_update(self, request, name):
        session = self.get_object()
        serializer = SessionUpdateSerializer(
            session, data=request.data, partial=True, context=self.get_serializer_context()
        )
        serializer.is_valid(raise_exception=True)
        self._update(request.user, session, dict(serializer.validated_data))
        return Response(self._read(session.name))

    def _update(self, user, session, values):
        self._check_may_write(user, session, values)
        # What a token writes of the data, or an empty change, is the watcher's sign of life.
        watcher = is_pipeline(user) and (not values or any(field in values for field in DATA_FIELDS))
        new_status = values.pop("status", None)
        with transaction.atomic():
            row = get_object_or_404(Session.objects.select_for_update(no_key=True), pk=session.pk)
            if row.status == Session.Status.ARCHIVED:
                raise Conflict(
                    "This session is archived and cannot change any more. Correct the session that is recorded now, or "
                    "ask the facility's staff to create one."
                )
            now = timezone.now()
            if watcher and (row.watcher_seen_at is None or now - row.watcher_seen_at >= HEARTBEAT):
                values["watcher_seen_at"] = now
            if values:
                # Only what was given: other writers' fields of the same row are left as they are.
                for field, value in values.items():
                    setattr(row, field, value)
                row.save(update_fields=list(values))
            if new_status is not None and new_status != row.status:
                self._set_status(user, row, new_status)

    def _set_status(self, user, row, new_status):
        if new_status in (Session.Status.FINISHED, Session.Status.FAILED):
            session_finish(row, user, status=new_status)
        elif row.is_running:
            row.status = new_status
            row.save(update_fields=["status"])
        elif is_staff(user):
            session_reopen(row, user)
        else:
            raise Conflict("This session has ended. Ask the facility's staff to reopen it.")

    def _check_may_write(self, user, session, values):
        if access.can_report(user, session):
            return
        if not access.can_change(user, session):
            raise exceptions.PermissionDenied("You may read this session but not change it.")
        watched = [field for field in DATA_FIELDS if field in values]
        if watched:
            raise exceptions.PermissionDenied(
                f"Only the acquisition watcher and staff write {', '.join(watched)}."
            )

    def _read(self, name):
        session = self.get_queryset().named(name).get()
        return SessionReadSerializer(session, context=self.get_serializer_context()).data
