"""Settings of the site. Everything a facility decides comes from the environment (see docs/operators)."""

from datetime import timedelta
from pathlib import Path
from zoneinfo import available_timezones

import environ
from csp.constants import NONE, SELF
from django.contrib.messages import constants as message_levels
from django.core.exceptions import ImproperlyConfigured

from emhub_site import env

BASE_DIR = Path(__file__).resolve().parent.parent
VERSION = "0.1.0"
env.read_file()

# -- Where things are --------------------------------------------------------------------------------------
DATA_DIR = env.folder("EMHUB_DATA_DIR", BASE_DIR / "var")
MEDIA_ROOT = DATA_DIR / "media"
MEDIA_URL = "media/"  # Never served as such: images go through the sessions' own gate.
STATIC_URL = "static/"
STATIC_ROOT = Path(env.text("EMHUB_STATIC_ROOT", str(DATA_DIR / "static"))).expanduser().resolve()
STATICFILES_DIRS = [path for path in (BASE_DIR / "static", BASE_DIR / "static_vendor") if path.is_dir()]

# -- Database ----------------------------------------------------------------------------------------------
DATABASE_URL = env.text("DATABASE_URL")
EMBEDDED = not DATABASE_URL  # SQLite in the data folder: one machine, nothing to set up.
SQLITE_OPTIONS = {
    # IMMEDIATE makes writers queue at BEGIN instead of failing when a read turns into a write; FULL makes
    # a committed transaction survive a power cut in WAL mode too.
    "transaction_mode": "IMMEDIATE",
    "timeout": 30,
    # Posts change the same few pages again and again: moved to the database every 16 MB instead of every 4, most of
    # them are written once.
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA cache_size=-16000; "
    "PRAGMA wal_autocheckpoint=4000;",
}
if EMBEDDED:
    DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DATA_DIR / "emhub.sqlite3"}}
else:
    try:
        DATABASES = {"default": environ.Env.db_url_config(DATABASE_URL)}
    except (ValueError, KeyError) as error:
        raise ImproperlyConfigured(f"DATABASE_URL cannot be read: {error}") from error
    if not DATABASES["default"].get("ENGINE"):
        raise ImproperlyConfigured("DATABASE_URL must look like postgres://user:password@host:5432/name.")
_database = DATABASES["default"]
# Opening a connection for each request would cost more than most answers; SQLite's last to close also has to tidy up.
_database["CONN_MAX_AGE"] = env.integer("DATABASE_CONN_MAX_AGE", 60, minimum=0)
if _database["ENGINE"].endswith("sqlite3"):
    _database["OPTIONS"] = SQLITE_OPTIONS | _database.get("OPTIONS", {})
elif _database["ENGINE"].endswith("postgresql"):
    _database["CONN_HEALTH_CHECKS"] = True
    # So many times asked, a statement of people.statements is prepared; a pooler that shares connections between
    # transactions needs 0 here.
    _prepare = env.integer("DATABASE_PREPARE_AFTER", 3, minimum=0)
    _database["OPTIONS"] = {"prepare_threshold": _prepare or None} | _database.get("OPTIONS", {})
else:
    raise ImproperlyConfigured("DATABASE_URL must name a postgres:// or sqlite:// database.")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# -- Trust -------------------------------------------------------------------------------------------------
DEBUG = env.boolean("DEBUG", False)
SECRET_KEY = env.secret_key(DATA_DIR, may_generate=EMBEDDED)
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS", ["127.0.0.1", "localhost", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.words("CSRF_TRUSTED_ORIGINS")
# The embedded default is opened as http://127.0.0.1; anything else is expected behind https.
HTTPS = env.boolean("HTTPS", not EMBEDDED)
SESSION_COOKIE_SECURE = HTTPS
CSRF_COOKIE_SECURE = HTTPS
SECURE_SSL_REDIRECT = env.boolean("SECURE_SSL_REDIRECT", HTTPS)
SECURE_REDIRECT_EXEMPT = [r"^health/$"]
SECURE_HSTS_SECONDS = env.integer("SECURE_HSTS_SECONDS", 31_536_000 if HTTPS else 0, minimum=0)
SECURE_HSTS_INCLUDE_SUBDOMAINS = env.boolean("SECURE_HSTS_INCLUDE_SUBDOMAINS", HTTPS)
SECURE_HSTS_PRELOAD = env.boolean("SECURE_HSTS_PRELOAD", HTTPS)
BEHIND_PROXY = env.boolean("BEHIND_PROXY", HTTPS)
if BEHIND_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SESSION_COOKIE_AGE = 60 * 60 * 24 * 14
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "script-src": [SELF],
        # Charts and the progress bars set sizes on elements; no script can be written this way.
        "style-src": [SELF, "'unsafe-inline'"],
        "img-src": [SELF, "data:", "blob:"],
        "object-src": [NONE],
        "base-uri": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    }
}

