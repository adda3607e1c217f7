"""PyTorch's .pt files, as CryoLike keeps its arrays; needs the extra ``torch``."""

from pathlib import Path
from typing import Any

import numpy as np

from cryodask.errors import InputError


def require_torch(purpose: str) -> Any:
    """Return the module torch.

    Raises
    ------
    InputError
        "PURPOSE needs the extra torch: pip install 'cryodask[torch]'".
    """
    try:
        import torch
    except ImportError:
        raise InputError(f"{purpose} needs the extra torch: pip install 'cryodask[torch]'") from None
    return torch


def read_pt(path: str | Path) -> np.ndarray:
    """Read one tensor as an array; nothing but tensors is unpickled.

    Raises
    ------
    InputError
        Without torch; not a tensor.
    """
    path = Path(path)
    torch = require_torch(path.name)
    try:
        tensor = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"{path.name}: not a tensor of PyTorch ({reason})") from None
    if not isinstance(tensor, torch.Tensor):
        raise InputError(f"{path.name}: expected a tensor, found {type(tensor).__name__}")
    return np.asarray(tensor.numpy())


def write_pt(path: str | Path, array: np.ndarray) -> None:
    """Write an array as a tensor."""
    torch = require_torch(Path(path).name)
    torch.save(torch.from_numpy(np.ascontiguousarray(array)), path)


def write_pt_pickle(path: str | Path, content: Any) -> None:
    """Write a dictionary or NumPy array as PyTorch pickles it; arrays inside a dictionary become tensors."""
    torch = require_torch(Path(path).name)
    if isinstance(content, dict):
        content = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in content.items()}
    torch.save(content, path)
