"""Find the cheapest student that holds a budget, out of a space of candidates.

python scripts/search.py budget=digits_tight
python scripts/search.py experiment=cifar10 space=cifar data.root=<folder> search.max_minutes=60
"""

import sys

from _start import main

if __name__ == "__main__":
    main(["search", *sys.argv[1:]])
