"""Bookings as programs and browsers see them: the same rules in the same words as on the pages."""

from collections.abc import Sequence
from functools import partial

from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from drf_spectacular.utils import OpenApiExample, OpenApiResponse, extend_schema, extend_schema_view
from rest_framework import exceptions, mixins, status, viewsets
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.serializers import as_serializer_error
from rest_framework.settings import api_settings

from bookings import access
from bookings.api.filters import BookingFilterSet
from bookings.api.serializers import (
    BookingCancelSerializer,
    BookingChangeSerializer,
    BookingCreateSerializer,
    BookingReadSerializer,
    displaced,
)
from bookings.downtime import UNCONFIRMED, Hit, clear_for_upkeep, hits, proposed_reason
from bookings.models import Booking
from bookings.rules import OVERLAPS, UPKEEP, broken_rules, by_rule
from bookings.series import THIS, series_cancel, series_create, series_update
from bookings.services import booking_cancel, booking_create, booking_update
from people.access import is_staff
from people.api.exceptions import Conflict

REFUSED = OpenApiResponse(
    description="Malformed, or a rule is broken: messages by field, and in `rules` the names of the rules."
)
LISTS = ("collaborators", "slot_labs", "slot_applications")
TAKEN = OpenApiResponse(
    description="The microscope is taken then (of a repeat, `detail` names the dates); or the booking was cancelled. "
    "For staff's downtime and maintenance `displaces` lists the bookings in the way, to be confirmed by `displace`."
)
BOOKING_EXAMPLE = {
    "microscope": "krios1",
    "title": "Apoferritin, grid screening",
    "start": "2026-12-01T09:00:00+01:00",
    "end": "2026-12-01T18:00:00+01:00",
    "lab": "Hall lab",
    "collaborators": ["jweber"],
}
REPEAT_EXAMPLE = BOOKING_EXAMPLE | {
    "repeat": {"every": 1, "unit": "weeks", "weekdays": [1, 3], "until": "2026-12-24"}
}
DOWNTIME_EXAMPLE = {name: BOOKING_EXAMPLE[name] for name in ("microscope", "start", "end")} | {
    "kind": "downtime",
    "displace": [17, 18],
    "displace_reason": "The gun is off.",
}
NOT_YOURS = OpenApiResponse(description="You may read but not change this, or a pipeline's token.")


class Refused(exceptions.APIException):
    """A service's ValidationError: 409 where only an overlap stands in the way, otherwise 400.

    `in_the_way` are the bookings that staff could displace.
    """

    def __init__(self, error: ValidationError, in_the_way: Sequence[Hit] = ()):
        body = as_serializer_error(error)
        general = [*body.pop(NON_FIELD_ERRORS, []), *body.pop(api_settings.NON_FIELD_ERRORS_KEY, [])]
        if general:
            body["detail"] = " ".join(general)
        # The form's fields of a repeat are one field here.
        for name in ("every", "until"):
            if f"repeat_{name}" in body:
                body.setdefault("repeat", {})[name] = body.pop(f"repeat_{name}")
        broken = broken_rules(error)
        if broken:
            body["rules"] = sorted(broken)
        if in_the_way:
            body["displaces"] = [displaced(hit) for hit in in_the_way]
        overlaps = (broken and broken <= OVERLAPS) or by_rule(error).keys() == {UNCONFIRMED}
        self.status_code = status.HTTP_409_CONFLICT if overlaps else status.HTTP_400_BAD_REQUEST
        self.detail = body


class IsPerson(IsAuthenticated):
    """Pipelines have nothing to do with bookings."""

    message = "Bookings are for people, not for pipelines."

    def has_permission(self, request, view):
        return super().has_permission(request, view) and not request.user.is_service


