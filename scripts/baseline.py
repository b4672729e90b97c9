"""Score what a model must beat.

python scripts/baseline.py
python scripts/baseline.py data=fashion_mnist data.download=true
"""

import sys

from distill.cli import main

if __name__ == "__main__":
    main(["baseline", *sys.argv[1:]])
