"""Serve a model over HTTP: the registry's champion, or an artefact by its path.

python scripts/serve.py
python scripts/serve.py artefact=outputs/mine/export port=8080
"""

import sys

from _start import main

if __name__ == "__main__":
    main(["serve", *sys.argv[1:]])