# -- Apps --------------------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "people.apps.PeopleConfig",
    "microscopes.apps.MicroscopesConfig",
    "bookings.apps.BookingsConfig",
    "sessions_app.apps.SessionsAppConfig",
    "preprocessing.apps.PreprocessingConfig",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "rest_framework",
    "rest_framework_api_key",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_filters",
    "crispy_forms",
    "crispy_bootstrap5",
    "django_htmx",
    "csp",
    "axes",
    *(["demo"] if (BASE_DIR / "demo" / "management").is_dir() else []),
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "emhub_site.bodies.ApiBodies",
    "emhub_site.short_way.ShortWay",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "people.middleware.TimesAsTheReaderWants",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "axes.middleware.AxesMiddleware",
]
ROOT_URLCONF = "emhub_site.urls"
WSGI_APPLICATION = "emhub_site.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "emhub_site.context.facility",
            ]
        },
    }
]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}
CRISPY_ALLOWED_TEMPLATE_PACKS = "bootstrap5"
CRISPY_TEMPLATE_PACK = "bootstrap5"
MESSAGE_TAGS = {message_levels.ERROR: "danger", message_levels.DEBUG: "secondary"}

# -- People ------------------------------------------------------------------------------------------------
AUTH_USER_MODEL = "people.User"
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",  # First, as it only says who may not even try.
    "people.backends.UsernameOrEmailBackend",
]
LOGIN_URL = "people:login"
LOGIN_REDIRECT_URL = "sessions:dashboard"
LOGOUT_REDIRECT_URL = "people:login"
PASSWORD_RESET_TIMEOUT = 60 * 60 * 24 * 7
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
    {"NAME": "django.contrib.auth.password_validation.NumericPasswordValidator"},
]
# Failed logins of one name from one address, after which it is locked, and for how long.
AXES_FAILURE_LIMIT = env.integer("LOGIN_FAILURES", 10, minimum=1, maximum=1000)
AXES_COOLOFF_TIME = timedelta(minutes=env.integer("LOGIN_LOCK_MINUTES", 15, minimum=1, maximum=10_080))
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_USERNAME_CALLABLE = "people.login_locks.login_name"
AXES_CLIENT_IP_CALLABLE = "people.login_locks.login_address"
AXES_LOCKOUT_CALLABLE = "people.login_locks.locked_out"
AXES_RESET_ON_SUCCESS = True
AXES_VERBOSE = False
# A lock ends when it was said to, however often someone tries meanwhile.
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_DISABLE_ACCESS_LOG = True  # Who logged in when is nobody's business.
AXES_SENSITIVE_PARAMETERS = ["username", "csrfmiddlewaretoken"]

# -- Words and times ---------------------------------------------------------------------------------------
LANGUAGE_CODE = "en-gb"
TIME_ZONE = env.text("TIME_ZONE", "UTC")
if TIME_ZONE not in available_timezones():
    raise ImproperlyConfigured(
        f"TIME_ZONE={TIME_ZONE!r} is not a zone's name. Write one such as Europe/Stockholm."
    )
USE_I18N = True
USE_TZ = True
FORMAT_MODULE_PATH = ["emhub_site.formats"]

# -- The facility ------------------------------------------------------------------------------------------
FACILITY_NAME = env.text("FACILITY_NAME", "Cryo-EM facility")
LOGO_TEXT = env.text("LOGO_TEXT", "EMhub")
# Fields: {microscope} the microscope's code, {date} the start's local date, {n} the first free number.
SESSION_NAME_PATTERN = env.name_pattern("SESSION_NAME_PATTERN", "{microscope}-{date:%Y%m%d}-{n:02d}")
RETENTION_DAYS = env.integer("RETENTION_DAYS", 60, minimum=1, maximum=36500)
# A session is finished by itself so long after its booking's end and its last movie; 0: never.
FINISH_AFTER_HOURS = env.integer("FINISH_AFTER_HOURS", 12, minimum=0, maximum=8760)

