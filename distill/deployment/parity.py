"""How far one implementation's logits are from another's. Knows nothing of who computed them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.deployment.device.step import compare


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far a second implementation's logits are from the first's.

    Attributes:
        logit_std: root mean square difference over the standard deviation of the reference logits.
        max_abs: largest difference of a logit.
        top1_agreement: share of samples with the same answer.
        num_samples: compared.
    """

    logit_std: float
    max_abs: float
    top1_agreement: float
    num_samples: int


def measure_parity(reference: NDArray[np.floating], other: NDArray[np.floating]) -> Parity:
    """Compare two sets of logits for the same samples, [N, C] each."""
    found = compare(other, reference)
    return Parity(
        logit_std=found["output_std"],
        max_abs=found["max_abs"],
        top1_agreement=found["top1_agreement"],
        num_samples=found["num_samples"],
    )
