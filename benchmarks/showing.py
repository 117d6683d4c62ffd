"""What a small benchmark does with its result."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from spectrim.files import write_json


def write_and_show(result: dict[str, Any], file: Path | None) -> None:
    """Write a result as JSON, if it is to be kept, and print it.

    Args:
        result: what goes into the file.
        file: its path, or None; folders that are missing are made.
    """
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, result)
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
