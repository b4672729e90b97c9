"""torch to ONNX with preprocessing inside, refused where the two disagree.

The only module of this wing that imports torch. Knows nothing of training, nor of budgets beyond
the two parity limits it is given.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException

from distill.deployment.graph_builder import rename
from distill.deployment.parity import Parity, measure_parity
from distill.errors import UserError
from distill.files import write_bytes
from distill.runtime import EMBEDDING, OnnxModel
from distill.tasks import TaskKind

OPSET = 20
RANDOM_OPS = {
    "RandomUniform",
    "RandomUniformLike",
    "RandomNormal",
    "RandomNormalLike",
    "Bernoulli",
    "Multinomial",
}
INPUT_NAME = "image"
PENULTIMATE = "penultimate/features"  # what the embedding is called until no other value is
OUTPUT_NAMES = {
    TaskKind.CLASSIFICATION: "logits",
    TaskKind.MULTI_LABEL: "logits",
    TaskKind.REGRESSION: "predictions",
}


class SoftmaxHead(nn.Module):
    """A further output beside the logits: `probabilities`, [B, C]."""

    names = ("probabilities",)

    def forward(self, logits: Tensor) -> tuple[Tensor, ...]:
        """Map logits [B, C] to the further outputs."""
        return (logits.softmax(dim=1),)


class TopKHead(nn.Module):
    """Further outputs beside the logits: `top_probabilities` and `top_classes`, [B, k] each.

    Args:
        k: number of classes, the likeliest first.
    """

    names = ("top_probabilities", "top_classes")

    def __init__(self, k: int = 5) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"Expected `k` > 0 but got {k}.")
        self.k = k

    def forward(self, logits: Tensor) -> tuple[Tensor, ...]:
        """Map logits [B, C] to the further outputs."""
        k = min(self.k, logits.shape[1])
        probabilities, classes = logits.softmax(dim=1).topk(k, dim=1)
        return probabilities, classes


class _WithFurther(nn.Module):
    """A model, what a head makes of its logits, and what its last layer is given."""

    def __init__(self, model: nn.Module, head: nn.Module | None, layer: nn.Module | None) -> None:
        super().__init__()
        self.model, self.head, self.layer = model, head, layer

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if self.layer is None:
            logits, embedding = self.model(images), ()
        else:
            given: list[Tensor] = []
            tap = self.layer.register_forward_pre_hook(lambda layer, args: given.extend(args))
            logits = self.model(images)
            tap.remove()
            embedding = (_features(given, self.layer),)
        further = () if self.head is None else self.head(logits)
        return (logits, *further, *embedding)


def _features(given: Sequence[Tensor], layer: nn.Module) -> Tensor:
    """Bring what a layer was given to [B, D] float32: the mean over places or tokens."""
    if not given or not isinstance(given[-1], Tensor) or given[-1].ndim < 2:
        raise UserError(
            f"Expected the last layer of the network ({type(layer).__name__}) to be given features "
            "[B, D, ...] but it was not. Call the layer that answers `head`, or set "
            "`embedding=false`."
        )
    features = given[-1].float()
    if features.ndim > 2 and isinstance(layer, nn.Linear):  # [B, ..., D]
        return features.flatten(1, -2).mean(dim=1)
    return features.flatten(2).mean(dim=2) if features.ndim > 2 else features


def last_layer(model: nn.Module) -> nn.Module:
    """Find the layer that makes answers of penultimate features.

    That is the network's `head`, the outermost of that name; else the last linear layer, or the
    last convolution where that comes later.

    Raises:
        UserError: there is none of these.
    """
    named = list(model.named_modules())
    heads = [(name.count("."), m) for name, m in named if name.rpartition(".")[2] == "head"]
    if heads:
        return min(heads, key=lambda found: found[0])[1]
    weighted = [module for _, module in named if isinstance(module, nn.Linear | nn.Conv2d)]
    if not weighted:
        raise UserError(
            f"Expected a last layer in `{type(model).__name__}`, whose input is the embedding, but "
            "it has neither a `head` nor a linear layer. Call the layer that answers `head`, or "
            "set `embedding=false`."
        )
    return weighted[-1]


def further_outputs(head: nn.Module | None, *, embedding: bool) -> tuple[str, ...]:
    """Name the outputs behind the answer, in their order: a head's, then the embedding."""
    return (*getattr(head, "names", ()), *([EMBEDDING] if embedding else []))


