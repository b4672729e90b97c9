"""The same model behind LitServe, batched as it can; `serving_litserve.py MODEL PORT`.

Runs under an interpreter of its own that has litserve, numpy and onnxruntime.
"""

import sys

import litserve
import numpy as np
import onnxruntime


class Network(litserve.LitAPI):
    """One request after another, or what waits at most a millisecond together."""

    def setup(self, device: str) -> None:
        """Load."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(sys.argv[1], options, providers=providers)

    def decode_request(self, request: dict) -> np.ndarray:
        """Read a tensor."""
        given = request["inputs"][0]
        return np.array(given["data"], np.uint8).reshape(given["shape"])

    def predict(self, image: np.ndarray) -> np.ndarray:
        """Ask the model."""
        return self.session.run(["logits"], {"image": image})[0]

    def encode_response(self, logits: np.ndarray) -> dict:
        """Write a tensor."""
        tensor = {"name": "logits", "datatype": "FP32", "shape": list(logits.shape)}
        return {"outputs": [tensor | {"data": logits.ravel().tolist()}]}


class Batched(Network):
    """Likewise, together."""

    def batch(self, inputs: list) -> np.ndarray:
        """Put requests together."""
        return np.concatenate(inputs)

    def unbatch(self, output: np.ndarray) -> list:
        """Take answers apart."""
        return [output[at : at + 1] for at in range(len(output))]


if __name__ == "__main__":
    network = (
        Batched(max_batch_size=32, batch_timeout=0.001) if "batched" in sys.argv else Network()
    )
    litserve.LitServer(network, accelerator="cpu", workers_per_device=1).run(
        port=int(sys.argv[2]),
        host="127.0.0.1",
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )
