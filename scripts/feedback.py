"""Choose what people label next, exchange it with Label Studio, collect a dataset version.

python scripts/feedback.py select strategy=badge limits.budget=200 teacher.path=teacher.onnx
python scripts/feedback.py collect teacher.path=teacher.onnx
"""

import sys

from _start import main

if __name__ == "__main__":
    main(["feedback", *sys.argv[1:]])