def export_onnx(
    model: nn.Module,
    shape: tuple[int, ...],
    path: Path,
    *,
    dtype: torch.dtype = torch.uint8,
    head: nn.Module | None = None,
    embedding: bool = False,
    kind: TaskKind = TaskKind.CLASSIFICATION,
) -> None:
    """Export a model: one tensor in, logits or numbers [B, num_outputs] out, dynamic batch.

    Args:
        model: in eval mode.
        shape: of a sample: (H, W, C) of an image, (F,) of an encoded row.
        path: of the file, one with everything in it.
        dtype: of a sample.
        head: makes further outputs of the logits and has their `names`; None for none.
        embedding: whether penultimate features come last, [B, D] float32; see `last_layer`.
        kind: of the task, which names the output.

    Raises:
        UserError: the model is in training mode, cannot be traced, would answer at random, or has
            no penultimate features though they are asked for.
    """
    if model.training:
        raise UserError("Expected a model in eval mode but it is training. Call `model.eval()`.")
    # Batch 2: a batch of 1 may be taken for a constant.
    example = torch.zeros(2, *shape, dtype=dtype)
    layer = last_layer(model) if embedding else None
    plain = head is None and layer is None
    exported = model if plain else _WithFurther(model, head, layer).eval()
    names = [OUTPUT_NAMES[kind], *further_outputs(head, embedding=embedding)]
    unlike_others = [name if name != EMBEDDING else PENULTIMATE for name in names]
    with _quiet(), torch.no_grad():
        if embedding:
            exported(example)  # says itself what is wrong; the exporter would wrap it
        try:
            program = torch.onnx.export(
                exported,
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT_NAME],
                output_names=unlike_others,
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                verbose=False,
            )
        except (
            torch.onnx.errors.OnnxExporterError,
            TorchDynamoException,
        ) as error:
            raise UserError(
                f"Expected `{type(model).__name__}` to export to ONNX but it does not: "
                f"{str(error).splitlines()[0]} Remove data-dependent Python from its forward."
            ) from error
    assert program is not None
    proto = program.model_proto
    opsets = {entry.domain: entry.version for entry in proto.opset_import}
    if opsets.get("") != OPSET:
        raise UserError(f"Expected opset {OPSET} but the exporter wrote {opsets.get('')}.")
    random = sorted({node.op_type for node in _nodes(proto.graph) if _is_random(node)})
    if random:
        raise UserError(
            f"Expected a deterministic graph but it holds {', '.join(random)}. "
            "Dropout or noise is live in eval mode: make it depend on `self.training`."
        )
    if embedding:
        _name_embedding(proto.graph)
    _forget_source(proto)
    write_bytes(path, proto.SerializeToString())


def _name_embedding(graph: onnx.GraphProto) -> None:
    """Name the last output. The exporter calls what `nn.Embedding` gives by that name, too."""
    rename(graph, EMBEDDING, f"inner_{EMBEDDING}")
    rename(graph, PENULTIMATE, EMBEDDING)
    graph.output[-1].name = EMBEDDING


def _forget_source(proto: onnx.ModelProto) -> None:
    """Remove the stack traces that the exporter leaves at every node.

    They are half of a small file, and tell whoever gets it the paths of this machine.
    """
    graph = proto.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for tensor in graph.initializer:
        tensor.ClearField("metadata_props")
        tensor.ClearField("doc_string")


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Walk all nodes, those in the branches and bodies of others too."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _is_random(node: onnx.NodeProto) -> bool:
    """Tell whether a node draws; a Dropout does where it has a training mode (third input)."""
    return node.op_type in RANDOM_OPS or (node.op_type == "Dropout" and len(node.input) > 2)


def check_parity(
    reference: NDArray[np.floating],
    path: Path,
    inputs: NDArray[Any],
    *,
    max_logit_std: float | None,
    min_top1_agreement: float | None,
) -> Parity:
    """Compare torch's logits with the ONNX file's on the same inputs, and refuse beyond the limits.

    Raises:
        UserError: the two disagree; the file is removed, so that nobody ships it.
    """
    parity = measure_parity(reference, OnnxModel(path, num_threads=2).predict(inputs))
    if not np.isfinite(parity.max_abs):
        path.unlink()
        raise UserError(
            f"Expected {path.name} to answer with numbers but on {parity.num_samples} validation "
            "samples some logits are infinite or no numbers. The file was not kept. Look for a "
            "division or a logarithm of 0 in the network."
        )
    too_far = max_logit_std is not None and not parity.logit_std <= max_logit_std
    too_rare = min_top1_agreement is not None and not parity.top1_agreement >= min_top1_agreement
    if too_far or too_rare:
        path.unlink()
        raise UserError(
            f"Expected {path.name} to answer as torch does (logit difference at most "
            f"{max_logit_std} std, same answer for at least {min_top1_agreement}) but on "
            f"{parity.num_samples} validation samples it differs by {parity.logit_std:.3g} std and "
            f"agrees on {parity.top1_agreement:.4f}. The file was not kept. Look for operators "
            "that the exporter maps wrongly, or set `budget.parity` if you can bear it."
        )
    return parity


def embed_metadata(path: Path, metadata: dict[str, str]) -> None:
    """Put key-value pairs into an ONNX file's metadata."""
    proto = onnx.load(path)
    onnx.helper.set_model_props(proto, metadata)
    write_bytes(path, proto.SerializeToString())


@contextlib.contextmanager
def _quiet():
    """Keep the exporter's progress chatter off stdout, and its registration warnings off stderr."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
