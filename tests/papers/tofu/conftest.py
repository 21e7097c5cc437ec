"""The miniature logs of tests/text/logs, for the command line."""

import runpy
from pathlib import Path

_shared = runpy.run_path(str(Path(__file__).parents[2] / "text" / "logs" / "conftest.py"))
globals().update({name: _shared[name] for name in ("draw_fixture", "layouts")})
