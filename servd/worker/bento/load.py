"""Loads BentoML services as BentoML's own worker does: with their configuration, as an ASGI app.

The private names of BentoML 1.4 used here are those that `bentoml serve` uses.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from types import TracebackType
from typing import Any

from servd.wire.worker_spec import BentoSpec
from servd.worker.bento.declared_settings import leave_to_servd
from servd.worker.bento.dependency_calls import complete_calls
from servd.worker.bento.first_worker import first_of_all
from servd.worker.bento.legacy import is_legacy, legacy_app, set_variables
from servd.worker.load_app import AppLoadError, LoadsNowError, in_one_line

RESULTS = "BENTOML_RESULT_STORE"
"""BentoML's variable for the file with the results of tasks."""

_LONG_SESSIONS = {"max_requests": sys.maxsize, "max_age": float("inf")}
"""Fault: after 100 requests, or 300 seconds, BentoML's client closes its session to a dependency
while requests are in flight, which end with 500 (`SessionManager.get_session`). Local sockets need
no new sessions. An explicit setting of the user stays."""


class NoBentoMLError(AppLoadError):
    """BentoML is missing in this interpreter, or too old."""


def load_service(
    identifier: str, directory: str, arguments: str = "", *, worker: int | None = None
) -> Any:
    """Loads the BentoML service that an import string, a folder, or a built Bento's path or tag
    names, and changes to the directory of its code, as `bentoml serve` does. `arguments` of the
    code are JSON; those of a built Bento stand in it. In a `worker`, all that is imported has to be
    there (`bentoml.importing`). Raises `AppLoadError`; its `__cause__` is the
    exception of the user's code, if there was one.
    """
    if importlib.util.find_spec("bentoml") is None:
        raise NoBentoMLError(
            f"{sys.executable} has no bentoml: run pip install 'bentoml>=1.4.20,<1.5',"
            " or set python to an environment that has it"
        )
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    try:
        from _bentoml_impl.loader import load
        from _bentoml_sdk import Service
        from bentoml._internal.context import server_context
        from bentoml.exceptions import BentoMLException
    except ImportError as error:
        what = "unsupported version of bentoml (servd supports 1.4)"
        raise NoBentoMLError(f"{what}: {in_one_line(error)}") from error
    if worker is not None:
        server_context.worker_index = worker + 1  # BentoML counts from 1
    if arguments:
        _set_arguments(arguments)
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        service = load(identifier, working_dir=directory, standalone_load=True)
    except BentoMLException as error:
        cause = _users_own(error)
        reason = _reason(str(error)) if cause is None else in_one_line(cause)
        raise AppLoadError(reason) from cause
    except (Exception, SystemExit) as error:
        error.__traceback__ = _from_users_frames(error.__traceback__)
        hint = ""
        if isinstance(error, PermissionError) and "BENTOML_HOME" not in os.environ:
            hint = " (set BENTOML_HOME to a folder that the user of the service can write to)"
        raise AppLoadError(in_one_line(error) + hint) from error
    if not isinstance(service, Service) and not is_legacy(service):
        raise AppLoadError(f"{identifier} is not a service of BentoML (a class @bentoml.service)")
    return service


def _set_arguments(arguments: str) -> None:
    try:
        from bentoml._internal.utils.args import set_arguments
    except ImportError as error:
        raise NoBentoMLError("this version of bentoml has no arguments (bento_args)") from error
    set_arguments(json.loads(arguments))


_BOTH_WAYS = re.compile(r"importing by python module path: '(.+)'\.?$", re.DOTALL)
_ADVICE = re.compile(r"If you are trying to import a runtime-only module.*", re.DOTALL)


def _reason(message: str) -> str:
    """Returns BentoML's message in one line. If BentoML tried a module and a Bento, the line says
    why the module failed, and that there is no such Bento.
    """
    found = _BOTH_WAYS.search(message)
    text = found[1] if found is not None else message
    also = ", and no Bento has that name" if found is not None else ""
    return " ".join(_ADVICE.sub("", text).split()).rstrip(".") + also


