"""Logging in by username or by e-mail address, ignoring case."""

from django.contrib.auth import get_user_model
from django.contrib.auth.backends import ModelBackend
from django.db.models import Q


class UsernameOrEmailBackend(ModelBackend):
    """Django's own backend, that finds a person by e-mail address too. Service users never log in."""

    def authenticate(self, request, username=None, password=None, **kwargs):
        if not username or password is None:
            return None
        User = get_user_model()
        users = list(
            User.objects.filter(Q(username__iexact=username) | Q(email__iexact=username), is_service=False)[
                :3
            ]
        )
        # A username that looks like someone else's address wins over the address.
        users.sort(key=lambda user: user.username.lower() != username.lower())
        if not users:
            User().set_password(password)  # Costs what a check costs, so that names cannot be found by time.
            return None
        user = users[0]
        return user if user.check_password(password) and self.user_can_authenticate(user) else None

    def user_can_authenticate(self, user):
        return super().user_can_authenticate(user) and not user.is_service