@extend_schema_view(
    list=extend_schema(
        summary="Who has which microscope when, by start",
        description='Others\' bookings have microscope, start and end alone, and the title "Booked".',
        responses={200: BookingReadSerializer(many=True), 403: NOT_YOURS},
    ),
    retrieve=extend_schema(summary="One booking whose details you may read", responses=BookingReadSerializer),
)
class BookingViewSet(mixins.ListModelMixin, mixins.RetrieveModelMixin, viewsets.GenericViewSet):
    """The facility's bookings. DELETE cancels: the record stays, the time is free again."""

    queryset = Booking.objects.none()
    serializer_class = BookingReadSerializer
    filterset_class = BookingFilterSet
    permission_classes = [IsPerson]
    lookup_value_regex = "[0-9]{1,18}"
    http_method_names = ["get", "post", "patch", "delete", "head", "options"]

    def get_queryset(self):
        bookings = Booking.objects.with_people().select_related("series").prefetch_related(*LISTS)
        if self.action == "list":
            return bookings.with_details_visible_to(self.request.user).order_by("start", "id")
        return bookings.visible_to(self.request.user)

    def filter_queryset(self, queryset):
        """Filters narrow the list; a booking is found by its id in whatever state."""
        return super().filter_queryset(queryset) if self.action == "list" else queryset

    def paginate_queryset(self, queryset):
        return [access.as_seen(booking) for booking in super().paginate_queryset(queryset)]

    @extend_schema(
        summary="Book a microscope",
        request=BookingCreateSerializer,
        responses={201: BookingReadSerializer, 400: REFUSED, 403: NOT_YOURS, 409: TAKEN},
        examples=[
            OpenApiExample("A day for one's lab", value=BOOKING_EXAMPLE, request_only=True),
            OpenApiExample("Tuesdays and Thursdays until Christmas", value=REPEAT_EXAMPLE, request_only=True),
            OpenApiExample("Downtime over two bookings", value=DOWNTIME_EXAMPLE, request_only=True),
        ],
    )
    def create(self, request):
        if not access.can_create(request.user):
            raise exceptions.PermissionDenied("This account cannot book microscopes.")
        serializer = BookingCreateSerializer(data=request.data, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        wished = dict(serializer.validated_data)
        repeat = wished.pop("repeat", None)
        if repeat is None:
            booking = self._ask_for_time(booking_create, Booking(), wished)
        else:
            self._one_at_a_time(wished)
            booking = self._ask(series_create, repeat=repeat, **wished)[0]
        return Response(self._read(booking), status=status.HTTP_201_CREATED)

    @extend_schema(
        summary="Change a booking, or more of its repeat",
        request=BookingChangeSerializer,
        responses={200: BookingReadSerializer, 400: REFUSED, 403: NOT_YOURS, 409: TAKEN},
        examples=[
            OpenApiExample("Another end", value={"end": "2026-12-01T20:00:00+01:00"}, request_only=True),
            OpenApiExample("Another operator", value={"operator": "jweber"}, request_only=True),
            OpenApiExample(
                "Another title from here on", value={"title": "Ribosome", "scope": "later"}, request_only=True
            ),
        ],
    )
    def partial_update(self, request, pk):
        booking = self._changeable()
        serializer = BookingChangeSerializer(
            booking, data=request.data, partial=True, context=self.get_serializer_context()
        )
        serializer.is_valid(raise_exception=True)
        wished = dict(serializer.validated_data)
        scope = wished.pop("scope", THIS)
        if scope == THIS:
            self._ask_for_time(partial(booking_update, booking=booking), booking, wished)
        else:
            self._one_at_a_time(wished)
            self._ask(series_update, booking=booking, scope=scope, **wished)
        return Response(self._read(booking))

    @extend_schema(
        summary="Cancel a booking, or more of its repeat",
        description="Its time is free at once; the record stays with who, when and why. A body may say more: "
        '`reason` is needed on cancelling for another, `"keep_sessions": true` where images were taken already. '
        '`"scope": "later"` or `"all"` reaches more of a repeat: all of them are cancelled or none.',
        request=BookingCancelSerializer,
        responses={204: None, 400: REFUSED, 403: NOT_YOURS, 409: TAKEN},
        examples=[
            OpenApiExample("One's own, without a word", value={}, request_only=True),
            OpenApiExample("For another", value={"reason": "The grids are not ready."}, request_only=True),
            OpenApiExample(
                "This and later ones of a repeat",
                value={"reason": "The project has ended.", "scope": "later"},
                request_only=True,
            ),
            OpenApiExample(
                "Although images were taken",
                value={"reason": "The gun is off.", "keep_sessions": True},
                request_only=True,
            ),
        ],
    )
    def destroy(self, request, pk):
        booking = self._changeable()
        serializer = BookingCancelSerializer(data=request.data or {}, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        wished = dict(serializer.validated_data)
        scope = wished.pop("scope")
        if scope == THIS:
            self._ask(booking_cancel, booking=booking, **wished)
        else:
            wished.pop("keep_sessions")  # Those with sessions are not reached.
            self._ask(series_cancel, booking=booking, scope=scope, **wished)
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _changeable(self) -> Booking:
        booking = self.get_object()
        if booking.is_cancelled:
            raise Conflict(access.refusal_to_change(booking))
        if not access.can_change(self.request.user, booking):
            raise exceptions.PermissionDenied(access.refusal_to_change(booking))
        return booking

    def _ask(self, service, **fields):
        try:
            return service(actor=self.request.user, **fields)
        except ValidationError as error:
            raise Refused(error) from error

    @staticmethod
    def _one_at_a_time(wished: dict) -> None:
        """Whose time a repeat would take is not asked for all of its dates at once."""
        wished.pop("displace_reason", None)
        if wished.pop("displace", None):
            raise exceptions.ValidationError({"displace": ["Bookings give way to one downtime at a time."]})

    def _ask_for_time(self, service, booking: Booking, wished: dict) -> Booking:
        """Make or change one booking; staff's upkeep takes the time of those that `displace` names."""
        reason = wished.pop("displace_reason", "").strip()
        confirmed = wished.pop("displace", [])
        names = ("microscope", "kind", "start", "end")
        here = {name: wished.get(name, getattr(booking, name) if booking.pk else None) for name in names}
        here["kind"] = here["kind"] or Booking.Kind.BOOKING
        actor = self.request.user
        save = partial(service, actor=actor, **wished)
        try:
            if not confirmed:
                return save()
            return clear_for_upkeep(
                **here,
                actor=actor,
                confirmed=confirmed,
                reason=reason or proposed_reason(**here),
                then=save,
                apart_from=booking,
            )
        except ValidationError as error:
            in_the_way = ()
            if is_staff(actor) and here.pop("kind") in UPKEEP and here["start"] < here["end"]:
                in_the_way = hits(**here, apart_from=booking)
            raise Refused(error, in_the_way) from error

    def _read(self, booking: Booking) -> dict:
        """Whoever made or changed it may read it, even if they are no longer named on it."""
        row = (
            Booking.objects.with_people().select_related("series").prefetch_related(*LISTS).get(pk=booking.pk)
        )
        return BookingReadSerializer(row, context=self.get_serializer_context()).data