def _users_own(error: BaseException) -> BaseException | None:
    """Returns the exception of the user's code, unless only a module or attribute is missing."""
    cause = error.__cause__ or error.__context__
    while cause is not None and type(cause).__module__.startswith("bentoml"):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    cause.__traceback__ = _from_users_frames(cause.__traceback__)
    return cause if cause.__traceback__ is not None or isinstance(cause, SyntaxError) else None


def _from_users_frames(trace: TracebackType | None) -> TracebackType | None:
    """Returns the part of a traceback that begins in the user's code."""
    libraries = (
        "<frozen",
        os.path.dirname(os.__file__),
        os.path.dirname(os.path.dirname(__file__)),
    )
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not (file.startswith(libraries) or "site-packages" in file):
            break
        trace = trace.tb_next
    return trace


def load_bento(identifier: str, directory: str, spec: BentoSpec, worker: int) -> Any:
    """Returns the ASGI app of a BentoML service for this worker index. Raises `AppLoadError`."""
    set_variables(spec, worker)
    root = load_service(identifier, directory, spec.arguments, worker=worker)
    if spec.unknown:
        raise LoadsNowError("its code can be imported now: servd plans its services again")
    from bentoml._internal.configuration.containers import BentoMLContainer
    from bentoml._internal.context import server_context

    complete_calls()
    BentoMLContainer.remote_runner_mapping.set(dict(spec.reached_at))
    BentoMLContainer.development_mode.set(spec.development)
    is_old = is_legacy(root)
    try:
        service = root.find_dependent_by_name(spec.service) if spec.service and not is_old else root
        tag = service.bento.tag if service.bento is not None else None
        server_context.bento_name = tag.name if tag is not None else service.name
        server_context.bento_version = (tag.version if tag is not None else "") or "not available"
        return legacy_app(service, spec, worker) if is_old else _app(service, spec)
    except (Exception, SystemExit) as error:
        name = spec.service or identifier
        raise AppLoadError(f"cannot set up {name}: {in_one_line(error)}") from error


def _app(service: Any, spec: BentoSpec) -> Any:
    from _bentoml_impl.server.app import ServiceAppFactory
    from bentoml._internal.context import server_context
    from bentoml._internal.utils.uri import join_paths

    server_context.service_type = "service" if spec.service else "entry_service"
    server_context.service_name = service.name
    server_context.service_routes = [
        join_paths(service.path_prefix, api.route) for api in service.apis.values()
    ]
    service.inject_config()
    _configure(service.name, spec)
    if service.needs_task_db():
        os.environ.setdefault(RESULTS, os.path.join(spec.folder, "task_result.db"))
    with first_of_all(spec) as is_first:
        if is_first:
            _deploy(service)
    return ServiceAppFactory(service, is_main=not spec.service)()


def _configure(name: str, spec: BentoSpec) -> None:
    """Turns off what servd does: the access log; deadlines and limits unless `spec` keeps them."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    whole = BentoMLContainer.config.get()
    service, server = whole["services"][name], whole["api_server"]
    for part in (service, server):
        leave_to_servd(part, spec)
    service["workers"] = spec.workers  # each takes its share of max_concurrency
    for other in dict(spec.reached_at):
        whole["services"].get(other, {}).setdefault("runner_connection", _LONG_SESSIONS)
    BentoMLContainer.config.set(whole)


def _deploy(service: Any) -> None:
    """Does what `bentoml serve` does once before its workers start. Earlier results of tasks stay:
    a client may still ask for them.
    """
    if service.bento is not None:
        for model in service.bento.info.all_models:
            model.to_model().resolve()
    else:
        for model in service.models:
            model.resolve()
    for name in dir(service.inner):
        member = getattr(service.inner, name)
        if callable(member) and getattr(member, "__bentoml_deployment_hook__", False):
            member()
    results = os.environ.get(RESULTS, "")
    if service.needs_task_db() and results and not os.path.exists(results):
        from _bentoml_impl.tasks.result import Sqlite3Store

        Sqlite3Store.init_db(results)
