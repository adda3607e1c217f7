"""A configuration as a person writes it: read from YAML, checked as a whole, errors in one line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import PrivateAttr, ValidationError

from cryodask.jobs.messages import Source, input_error
from cryodask.jobs.micrograph_matching.block import Block
from cryodask.jobs.yaml_file import read_mapping

C = TypeVar("C", bound="Configuration")


class Configuration(Block):
    """What the configurations of all jobs on micrographs have in common.

    Paths are relative to the working folder, as in Leopard-EM. Make one with `from_yaml` or `from_mapping`,
    whose errors are one line with file, field, value and expectation.
    """

    _source: Source = PrivateAttr(default_factory=Source)

    @classmethod
    def from_mapping(cls: type[C], mapping: Mapping[str, Any], *, source: Source | None = None) -> C:
        """Validate a mapping of keys.

        Raises
        ------
        InputError
            Naming the file, the field, its value and what was expected.
        """
        source = source or Source()
        try:
            config = cls.model_validate(dict(mapping))
        except ValidationError as error:
            raise input_error(error, cls, source) from None
        config._source = source
        return config

    @classmethod
    def from_yaml(cls: type[C], path: str | Path) -> C:
        """Read a YAML or JSON file.

        Raises
        ------
        InputError
            No such file, no mapping, or a wrong value.
        """
        return cls.from_mapping(read_mapping(path), source=Source(Path(path).name))

    @property
    def source(self) -> Source:
        """Where this configuration was written."""
        return self._source


def no_movies(value: dict[str, Any] | None) -> dict[str, Any] | None:
    """Refuse movies; a block that is off or absent is nothing."""
    if value and value.get("enabled"):
        raise ValueError("not supported, align the movie first and leave movie_config out")
    return value
