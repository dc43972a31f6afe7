"""The folders that an app may write in, for its user alone."""

from __future__ import annotations

import contextlib
import os

from servd.plan.model import ServicePlan


def make_app_folders(plan: ServicePlan) -> None:
    """Makes the folders of metrics and BentoML data. The app reports failures if it needs them."""
    account = plan.identity.account
    data = plan.app.bento.folder if plan.app is not None and plan.app.bento is not None else ""
    for folder in (plan.app_metrics, data):
        if not folder:
            continue
        with contextlib.suppress(OSError):
            os.makedirs(folder, 0o700, exist_ok=True)
            if account is not None and os.geteuid() == 0:
                os.chown(folder, account.uid, account.gid)
