"""Hold production against the world that its model was made in; exit 3 asks to train again.

python scripts/monitor.py                                  # the registry's champion
python scripts/monitor.py run=outputs/mine teacher.path=teacher.onnx
"""

import sys

from _start import main

if __name__ == "__main__":
    main(["monitor", *sys.argv[1:]])
