"""What the blocks of a configuration have in common."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, PrivateAttr, ValidationError

from cryodask.jobs.messages import Source, input_error


class Block(BaseModel):
    """A block of a configuration: unknown keys are refused, values are finite and never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Configuration(Block):
    """A whole configuration. Make one with `from_yaml` or `from_mapping`, whose errors are one line.

    Paths are relative to the working folder, as in Leopard-EM.
    """

    _source: Source = PrivateAttr(default_factory=Source)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], *, source: Source | None = None) -> Self:
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
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a YAML or JSON file.

        Raises
        ------
        InputError
            No such file, no mapping, or a wrong value.
        """
        from cryodask.jobs.yaml_file import read_mapping

        return cls.from_mapping(read_mapping(path), source=Source(Path(path).name))

    @property
    def source(self) -> Source:
        """Where this configuration was written."""
        return self._source


def limited(test: Callable[[float], bool], expected: str) -> AfterValidator:
    """Return a check of a number, whose message says what is expected, with its unit."""

    def check(value: float) -> float:
        if not test(value):
            raise ValueError(f"expected {expected}")
        return value

    return AfterValidator(check)


PositiveAngstrom = Annotated[float, limited(lambda v: v > 0, "more than 0 angstrom")]
PositiveDegrees = Annotated[float, limited(lambda v: v > 0, "more than 0 degrees")]
CyclesPerPixel = Annotated[float, limited(lambda v: v >= 0, "at least 0 cycles per pixel")]


def refuse(message: str, *accepted: Any) -> AfterValidator:
    """Return a check that accepts only values that mean nothing, for keys that are not supported."""

    def check(value: Any) -> Any:
        if value not in accepted:
            raise ValueError(f"not supported, {message}")
        return value

    return AfterValidator(check)
