"""See what this machine can do, and what to do about the rest; exit 3 where something is broken.

python scripts/doctor.py
python scripts/doctor.py target=ssh target.host=pi@raspberrypi log.url=postgresql://me@db/log
"""

import sys

from _start import main

if __name__ == "__main__":
    main(["doctor", *sys.argv[1:]])
