"""Reading job files: JSON that the planner wrote and that may have travelled to another machine."""

import json
from pathlib import Path
from typing import Any

from shared.errors import RecordError


def read_job(path: str | Path) -> dict[str, Any]:
    """Read a job file. Raises RecordError naming the file when it is missing or damaged."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecordError(f"{path}: no such job file; plan it with 'snakemake -n <paper>'") from None
    except ValueError as error:
        raise RecordError(f"{path}: damaged job file ({error}); delete it and plan again") from None
    if not isinstance(content, dict) or "kind" not in content:
        raise RecordError(f"{path}: not a job file (no 'kind')")
    return content
