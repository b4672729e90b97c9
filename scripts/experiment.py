"""Decide about a challenger from the prediction log, or plan an experiment.

python scripts/experiment.py log.url=sqlite:///predictions.db
python scripts/experiment.py plan plan.baseline=0.95 plan.difference=0.01
"""

import sys

from _start import main

if __name__ == "__main__":
    main(["experiment", *sys.argv[1:]])
