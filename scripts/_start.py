"""What the launchers beside this start: `distill`, of this Python or of the checkout's `.venv`.

Knows where `make` puts an environment; knows nothing of verbs.
"""

import os
import sys
from pathlib import Path

try:
    from distill.cli import main as main
except ModuleNotFoundError as error:
    if error.name != "distill":
        raise
    environment = Path(__file__).resolve().parent.parent / ".venv"
    python = environment / "bin" / "python"
    if not python.exists() or Path(sys.prefix).resolve() == environment.resolve():
        sys.exit(
            f"Expected `distill` in this Python, {sys.executable}, or in {environment} but it is "
            "in neither. Run `make .venv/.installed` first, which sets up that folder."
        )
    os.execv(python, [str(python), *sys.argv])
