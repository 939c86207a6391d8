"""Bookings as programs and browsers see them: the same rules in the same words as on the pages."""

from django.core.exceptions import ValidationError
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
    BookingReadSerializer,
    BookingWriteSerializer,
)
from bookings.models import Booking
from bookings.rules import OVERLAPS, broken_rules
from bookings.services import booking_cancel, booking_create, booking_update
from people.api.exceptions import Conflict

REFUSED = OpenApiResponse(
    description="Malformed, or a rule is broken: messages by field, and in `rules` the names of the rules."
)
LISTS = ("collaborators", "slot_labs", "slot_applications")
TAKEN = OpenApiResponse(description="The microscope is taken then; or the booking was cancelled.")
BOOKING_EXAMPLE = {
    "microscope": "krios1",
    "title": "Apoferritin, grid screening",
    "start": "2026-12-01T09:00:00+01:00",
    "end": "2026-12-01T18:00:00+01:00",
    "lab": "Hall lab",
    "collaborators": ["jweber"],
}
NOT_YOURS = OpenApiResponse(description="You may read but not change this, or a pipeline's token.")


class Refused(exceptions.APIException):
    """A service's ValidationError: 409 where only an overlap stands in the way, otherwise 400."""

    def __init__(self, error: ValidationError):
        body = as_serializer_error(error)
        if api_settings.NON_FIELD_ERRORS_KEY in body:
            body["detail"] = " ".join(body.pop(api_settings.NON_FIELD_ERRORS_KEY))
        broken = broken_rules(error)
        if broken:
            body["rules"] = sorted(broken)
        overlaps = broken and broken <= OVERLAPS
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
        bookings = Booking.objects.with_people().prefetch_related(*LISTS)
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
        request=BookingWriteSerializer,
        responses={201: BookingReadSerializer, 400: REFUSED, 403: NOT_YOURS, 409: TAKEN},
        examples=[OpenApiExample("A day for one's lab", value=BOOKING_EXAMPLE, request_only=True)],
    )
    def create(self, request):
        if not access.can_create(request.user):
            raise exceptions.PermissionDenied("This account cannot book microscopes.")
        serializer = BookingWriteSerializer(data=request.data, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        booking = self._ask(booking_create, **serializer.validated_data)
        return Response(self._read(booking), status=status.HTTP_201_CREATED)

    @extend_schema(
        summary="Change a booking",
        request=BookingWriteSerializer,
        responses={200: BookingReadSerializer, 400: REFUSED, 403: NOT_YOURS, 409: TAKEN},
        examples=[
            OpenApiExample("Another end", value={"end": "2026-12-01T20:00:00+01:00"}, request_only=True),
            OpenApiExample("Another operator", value={"operator": "jweber"}, request_only=True),
        ],
    )
    def partial_update(self, request, pk):
        booking = self._changeable()
        serializer = BookingWriteSerializer(
            booking, data=request.data, partial=True, context=self.get_serializer_context()
        )
        serializer.is_valid(raise_exception=True)
        booking = self._ask(booking_update, booking=booking, **serializer.validated_data)
        return Response(self._read(booking))

    @extend_schema(
        summary="Cancel a booking",
        description="Its time is free at once; the record stays with who, when and why. A body may say "
        '`{"reason": "The grids are not ready."}`, which is needed on cancelling for another, and '
        '`"keep_sessions": true` where images were taken already.',
        request=BookingCancelSerializer,
        responses={204: None, 400: REFUSED, 403: NOT_YOURS, 409: TAKEN},
    )
    def destroy(self, request, pk):
        booking = self._changeable()
        serializer = BookingCancelSerializer(data=request.data or {}, context=self.get_serializer_context())
        serializer.is_valid(raise_exception=True)
        self._ask(booking_cancel, booking=booking, **serializer.validated_data)
        return Response(status=status.HTTP_204_NO_CONTENT)

    def _changeable(self) -> Booking:
        booking = self.get_object()
        if booking.is_cancelled:
            raise Conflict(access.refusal_to_change(booking))
        if not access.can_change(self.request.user, booking):
            raise exceptions.PermissionDenied(access.refusal_to_change(booking))
        return booking

    def _ask(self, service, **fields) -> Booking:
        try:
            return service(actor=self.request.user, **fields)
        except ValidationError as error:
            raise Refused(error) from error

    def _read(self, booking: Booking) -> dict:
        """Whoever made or changed it may read it, even if they are no longer named on it."""
        row = Booking.objects.with_people().prefetch_related(*LISTS).get(pk=booking.pk)
        return BookingReadSerializer(row, context=self.get_serializer_context()).data
