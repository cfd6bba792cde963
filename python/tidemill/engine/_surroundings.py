"""What the engine was told about the place it runs in."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Mapping, Tuple


class Surroundings:
    """Set when the engine starts, and per session."""

    def __init__(self) -> None:
        self.engine_id = ""
        self.scratch = Path(".")
        self.packages: Dict[str, Tuple[str, Path]] = {}
        self.parameters: Mapping[str, str] = {}


surroundings = Surroundings()
