"""Django's settings, read from the environment (see environment.py for the table)."""

from __future__ import annotations

import secrets
from pathlib import Path
from urllib.parse import quote

import environ

from coralmux import __version__
from coralmux_site import environment, logs, phone_files

PACKAGE_DIR = Path(__file__).resolve().parent
BASE_DIR = PACKAGE_DIR.parent

environ.Env.read_env(str(Path.cwd() / ".env"))


def state_file(name: str, make: str) -> str:
    """The text of a private file in the state directory, written (0600) when absent."""
    path = STATE_DIR / name
    try:
        with open(path, "x", encoding="ascii", opener=logs.private_opener) as file:
            file.write(make + "\n")
    except FileExistsError:
        pass
    return path.read_text(encoding="ascii").strip()


STATE_DIR: Path = environment.read("CORALMUX_STATE_DIR") or environment.default_state_dir()
STATE_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)

SECRET_KEY = environment.read("CORALMUX_SECRET_KEY") or state_file(
    "secret-key", secrets.token_urlsafe(48)
)
DEBUG = False
ALLOWED_HOSTS = environment.read("CORALMUX_ALLOWED_HOSTS")

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "axes",
    "channels",
    "ninja",
    "pairing",
    "relay",
]

MIDDLEWARE = [
    "coralmux_site.middleware.forwarded_scheme",
    "coralmux_site.middleware.ErrorShape",
    "django.middleware.security.SecurityMiddleware",
    "coralmux_site.middleware.content_security_policy",
    "servestatic.middleware.ServeStaticMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "coralmux_site.middleware.CheckedHost",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "coralmux_site.urls"
ASGI_APPLICATION = "coralmux_site.asgi.application"
APPEND_SLASH = False

# A wheel carries the templates inside the package; a checkout has them at the top.
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates", PACKAGE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    }
]

DATABASE_URL = environment.read("DATABASE_URL") or (
    f"sqlite:///{quote(str(STATE_DIR / 'coralmux.sqlite3'))}"
)
DATABASES = {"default": environ.Env.db_url_config(DATABASE_URL)}
if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    # WAL lets the admin read while usage is flushed; IMMEDIATE takes the write
    # lock at BEGIN, where the time-out waits, instead of failing half-way.
    DATABASES["default"]["OPTIONS"] = {
        "transaction_mode": "IMMEDIATE",
        "timeout": 5,
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.locmem.LocMemCache",
        "OPTIONS": {"MAX_ENTRIES": 100_000},
    }
}
# django-ratelimit wants a cache that processes share. This relay is one process.
SILENCED_SYSTEM_CHECKS = ["django_ratelimit.E003", "django_ratelimit.W001"]

# The layer drops what a full channel does not take, without telling anybody. What
# goes over it is found again by the look into the database (Runtime's watch).
CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels.layers.InMemoryChannelLayer",
        "CONFIG": {"capacity": 10_000},
    }
}

AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "django.contrib.auth.backends.ModelBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 10},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = 0.25  # hours
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_CLIENT_IP_CALLABLE = "pairing.addresses.of_login"
AXES_VERBOSE = False

LOGIN_URL = "admin:login"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_AGE = 12 * 3600
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
DATA_UPLOAD_MAX_MEMORY_SIZE = 64 * 1024
X_FRAME_OPTIONS = "DENY"
# Behind a proxy that ends TLS, requests are https although they reach us as
# http. The forwarded_scheme middleware removes the header from everybody else's.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

# The prefix lets browsers keep the files for ever: it changes when the phone's files do.
STATIC_URL = f"/static/{__version__}-{phone_files.digest()}/"
SERVESTATIC_USE_FINDERS = True
SERVESTATIC_AUTOREFRESH = False
SERVESTATIC_MAX_AGE = 365 * 24 * 3600

LANGUAGE_CODE = "en-us"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False

LOG_FORMAT = environment.read("CORALMUX_LOG_FORMAT")
LOGGING_CONFIG = None
logs.configure(LOG_FORMAT)

# All that is ours: settings.CORALMUX["MAX_MESSAGE_BYTES"] and so on.
CORALMUX = {
    setting.name.removeprefix("CORALMUX_"): environment.read(setting.name)
    for setting in environment.SETTINGS
    if setting.name.startswith("CORALMUX_")
}
