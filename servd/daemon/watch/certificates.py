"""When certificates expire, and saying so in time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import structlog

from servd.core.events import Event
from servd.daemon.periodic import Periodic
from servd.supervisor.supervisor import Supervisor

LOOK_EVERY = 60.0
"""Seconds between two looks at what expires."""

NOTICE = timedelta(days=14)
"""How long before its end a certificate is said to expire; a third of its life, where that is
less."""

_EVENTS = (Event.CERTIFICATE_EXPIRING, Event.CERTIFICATE_EXPIRED)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Validity:
    """From when until when a certificate is valid."""

    begins: datetime
    ends: datetime

    def is_ending(self, now: datetime) -> bool:
        """Whether it is time to say so."""
        return now >= self.ends - min(NOTICE, (self.ends - self.begins) / 3)


@lru_cache(maxsize=512)
def validity(pem: str) -> Validity | None:
    """Of the first certificate of a chain in PEM; None where there is none to be read."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        return None
    return Validity(found.not_valid_before_utc, found.not_valid_after_utc)


class CertificateWatch:
    """Says once of each certificate that it expires soon, and once that it has."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._said: set[tuple[str, str, Event]] = set()
        self.looks = Periodic(LOOK_EVERY, self._look)

    async def _look(self) -> None:
        self.look(datetime.now(UTC))

    def look(self, now: datetime) -> None:
        """Says what is to be said of the certificates in use."""
        here = list(self._certificates())
        self._said &= {(name, pem, event) for name, pem in here for event in _EVENTS}
        for name, pem in here:
            found = validity(pem)
            if found is None or not found.is_ending(now):
                continue
            expired = now >= found.ends
            event = Event.CERTIFICATE_EXPIRED if expired else Event.CERTIFICATE_EXPIRING
            if (name, pem, event) not in self._said:
                self._said.add((name, pem, event))
                days = round((found.ends - now) / timedelta(days=1), 1)
                ends = found.ends.isoformat().replace("+00:00", "Z")
                log.warning(event, service=name, expires_at=ends, days=days)

    def _certificates(self) -> Iterable[tuple[str, str]]:
        for name, service in self._supervisor.services.items():
            if service.plan.tls is not None:
                yield name, service.plan.tls.certificate
