"""Score what a model must beat.

python scripts/baseline.py
python scripts/baseline.py annotate n=300
"""

import sys

from _start import main

if __name__ == "__main__":
    main(["baseline", *sys.argv[1:]])
