"""What the blocks of a micrograph configuration have in common."""

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict


class Block(BaseModel):
    """A block of a configuration: unknown keys are refused, values are finite and never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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
