"""Leopard-EM's block of devices, mapped to where cryodask's work runs."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from cryodask.errors import ClusterError
from cryodask.jobs.block import Block


class ComputationalConfig(Block):
    """Devices and batches in flight; `backend` has no effect."""

    gpu_ids: int | str | tuple[int | str, ...] | None = None
    num_cpus: Annotated[int, Field(ge=1)] = 1
    backend: Literal["streamed", "batched", "zipfft"] = "streamed"

    @field_validator("gpu_ids", mode="before")
    @classmethod
    def _known_devices(cls, value: object) -> object:
        for item in value if isinstance(value, list | tuple) else [value]:
            if item is None or (isinstance(item, int) and not isinstance(item, bool) and item >= 0):
                continue
            text = str(item).strip().lower()
            if text in ("all", "cpu", "cuda") or text.removeprefix("cuda:").isdigit():
                continue
            raise ValueError('expected a device number, a list of them, "cuda:k", "all" or "cpu"')
        return tuple(value) if isinstance(value, list) else value

    @property
    def devices(self) -> tuple[int, ...] | Literal["all", "cpu", "auto"]:
        """The CUDA devices named; `auto` where nothing is written."""
        items = self.gpu_ids if isinstance(self.gpu_ids, tuple) else (self.gpu_ids,)
        words = [str(item).strip().lower() for item in items]
        if words == ["none"]:
            return "auto"
        if "cpu" in words:
            return "cpu"
        if "all" in words or "cuda" in words:
            return "all"
        return tuple(int(word.removeprefix("cuda:")) for word in words)

    def device_option(self, present: int) -> tuple[str, str | None]:
        """Return the `--device` that this block asks for, and a notice.

        Parameters
        ----------
        present
            CUDA devices of this machine.

        Raises
        ------
        ClusterError
            Devices are there, but not one that is named.
        """
        named = self.devices
        if named == "cpu":
            return "cpu", None
        if not present:
            notice = (
                None if named == "auto" else f"gpu_ids = {self.gpu_ids}: no CUDA device here, CPU workers"
            )
            return "cpu", notice
        if named in ("auto", "all"):
            return "cuda", None
        missing = [number for number in named if isinstance(number, int) and number >= present]
        if missing:
            raise ClusterError(
                f"computational_config.gpu_ids = {missing[0]}: {present} CUDA device(s) found; "
                "use gpu_ids: cpu or --cluster"
            )
        return "cuda:" + ",".join(str(number) for number in named), None
