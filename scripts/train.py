"""Train the teacher, the control and the student.

python scripts/train.py
python scripts/train.py teacher teacher=resnet20 trainer.max_epochs=60
"""

import sys

from _start import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
