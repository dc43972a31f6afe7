"""When a certificate is said to expire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import trustme

from servd.daemon.watch.certificates import Validity, validity

BEGINS = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("life", "left", "ending"),
    [
        (90, 15, False),
        (90, 14, True),
        (365, 13, True),
        (6, 2.1, False),  # one that lives for days is renewed within its last third
        (6, 2, True),
        (1, 0.4, False),
        (1, -1, True),
    ],
)
def test_a_certificate_expires_soon_two_weeks_or_a_third_of_its_life_before(
    life: float, left: float, ending: bool
) -> None:
    ends = BEGINS + timedelta(days=life)
    assert Validity(BEGINS, ends).is_ending(ends - timedelta(days=left)) is ending


def test_validity_is_that_of_the_first_certificate_of_a_chain() -> None:
    ends = datetime(2040, 1, 2, tzinfo=UTC)
    issued = trustme.CA().issue_cert("localhost", not_after=ends)
    chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems).decode()
    found = validity(chain)
    assert found is not None
    assert found.ends == ends
    assert validity("no certificate") is None
