"""The site's settings with one address more: a call that authenticates and does nothing (bench/urls.py)."""

from emhub_site.settings import *  # noqa: F403
from emhub_site.settings import REST_FRAMEWORK

ROOT_URLCONF = "bench.urls"
# One token and one address send all that a facility's machines send together. The limits are still counted.
if rates := REST_FRAMEWORK.get("DEFAULT_THROTTLE_RATES"):
    REST_FRAMEWORK = REST_FRAMEWORK | {"DEFAULT_THROTTLE_RATES": dict.fromkeys(rates, "1000000/s")}
