"""Store the teacher's answers.

python scripts/soft_labels.py experiment=cifar10 data.root=<folder> soft_labels.num_views=8
python scripts/soft_labels.py run_dir=outputs/mine soft_labels.path=labels
"""

import sys

from _start import main

if __name__ == "__main__":
    main(["soft_labels", *sys.argv[1:]])
