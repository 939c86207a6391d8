"""`Authorization: Token <key>` for pipelines."""

from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import authentication, exceptions

from microscopes.models import PipelineToken


class PipelineTokenAuthentication(authentication.BaseAuthentication):
    """Answers the token's service user, with the token at `user.pipeline_token` and as `request.auth`."""

    keyword = "Token"

    def authenticate(self, request):
        words = authentication.get_authorization_header(request).split()
        if not words or words[0].lower() != b"token":
            return None
        if len(words) != 2:
            raise exceptions.AuthenticationFailed("Write the header as `Authorization: Token KEY`.")
        try:
            key = words[1].decode("ascii")
        except UnicodeDecodeError as error:
            raise exceptions.AuthenticationFailed("A token has only ASCII letters.") from error
        # A prefix is unique: without an order the query costs every request less.
        tokens = PipelineToken.objects.get_usable_keys().filter(prefix=key.partition(".")[0]).order_by()
        token = next(iter(tokens), None)
        # One answer for unknown, revoked and wrong, so that nothing is learnt by trying.
        if token is None or not PipelineToken.objects.key_generator.verify(key, token.hashed_key):
            raise exceptions.AuthenticationFailed(
                "This token is not valid. Ask the facility's staff for a new one."
            )
        if token.expiry_date is not None and token.expiry_date < timezone.now():
            raise exceptions.AuthenticationFailed(
                f"This token expired on {token.expiry_date:%Y-%m-%d}. Ask the facility's staff for a new one."
            )
        if not token.user.is_active:
            raise exceptions.AuthenticationFailed("This token's user is deactivated.")
        token.touch()
        token.user.pipeline_token = token
        return token.user, token

    def authenticate_header(self, request):
        return self.keyword


class PipelineTokenScheme(OpenApiAuthenticationExtension):
    target_class = PipelineTokenAuthentication
    name = "pipelineToken"

    def get_security_definition(self, auto_schema):
        return {
            "type": "apiKey",
            "in": "header",
            "name": "Authorization",
            "description": "`Token KEY`, with a key made by the facility's staff.",
        }
