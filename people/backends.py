"""Logging in by username or by e-mail address, ignoring case."""

from django.contrib.auth import get_user_model
from django.contrib.auth.backends import ModelBackend
from django.db.models import Q


def user_named(name: str):
    """The person of this username or e-mail address, in any case; None if there is none. Service users never log in."""
    User = get_user_model()
    users = list(
        User.objects.filter(Q(username__iexact=name) | Q(email__iexact=name), is_service=False)[:3]
        if name
        else []
    )
    # A username that looks like someone else's address wins over the address.
    users.sort(key=lambda user: user.username.lower() != name.lower())
    return users[0] if users else None


class UsernameOrEmailBackend(ModelBackend):
    """Django's own backend, that finds a person by e-mail address too."""

    def authenticate(self, request, username=None, password=None, **kwargs):
        if not username or password is None:
            return None
        user = user_named(username)
        if user is None:
            get_user_model()().set_password(
                password
            )  # Costs what a check costs, so that names cannot be found by time.
            return None
        return user if user.check_password(password) and self.user_can_authenticate(user) else None

    def get_user(self, user_id):
        """Who is logged in, with their preferences: every page shows times, so every page would ask for them."""
        user = get_user_model().objects.select_related("preferences").filter(pk=user_id).first()
        return user if user is not None and self.user_can_authenticate(user) else None

    def user_can_authenticate(self, user):
        return super().user_can_authenticate(user) and not user.is_service
