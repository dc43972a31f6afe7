"""Layers variables over the files by pydantic-settings; its own file sources would lose the places.
Imported where variables are set: it takes a tenth of the daemon's start.
"""

from __future__ import annotations

from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from servd.config.layers import inherited
from servd.config.model import Config


class _Source(PydanticBaseSettingsSource):
    """A source with the values of a whole tree."""

    def __init__(self, settings: type[BaseSettings], values: dict[str, Any]) -> None:
        super().__init__(settings)
        self.values = values

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self.values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self.values


class _InheritanceSource(_Source):
    """The keys of `[defaults]` as the lowest layer of every service."""

    def __call__(self) -> dict[str, Any]:
        values = inherited(self.current_state)
        return {"services": values} if values else {}


class _LayeredConfig(Config, BaseSettings):
    """`Config`, filled from the three sources."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        given: dict[str, Any] = init_settings.init_kwargs  # type: ignore[attr-defined]
        return (
            _Source(settings_cls, given["environment"]),
            _Source(settings_cls, given["file"]),
            _InheritanceSource(settings_cls, {}),
        )


def layered(environment: dict[str, Any], file: dict[str, Any]) -> Config:
    """Returns the configuration of these values. Raises `pydantic.ValidationError`."""
    # arguments of the sources, not fields
    return _LayeredConfig(environment=environment, file=file)  # type: ignore[call-arg]
