"""Run an exported model over images, rows of a table or series.

python scripts/predict.py artefact=export/model.onnx input=photos
python scripts/predict.py artefact=model.onnx input=test.parquet output=teacher.parquet
"""

import sys

from _start import main

if __name__ == "__main__":
    main(["predict", *sys.argv[1:]])
