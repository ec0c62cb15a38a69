"""Write what long runs have measured, for the chapters to draw."""

import json
import os
import platform
import re
from pathlib import Path

import gymnasium
import numpy as np
import torch


def versions() -> dict[str, str]:
    """Of what numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gymnasium": gymnasium.__version__,
        "numpy": np.__version__,
    }


def store(path: Path, made_by: str, data: dict[str, object]) -> None:
    """Write data as JSON, after the command that made them and what it ran with."""
    made_with = versions() | {"platform": platform.platform(), "cores": os.cpu_count()}
    text = json.dumps({"made_by": made_by, "made_with": made_with} | data, indent=1)
    # A list of numbers stands on one line.
    text = re.sub(r"\[[^\[\]{}]*\]", lambda m: " ".join(m[0].split()), text)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
