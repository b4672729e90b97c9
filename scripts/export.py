"""Turn a checkpoint into ONNX and int8, with its contract.

python scripts/export.py run_dir=outputs/mine
python scripts/export.py checkpoint=best.pt student=resnet8 quantize=none
"""

import sys

from _start import main

if __name__ == "__main__":
    main(["export", *sys.argv[1:]])
