"""A KServe InferenceService (serving.kserve.io/v1beta1) over a Triton model repository.

Pure: facts in, text out. Where the repository is uploaded to, and who applies the manifest, is the
user's business: no cluster is called.
"""

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from distill.deployment.deploy.model import Model, check_name, check_whole_number, name_of
from distill.deployment.deploy.triton import REPOSITORY, Triton
from distill.errors import UsageError
from distill.files import sha256

MANIFEST = "inference_service.yaml"
SCHEMES = ("gs", "s3", "pvc", "oci", "hdfs", "webhdfs", "hf", "https", "http")
_MEBIBYTE = 2**20


@dataclass(frozen=True, kw_only=True)
class KServe:
    """A service that gives a new version a share of the traffic.

    The weight holds against the version that was rolled out before, in KServe's Knative mode alone
    (its Standard mode takes the field and sends everything to the new version), so the manifest
    asks for that mode; the very first version of a service gets all.

    Attributes:
        storage_uri: where the cluster reads the repository, of this version alone: a pod of an
            older version that starts again reads its own.
        repository: what lies there.
        name: of service and model; None makes one of the data's name.
        namespace: None leaves it to `kubectl`.
        canary_percent: of the requests, for this version; 100 rolls it out.
        runtime: a ClusterServingRuntime or ServingRuntime with Triton.
        min_replicas: 0 scales to nothing where nobody asks.
        max_replicas: at least as many.
        server_bytes: of memory, for Triton itself.
        peak_rss_bytes: for the model, as the budget has it; None for no more than the server's.

    Raises:
        UsageError: a name or an address that is none, or a number out of its bounds.
    """

    storage_uri: str
    repository: Triton
    name: str | None = None
    namespace: str | None = None
    canary_percent: int = 10
    runtime: str = "kserve-tritonserver"
    min_replicas: int = 1
    max_replicas: int = 3
    server_bytes: int = 2 * 2**30
    peak_rss_bytes: int | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.repository.name not in (None, self.name):
            raise UsageError(
                f"Expected one name for service and model but got {self.name!r} and "
                f"{self.repository.name!r}. Give `deploy.name=` alone."
            )
        scheme, separator, place = str(self.storage_uri).partition("://")
        if scheme not in SCHEMES or not separator or not place or " " in place:
            known = ", ".join(f"{known}://" for known in SCHEMES)
            raise UsageError(
                f"Expected `deploy.storage_uri` where the cluster reads the model repository, one "
                f"of {known}, but got {self.storage_uri!r}. Upload the repository there."
            )
        check_whole_number("canary_percent", self.canary_percent, 0, 100)
        check_whole_number("min_replicas", self.min_replicas, 0)
        check_whole_number("max_replicas", self.max_replicas, max(1, self.min_replicas))
        check_whole_number("server_bytes", self.server_bytes, 1)
        if self.peak_rss_bytes is not None:
            check_whole_number("peak_rss_bytes", self.peak_rss_bytes, 1)

    def files(self, model: Model) -> dict[str, str | Path]:
        """Lay out the repository to upload, and the manifest to apply after that."""
        text = yaml.safe_dump(self.manifest(model), sort_keys=False, allow_unicode=True)
        return {**self._named(model).files(model), MANIFEST: self._head() + text}

    def steps(self, folder: Path) -> tuple[str, ...]:
        """Say what is uploaded where, then applied."""
        repository = folder / REPOSITORY
        return (
            f"upload what is in {repository} to {self.storage_uri}: {self._upload(repository)}",
            f"kubectl apply -f {folder / MANIFEST}",
            "kubectl get inferenceservice, until it is ready",
        )

    def _upload(self, folder: Path) -> str:
        """Name the command for what lies in a folder, where there is one for its kind of place."""
        tools = {
            "gs": "gcloud storage cp -r",
            "s3": "aws s3 cp --recursive",
            "hdfs": "hdfs dfs -put",
        }
        tool = tools.get(self.storage_uri.partition("://")[0])
        if tool is None:
            return "with the tool of that storage"
        what = f"{folder}/" if tool.startswith("aws") else f"{folder}/*"
        return f"{tool} {what} {self.storage_uri}"

    def _head(self) -> str:
        return (
            "# Written by `distill export deploy=kserve`. First upload what is in\n"
            f"# {REPOSITORY}/ to {self.storage_uri}, then:\n"
            f"#   kubectl apply -f {MANIFEST}\n"
        )

    def manifest(self, model: Model) -> dict[str, Any]:
        """Say what the cluster should run."""
        resources = {"cpu": str(self.repository.num_threads), "memory": self._memory()}
        predictor = {
            "canaryTrafficPercent": self.canary_percent,
            "minReplicas": self.min_replicas,
            "maxReplicas": self.max_replicas,
            "model": {
                "modelFormat": {"name": "onnx"},
                "protocolVersion": "v2",
                "runtime": self.runtime,
                "storageUri": self.storage_uri,
                # Equal ones make a guaranteed pod, and its latency the least disturbed.
                "resources": {"requests": dict(resources), "limits": dict(resources)},
            },
        }
        metadata = {
            "name": name_of(model, self.name),
            **({"namespace": self.namespace} if self.namespace else {}),
            "annotations": {
                "serving.kserve.io/deploymentMode": "Knative",
                "distill.artefact-sha256": sha256(model.path),
                "distill.contract-sha256": model.contract.sha256,
            },
        }
        return {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": metadata,
            "spec": {"predictor": predictor},
        }

    def _named(self, model: Model) -> Triton:
        return dataclasses.replace(self.repository, name=name_of(model, self.name))

    def _memory(self) -> str:
        return f"{math.ceil((self.server_bytes + (self.peak_rss_bytes or 0)) / _MEBIBYTE)}Mi"
