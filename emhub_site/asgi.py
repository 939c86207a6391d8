"""The ASGI entry point, for facilities whose server speaks ASGI."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "emhub_site.settings")
application = get_asgi_application()
