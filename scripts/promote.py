"""Register a run, make it champion, roll back, and look at the history.

python scripts/promote.py register run_dir=outputs/mine
python scripts/promote.py to=champion
"""

import sys

from _start import main

if __name__ == "__main__":
    main(["promote", *sys.argv[1:]])
