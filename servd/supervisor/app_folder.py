"""The folder in which an app keeps its own metrics."""

from __future__ import annotations

import contextlib
import os

from servd.plan.model import ServicePlan


def make_app_metrics_folder(plan: ServicePlan) -> None:
    """The folder for the metrics of the app, for its user alone. A failure is the app's to report:
    it may never write there.
    """
    if not plan.app_metrics:
        return
    account = plan.identity.account
    with contextlib.suppress(OSError):
        os.makedirs(plan.app_metrics, 0o700, exist_ok=True)
        if account is not None and os.geteuid() == 0:
            os.chown(plan.app_metrics, account.uid, account.gid)
