"""Base of every stage's config: strict, immutable, and the single definition for CLI, YAML and Python."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import ConfigDict, Field

from optkit.core.types import Format, Manifest, Record


@dataclass(frozen=True)
class Input:
    """A role that another step's artifact plays for a stage (`teacher`, `model`)."""

    name: str
    formats: tuple[Format, ...]
    help: str
    many: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Source:
    """The step that will make an input: its stage, its config, the names of its own inputs by role, and the format
    of each of them."""

    stage: str
    config: StageConfig
    inputs: dict[str, tuple[str, ...]]
    formats: dict[str, Format]


class Config(Record):
    """A group of options. Subclasses add fields with defaults and descriptions."""

    model_config = ConfigDict(allow_inf_nan=False)

    def canonical(self) -> dict[str, Any]:
        """What the cache key is made of: outside files by their content, not by their path."""
        return {
            name: value.canonical() if isinstance(value := getattr(self, name), Config) else plain
            for name, plain in self.model_dump(mode="json").items()
        }

    def check(self) -> None:
        """Every check that needs no work: paths exist, names are known, packages are there."""
        for name in type(self).model_fields:
            if isinstance(value := getattr(self, name), Config):
                value.check()

    def processes(self) -> int:
        """How many processes work on this together, each of them running the same command."""
        groups = (getattr(self, name) for name in type(self).model_fields)
        return max((group.processes() for group in groups if isinstance(group, Config)), default=1)


class StageConfig(Config):
    """Config of one stage. `inputs` are the roles it takes, `measures` marks a stage without a model file."""

    inputs: ClassVar[tuple[Input, ...]] = ()
    measures: ClassVar[bool] = False

    seed: int = Field(default=0, ge=0, description="Seed of everything random.")

    def check_sources(self, sources: dict[str, list[Source]]) -> None:
        """Every check of the steps that will make the inputs, by role; artifacts made earlier are not among them."""

    def produces(self) -> Format:
        """Format of the artifact this stage makes."""
        return Format.RESULT if self.measures else Format.TORCH

    def accepts(self, manifest: Manifest) -> bool:
        """Whether an artifact made earlier still is what this config asks for."""
        return True

    def environment(self) -> dict[str, str]:
        """Facts of the machine that the result depends on, so that they become part of the key."""
        return {}
