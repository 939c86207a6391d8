"""`Authorization: Token <key>` for pipelines."""

from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework import authentication, exceptions

from microscopes.tokens import Refusal, token_of_key


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
        try:
            token = token_of_key(key)
        except Refusal as refusal:
            raise exceptions.AuthenticationFailed(str(refusal)) from refusal
        token.touch()
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
