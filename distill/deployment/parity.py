"""How far one implementation's logits are from another's. Knows nothing of who computed them."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
    difference = other.astype(np.float64) - reference
    spread = float(np.std(reference)) or 1.0
    return Parity(
        logit_std=float(np.sqrt(np.mean(difference**2))) / spread,
        max_abs=float(np.abs(difference).max()),
        top1_agreement=float(np.mean(reference.argmax(axis=1) == other.argmax(axis=1))),
        num_samples=len(reference),
    )
