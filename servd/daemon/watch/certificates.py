"""Reads when certificates expire, and warns in time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

import structlog

from servd.core.events import Event
from servd.core.quick_dataclass import dataclass
from servd.daemon.periodic import Periodic
from servd.supervisor.supervisor import Supervisor

_CHECK_SECONDS = 60.0

_NOTICE = timedelta(days=14)
"""Warning time before a certificate expires, at most a third of its life."""

_EVENTS = (Event.CERTIFICATE_EXPIRING, Event.CERTIFICATE_EXPIRED)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Validity:
    """When a certificate becomes valid, and when it expires."""

    begins: datetime
    ends: datetime

    def is_ending(self, now: datetime) -> bool:
        """Whether to warn."""
        return now >= self.ends - min(_NOTICE, (self.ends - self.begins) / 3)


@lru_cache(maxsize=512)
def validity(pem: str) -> Validity | None:
    """Returns that of the first certificate in a PEM chain; None if it cannot be read."""
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(pem.encode())
    except ValueError:
        return None
    return Validity(found.not_valid_before_utc, found.not_valid_after_utc)


class CertificateWatch:
    """Warns once per certificate that it expires soon, and once that it has expired."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._warned: set[tuple[str, str, Event]] = set()
        self.looks = Periodic(_CHECK_SECONDS, lambda: self.look(datetime.now(UTC)))

    def look(self, now: datetime) -> None:
        """Warns about certificates in use that expire soon or have expired."""
        services = self._supervisor.services.items()
        here = [(name, s.plan.tls.certificate) for name, s in services if s.plan.tls is not None]
        self._warned &= {(name, pem, event) for name, pem in here for event in _EVENTS}
        for name, pem in here:
            found = validity(pem)
            if found is None or not found.is_ending(now):
                continue
            expired = now >= found.ends
            event = Event.CERTIFICATE_EXPIRED if expired else Event.CERTIFICATE_EXPIRING
            if (name, pem, event) not in self._warned:
                self._warned.add((name, pem, event))
                days = round((found.ends - now) / timedelta(days=1), 1)
                ends = found.ends.isoformat().replace("+00:00", "Z")
                log.warning(event, service=name, expires_at=ends, days=days)
