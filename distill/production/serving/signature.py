"""What a model takes and gives: inputs are held against it, and what is odd in them is counted.

Of a model with a contract that is also which values a column may have; of a bare ONNX file its
names, types and shapes alone. Knows nothing of how inputs were sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from distill.contract import Contract
from distill.errors import UserError, nearest
from distill.production.serving.protocol import Tensor
from distill.production.serving.refusals import Oddity, RefusedError, bad_input
from distill.production.serving.seen import Seen
from distill.production.serving.tensors import TensorSpec, datatype_of
from distill.runtime import answers_among
from distill.tables.columns import NO_DATE, Column, Kind
from distill.tables.texts import Spelling


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Inputs that a model can be given.

    Attributes:
        feeds: by name.
        num_rows: length of the first dimension of each; 1 where they have none in common.
        oddities: what was odd in them and is no reason to refuse them.
        odd_rows: with a value that training has not seen.
    """

    feeds: dict[str, NDArray[Any]]
    num_rows: int
    oddities: tuple[Oddity, ...] = ()
    odd_rows: frozenset[int] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What goes in and what comes out.

    Attributes:
        inputs: all of them.
        outputs: those that are tensors, but for the embedding: it is neither copied nor sent.
        columns: of a table, by name: what its values may be.
        seen: of a table's columns the values that training has seen.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    columns: Mapping[str, Column] = field(default_factory=dict)
    seen: Seen = field(default_factory=Seen)

    @property
    def has_rows(self) -> bool:
        """Whether every input and output has a first dimension of any size, as batches have."""
        every = (*self.inputs, *self.outputs)
        return all(spec.shape and spec.shape[0] is None for spec in every)

    @cached_property
    def input_by_name(self) -> dict[str, TensorSpec]:
        """The inputs."""
        return {spec.name: spec for spec in self.inputs}

    @cached_property
    def output_by_name(self) -> dict[str, TensorSpec]:
        """The outputs."""
        return {spec.name: spec for spec in self.outputs}

    @cached_property
    def output_names(self) -> list[str]:
        """Names of the outputs, in order."""
        return [spec.name for spec in self.outputs]

    @cached_property
    def _max_lengths(self) -> dict[str, int]:
        """Characters that a text may have, by column."""
        seen = {name: self.seen.categories.get(name, frozenset()) for name in self.columns}
        return {name: Spelling(seen=own).max_length for name, own in seen.items()}

    def check(self, given: Mapping[str, Tensor]) -> Checked:
        """Hold inputs against the model.

        Raises:
            RefusedError: a name, type, shape or value is not the model's.
        """
        if len(given) != len(self.inputs) or given.keys() != self.input_by_name.keys():
            raise self._misnamed(given)
        oddities: list[Oddity] = []
        feeds: dict[str, NDArray[Any]] = {}
        for spec in self.inputs:
            tensor = given[spec.name]
            if tensor.datatype != spec.datatype:
                raise bad_input(
                    f"Expected the input `{spec.name}` to be {spec.datatype} but got "
                    f"{tensor.datatype}.",
                    Oddity(kind="dtype", column=spec.name),
                )
            if not spec.fits(tensor.values.shape):
                raise bad_input(
                    f"Expected the input `{spec.name}` of shape {spec.metadata['shape']} (-1 is "
                    f"any size) but got {list(tensor.values.shape)}.",
                    Oddity(kind="shape", column=spec.name),
                )
            feeds[spec.name] = tensor.values
            oddities += self._odd_values(spec, tensor.values)
        num_rows = self._num_rows(feeds)
        is_new = any(oddity.kind == "category" for oddity in oddities)
        odd_rows = self.seen.odd_rows(feeds, num_rows) if is_new else frozenset()
        return Checked(feeds=feeds, num_rows=num_rows, oddities=tuple(oddities), odd_rows=odd_rows)

    def _misnamed(self, given: Mapping[str, Tensor]) -> RefusedError:
        known = self.input_by_name
        missing = [name for name in known if name not in given]
        if missing:
            shown = ", ".join(f"`{name}`" for name in missing[:10])
            return bad_input(
                f"Expected the input {shown} but it is missing. The model takes "
                f"{', '.join(list(known)[:20])}.",
                Oddity(kind="missing", column=missing[0]),
            )
        unknown = next(name for name in given if name not in known)[:60]
        return bad_input(
            f"Expected inputs that the model takes but got `{unknown}`. {nearest(unknown, known)}",
            Oddity(kind="unknown", column=""),
        )

    def _num_rows(self, feeds: Mapping[str, NDArray[Any]]) -> int:
        if not self.has_rows:
            return 1
        lengths = {len(values) for values in feeds.values()}
        if len(lengths) != 1:
            raise bad_input(
                f"Expected as many rows in every input but got {sorted(lengths)}.",
                Oddity(kind="shape", column=self.inputs[0].name),
            )
        return lengths.pop()

    def _odd_values(self, spec: TensorSpec, values: NDArray[Any]) -> list[Oddity]:
        if values.dtype.kind not in "fOi":
            return []
        column = self.columns.get(spec.name)
        if values.dtype.kind == "O":
            return [] if column is None else self._odd_texts(column, values.ravel())
        if values.dtype.kind == "i":
            gaps = 0 if column is None else int(np.count_nonzero(values == NO_DATE))
        elif np.isfinite(values).all():
            gaps = 0
        elif column is None or np.isinf(values).any():
            raise bad_input(
                f"Expected finite numbers in the input `{spec.name}` but found "
                f"{'an infinity' if np.isinf(values).any() else 'NaN'}.",
                Oddity(kind="range", column=spec.name),
            )
        else:
            gaps = int(np.count_nonzero(np.isnan(values)))
        if column is not None and column.kind is Kind.BOOLEAN:
            _check_booleans(spec, values)
        return [Oddity(kind="gap", column=spec.name, count=gaps)] if gaps else []

    def _odd_texts(self, column: Column, values: NDArray[Any]) -> list[Oddity]:
        # Who reads the log gives every row of a column the room of its longest text.
        longest, most = max(map(len, values), default=0), self._max_lengths[column.name]
        seen = self.seen.categories.get(column.name)
        if longest > most:
            raise bad_input(
                f"Expected texts of at most {most:,} characters in the input `{column.name}` "
                f"but got one of {longest:,}.",
                Oddity(kind="range", column=column.name),
            )
        if seen is None:
            return []
        unseen = sum(value not in seen for value in values)
        return [Oddity(kind="category", column=column.name, count=unseen)] if unseen else []


