"""The small task of tests/classification, for the methods of this paper."""

import runpy
from pathlib import Path

_shared = runpy.run_path(str(Path(__file__).parents[2] / "classification" / "conftest.py"))
globals().update({name: _shared[name] for name in ("trained", "model", "forget", "retain", "context", "new_context")})
