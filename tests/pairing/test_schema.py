"""Whatever a client makes of the published schema, the API answers as the schema says."""

from __future__ import annotations

import pytest
import schemathesis
from django.core.cache import cache
from django.core.wsgi import get_wsgi_application
from hypothesis import HealthCheck, settings

from tests.pairing.conftest import KEY

pytestmark = [pytest.mark.django_db, pytest.mark.slow]

schema = schemathesis.openapi.from_wsgi("/api/openapi.json", get_wsgi_application())


@pytest.mark.parametrize("key", [KEY, "wrong"])
@schema.parametrize()
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_the_api_keeps_to_its_schema(case, key, coralmux) -> None:
    coralmux(PUBLIC=True, REGISTRATIONS_PER_HOUR=0, FAILED_ATTEMPTS_PER_HOUR=0)
    cache.clear()
    case.headers["X-Admin-Key"] = key
    case.call_and_validate()
