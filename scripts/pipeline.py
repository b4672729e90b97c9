"""From data to verdict, in one resumable run.

python scripts/pipeline.py
python scripts/pipeline.py experiment=cifar10 data.root=cifar10 run_dir=outputs/mine
"""

import sys

from _start import main

if __name__ == "__main__":
    main(["pipeline", *sys.argv[1:]])
