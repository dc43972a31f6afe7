"""The plans of services that run elsewhere. Pure."""

from __future__ import annotations

import hashlib

from servd.config.service import Service
from servd.config.worker_tables import Health, Limits, Restart, Rollout
from servd.plan.host import Host
from servd.plan.model import ExternalPlan, HealthPlan, IdentityPlan, ReadyPlan, ServicePlan
from servd.plan.probes import external_health

_UNSET = Health.unset()
_PROBES = HealthPlan(None, "", "", _UNSET.interval, _UNSET.timeout, _UNSET.failures)


def reached_at(given: Service, host: Host) -> dict[str, str]:
    """Returns its entry in SERVD_DEPENDENCIES: the URL, and what its TLS needs. `version` changes
    with the content of the certificates, which dependents read when they start.
    """
    entry = {"url": given.external}
    tls = given.tls
    if tls is None:
        return entry
    files = {"ca_certs": tls.ca_certs, "certfile": tls.certfile, "keyfile": tls.keyfile}
    named = {key: file for key, file in files.items() if file}
    content = "\0".join(host.pem_files.get(file, "") for file in named.values())
    return entry | named | {"version": hashlib.sha256(content.encode()).hexdigest()[:16]}


def external_service(name: str, given: Service, host: Host) -> ServicePlan:
    """Returns the plan of a service that runs elsewhere. It counts as one worker, whose address is
    probed; there is no process.
    """
    entry = reached_at(given, host)
    return ServicePlan(
        name=name,
        workers=1,
        directory="",
        python="",
        environment={},
        app_metrics="",
        identity=IdentityPlan(),
        sockets=(),
        addresses=(),
        depends_on=(),
        startup=given.timeouts.startup,
        stall=None,
        drain=0.0,
        stop_signal=0,
        stop_command=(),
        restart=Restart.unset(),
        rollout=Rollout.unset(),
        limits=Limits.unset(),
        watchdog=None,
        ready=ReadyPlan("http"),
        health=external_health(given, _PROBES, host),
        definition=given,
        external=ExternalPlan(
            url=given.external,
            ca_certs=entry.get("ca_certs", ""),
            certfile=entry.get("certfile", ""),
            keyfile=entry.get("keyfile", ""),
            version=entry.get("version", ""),
        ),
    )
