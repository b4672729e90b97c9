"""Measure ONNX files on a target against a budget.

python scripts/benchmark.py artefacts=[model.onnx,model.int8.onnx]
python scripts/benchmark.py artefacts=[a.onnx] budget.latency.p95_ms=2 target=cpu
"""

import sys

from _start import main

if __name__ == "__main__":
    main(["benchmark", *sys.argv[1:]])
