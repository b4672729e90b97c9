"""Knowledge distillation, built backwards from production."""

import os

__version__ = "0.1.0"

# onnxruntime's wheels report to their maker unless told otherwise, and keep an identifier in the
# user's cache. It must be said before the first import, here and on every device we measure on.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