# -- Limits ------------------------------------------------------------------------------------------------
API_MAX_BODY_MB = env.integer("API_MAX_BODY_MB", 32, minimum=1, maximum=1024)
# Calls a minute, 0 for no limit; a minute's worth may come at once. A token (or person) at full speed stays below.
API_RATE_PER_TOKEN = env.integer("API_RATE_PER_TOKEN", 30_000, minimum=0)
# Those without a valid token or login: whoever guesses, or goes on with a token that has expired.
API_RATE_PER_ADDRESS = env.integer("API_RATE_PER_ADDRESS", 300, minimum=0)
IMAGE_MAX_MB = env.integer("IMAGE_MAX_MB", 16, minimum=1, maximum=256)
IMAGE_MAX_PIXELS = env.integer("IMAGE_MAX_MEGAPIXELS", 40, minimum=1, maximum=1000) * 1_000_000
DATA_UPLOAD_MAX_MEMORY_SIZE = API_MAX_BODY_MB * 1024 * 1024
FILE_UPLOAD_MAX_MEMORY_SIZE = 4 * 1024 * 1024
FILE_UPLOAD_PERMISSIONS = 0o640

# -- E-mail ------------------------------------------------------------------------------------------------
EMAIL_URL = env.text("EMAIL_URL")
if EMAIL_URL:
    try:
        vars().update(environ.Env.email_url_config(EMAIL_URL))
    except (ValueError, KeyError, ImproperlyConfigured) as error:
        raise ImproperlyConfigured(
            f"EMAIL_URL cannot be read ({error}). It looks like smtp+tls://user:password@host:587."
        ) from error
else:
    EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
EMAIL_TIMEOUT = env.integer("EMAIL_TIMEOUT", 10, minimum=1)
DEFAULT_FROM_EMAIL = SERVER_EMAIL = env.text("DEFAULT_FROM_EMAIL", "EMhub <emhub@localhost>")
# Where mails say that the site is found. Without it, the first of ALLOWED_HOSTS that is a name.
SITE_URL = env.site_url(
    "SITE_URL",
    hosts=ALLOWED_HOSTS,
    scheme="https" if HTTPS else "http",
    port=env.integer("PORT", 8000, minimum=1, maximum=65535) if EMBEDDED else None,
)
# Whether the server sends a mail as soon as it is written; otherwise `manage.py send_mail_queue` sends all of them.
SEND_MAIL_AT_ONCE = env.boolean("SEND_MAIL_AT_ONCE", True)

# -- REST --------------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "microscopes.api.authentication.PipelineTokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_THROTTLE_CLASSES": ["emhub_site.throttles.CallerThrottle"],
    "DEFAULT_PARSER_CLASSES": ["emhub_site.api.OrjsonParser"],
    "DEFAULT_RENDERER_CLASSES": ["emhub_site.api.OrjsonRenderer"],
    "DEFAULT_PAGINATION_CLASS": "emhub_site.api.Pagination",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_SCHEMA_CLASS": "emhub_site.schema.AutoSchema",
    "EXCEPTION_HANDLER": "emhub_site.api.exception_handler",
    "DEFAULT_VERSIONING_CLASS": None,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
    "TEST_REQUEST_RENDERER_CLASSES": [
        "rest_framework.renderers.JSONRenderer",
        "rest_framework.renderers.MultiPartRenderer",
    ],
}
SPECTACULAR_SETTINGS = {
    "TITLE": "EMhub",
    "VERSION": "1",
    "DESCRIPTION": "How pipelines tell EMhub what they measured, and how anything reads it back. JSON may be sent as "
    f"gzip (`Content-Encoding: gzip`); a body has at most {API_MAX_BODY_MB} MB, before and after inflation.",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PUBLIC": True,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.IsAuthenticated"],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "OAS_VERSION": "3.1.0",
    "ENUM_NAME_OVERRIDES": {
        "AlertKindEnum": "preprocessing.models.Alert.Kind",
        "BookingKindEnum": "bookings.models.Booking.Kind",
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "preprocessing.api.schema.add_components",
        "emhub_site.schema.describe_numbers",
        "emhub_site.schema.add_common_answers",
    ],
}

# -- Logs --------------------------------------------------------------------------------------------------
LOG_LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env.choice("LOG_LEVEL", "INFO", LOG_LEVELS)},
    "loggers": {
        "django.server": {"level": "INFO"},
        "axes": {"level": "WARNING"},
        # What a client did wrong it is told itself.
        "django.request": {"level": "ERROR"},
    },
}
