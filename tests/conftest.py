"""Shared fixtures."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of reference data; the test skips where it is absent."""
    root = Path(os.environ.get("CRYODASK_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not root.is_dir():
        pytest.skip(f"reference data not found at {root} (set CRYODASK_SHARED_DATA)")
    return root
