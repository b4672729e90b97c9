"""Score the exported files of a run folder on its test set.

python scripts/evaluate.py run_dir=outputs/mine
python scripts/evaluate.py run_dir=outputs/mine experiment=cifar10 data.root=cifar10
"""

import sys

from _start import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
