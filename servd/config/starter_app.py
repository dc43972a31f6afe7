"""The app that `servd init` writes where there is none."""

from __future__ import annotations

_APP = '''\
"""An example app. `servd dev` restarts it after an edit."""

from fastapi import FastAPI

{name} = FastAPI()


@{name}.get("/")
async def hello() -> dict[str, str]:
    return {{"message": "Hello from servd"}}
'''


def starter_app(name: str) -> str:
    """Returns the source of a module whose app is called `name`."""
    return _APP.format(name=name)