def _check_booleans(spec: TensorSpec, values: NDArray[Any]) -> None:
    if not (np.isnan(values) | (values == 0) | (values == 1)).all():
        raise bad_input(
            f"Expected 0 and 1 in the input `{spec.name}`, which is yes or no, but found others.",
            Oddity(kind="range", column=spec.name),
        )


def signature_of(
    session: onnxruntime.InferenceSession, path: Any, contract: Contract | None
) -> Signature:
    """Read what a loaded model takes and gives.

    Raises:
        UserError: an input is of a type that the protocol lacks, or no output is a tensor.
    """
    inputs = tuple(map(_spec, session.get_inputs()))
    given = session.get_outputs()
    answers = answers_among([argument.name for argument in given])
    told = (_spec(argument) for argument in given if argument.name in answers)
    outputs = tuple(spec for spec in told if spec is not None)
    known = tuple(spec for spec in inputs if spec is not None)
    if len(known) != len(inputs) or not outputs:
        raise UserError(
            f"Expected tensors as inputs and outputs of {path} but it has others, such as lists or "
            "maps. Export it without them (of scikit-learn: `zipmap=False`)."
        )
    table = contract.table if contract is not None else None
    if contract is not None and sorted(contract.input_names) != sorted(s.name for s in known):
        raise UserError(
            f"Expected {path} to take {', '.join(contract.input_names)}, as its contract says, but "
            f"it takes {', '.join(spec.name for spec in known)}."
        )
    if table is None:
        return Signature(inputs=known, outputs=outputs)
    return Signature(
        inputs=known,
        outputs=outputs,
        columns={column.name: column for column in table.columns},
        seen=Seen.of(contract),
    )


def _spec(argument: Any) -> TensorSpec | None:
    datatype = datatype_of(argument.type)
    if datatype is None:
        return None
    shape = tuple(size if isinstance(size, int) and size > 0 else None for size in argument.shape)
    return TensorSpec(name=argument.name, datatype=datatype, shape=shape)
