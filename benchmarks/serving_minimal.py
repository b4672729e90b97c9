"""The least that FastAPI and onnxruntime take to answer; `serving_minimal.py MODEL PORT`."""

import sys

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class Tensor(BaseModel):
    """As the Open Inference Protocol has it."""

    name: str
    datatype: str
    shape: list[int]
    data: list[int]


class Asked(BaseModel):
    """Likewise."""

    inputs: list[Tensor]


def main() -> None:
    """Serve."""
    model, port = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    application = FastAPI()

    @application.get("/health")
    def health() -> str:
        return "ok"

    @application.post("/predict")
    def predict(asked: Asked) -> dict:
        given = asked.inputs[0]
        image = np.array(given.data, np.uint8).reshape(given.shape)
        logits = session.run(["logits"], {"image": image})[0]
        tensor = {"name": "logits", "datatype": "FP32", "shape": list(logits.shape)}
        return {"outputs": [tensor | {"data": logits.ravel().tolist()}]}

    uvicorn.run(application, host="127.0.0.1", port=int(port), log_level="warning")


if __name__ == "__main__":
    main()
