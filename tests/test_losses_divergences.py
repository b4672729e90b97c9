"""Claims about the generalised Jensen-Shannon divergence and skewed KL."""

import numpy as np
import pytest
import torch

from distill.training.losses.divergences import (
    generalized_jsd,
    skew_kl,
)


def test_jsd_is_symmetric_and_bounded_at_a_half(batch):
    student, teacher, _ = batch
    there, back = (
        generalized_jsd(a, b, beta=0.5, temperature=1.0)
        for a, b in ((student * 100, teacher * 100), (teacher * 100, student * 100))
    )
    torch.testing.assert_close(there, back)
    assert there.max() <= np.log(2) + 1e-9


@pytest.mark.parametrize(("beta", "reverse"), [(0.0, False), (1.0, True)])
def test_jsd_over_its_share_tends_to_forward_and_reverse_kl(batch, beta, reverse):
    # Agarwal et al., 2024: JSD(beta) / beta -> KL(teacher || student) as beta -> 0, and mirrored.
    student, teacher, _ = batch
    near = generalized_jsd(student, teacher, beta=abs(beta - 1e-6), temperature=2.0) / 1e-6
    end = generalized_jsd(student, teacher, beta=beta, temperature=2.0)
    plain = skew_kl(student, teacher, alpha=0.0, reverse=reverse, temperature=2.0)
    torch.testing.assert_close(end, plain)
    torch.testing.assert_close(near, end, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_skew_kl_is_bounded(batch, reverse):
    student, teacher, _ = batch
    losses = skew_kl(student * 1000, teacher * 1000, alpha=0.1, reverse=reverse, temperature=1.0)
    assert losses.max() == pytest.approx(np.log(10), rel=1e-6)
