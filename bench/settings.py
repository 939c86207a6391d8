"""The site's settings with one address more: a call that authenticates and does nothing (bench/urls.py)."""

from emhub_site.settings import *  # noqa: F403

ROOT_URLCONF = "bench.urls"
# One token and one address send all that a facility's machines send together. The limits are still counted.
API_RATE_PER_TOKEN = API_RATE_PER_ADDRESS = 100_000_000
