"""Fit a mixture and convert it with skl2onnx; run by an interpreter that has it.

python tables_convert.py ROWS.npz SEED TREES MODEL.onnx

Leaves the versions of what it used beside the file, in MODEL.json.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from tables_folds import classifier


def main() -> None:
    """Convert what the command line names; probabilities are the second output."""
    given, seed, num_trees, path = sys.argv[1:]
    with np.load(given) as arrays:
        inputs, labels = arrays["inputs"], arrays["labels"]
    fitted = classifier(int(seed), int(num_trees)).fit(inputs, labels)
    fitted.set_params(flatten_transform=False)  # what is asked of it; only `transform` differs
    model = to_onnx(fitted, inputs[:1], options={"zipmap": False})
    Path(path).write_bytes(model.SerializeToString())
    versions = {name: version(name) for name in ("skl2onnx", "onnx", "protobuf", "scikit-learn")}
    Path(path).with_suffix(".json").write_text(json.dumps(versions))


if __name__ == "__main__":
    main()
