"""Fixtures of the engine's tests."""

import sys
from pathlib import Path

# worker processes inherit this path and find the toy problem there
sys.path.append(str(Path(__file__).parent))
