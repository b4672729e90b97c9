"""Feature losses against longhand NumPy, in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from scipy.special import log_softmax, softmax
from torch import nn

from distill.errors import UserError
from distill.training.losses import features, pyramid, relations

TAPS = {"student_tap": "s", "teacher_tap": "t", "weight": 1.0}


def maps(rng, channels, side=4, batch=3):
    return torch.from_numpy(rng.normal(size=(batch, channels, side, side)))


def vectors(rng, width, batch=5):
    return torch.from_numpy(rng.normal(size=(batch, width)))


def test_hint_is_the_mean_square(rng):
    s, t = maps(rng, 3), maps(rng, 3)
    expected = ((s.numpy() - t.numpy()) ** 2).reshape(3, -1).mean(axis=1)
    np.testing.assert_allclose(features.hint(s, t), expected)


def test_attention_transfer_longhand_with_other_channels_and_sizes(rng):
    s, t = maps(rng, 3, side=4), maps(rng, 5, side=8)

    def attention(x):
        flat = (x**2).mean(axis=1).reshape(len(x), -1)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    small = t.numpy().reshape(3, 5, 4, 2, 4, 2).mean(axis=(3, 5))
    expected = ((attention(s.numpy()) - attention(small)) ** 2).mean(axis=1)
    np.testing.assert_allclose(features.attention_transfer(s, t), expected)


def test_attention_forgets_the_order_of_channels_and_the_scale(rng):
    s, t = maps(rng, 4), maps(rng, 4)
    changed = 3 * t[:, [2, 0, 3, 1]]
    torch.testing.assert_close(
        features.attention_transfer(s, changed), features.attention_transfer(s, t)
    )


def test_channel_wise_kl_longhand_and_blind_to_a_channels_shift(rng):
    s, t = maps(rng, 3), maps(rng, 3)
    p = softmax(t.numpy().reshape(3, 3, -1) / 2, axis=2)
    log_p = log_softmax(t.numpy().reshape(3, 3, -1) / 2, axis=2)
    log_q = log_softmax(s.numpy().reshape(3, 3, -1) / 2, axis=2)
    expected = 4 * (p * (log_p - log_q)).sum(axis=2).mean(axis=1)
    np.testing.assert_allclose(features.channel_wise_kl(s, t, 2.0), expected)
    shifted = s + torch.arange(3.0)[:, None, None]
    np.testing.assert_allclose(features.channel_wise_kl(shifted, t, 2.0), expected)


def test_single_projector_longhand(rng):
    loss = features.SingleProjector(**TAPS).double()
    s, t = maps(rng, 3), maps(rng, 6)
    loss.connect([s.shape], [t.shape])
    loss.double()

    def normal(x):
        return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-5)

    projected = s.numpy().mean(axis=(2, 3)) @ loss.project.weight.detach().numpy().T
    expected = np.log((np.abs(normal(projected) - normal(t.numpy().mean(axis=(2, 3)))) ** 4).sum())
    assert loss([s], [t]).item() == pytest.approx(expected)


def test_variational_information_is_the_gaussian_likelihood(rng):
    from scipy.stats import norm

    mean, t = maps(rng, 3), maps(rng, 3)
    variance = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    deviation = np.sqrt(variance.numpy())[None, :, None, None]
    likelihood = norm.logpdf(t.numpy(), mean.numpy(), deviation)
    expected = -likelihood.reshape(3, -1).mean(axis=1) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(features.variational_information(mean, t, variance), expected)


def huber(difference):
    size = np.abs(difference)
    return np.where(size < 1, 0.5 * difference**2, size - 0.5)


def test_relational_distance_longhand(rng):
    s, t = vectors(rng, 4), vectors(rng, 7)

    def scaled(x):
        x = x.numpy()
        distances = np.sqrt(((x[:, None] - x[None]) ** 2).sum(axis=2))
        return distances / distances[distances > 0].mean()

    expected = huber(scaled(s) - scaled(t)).mean()
    assert relations.relational_distance(s, t).item() == pytest.approx(expected)


def test_relational_angle_longhand(rng):
    s, t = vectors(rng, 4), vectors(rng, 7)

    def cosines(x):
        x, n = x.numpy(), len(x)
        found = np.zeros((n, n, n))
        for i in range(n):
            for j in range(n):
                for k in range(n):
                    a, b = x[j] - x[i], x[k] - x[i]
                    length = np.linalg.norm(a) * np.linalg.norm(b)
                    found[i, j, k] = a @ b / length if length else 0
        return found

    expected = huber(cosines(s) - cosines(t)).mean()
    assert relations.relational_angle(s, t).item() == pytest.approx(expected)


def test_similarity_preserving_longhand(rng):
    s, t = vectors(rng, 4), vectors(rng, 7)

    def gram(x):
        product = x.numpy() @ x.numpy().T
        return product / np.linalg.norm(product, axis=1, keepdims=True)

    expected = ((gram(s) - gram(t)) ** 2).sum() / 25
    assert relations.similarity_preserving(s, t).item() == pytest.approx(expected)


def test_probabilistic_transfer_longhand(rng):
    s, t = vectors(rng, 4), vectors(rng, 7)

    def neighbourhoods(x):
        x = x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True)
        similarity = (x @ x.T + 1) / 2
        return similarity / similarity.sum(axis=1, keepdims=True)

    p, q = neighbourhoods(t), neighbourhoods(s)
    expected = (p * np.log(p / q)).sum() / 5
    assert relations.probabilistic_transfer(s, t).item() == pytest.approx(expected)


RELATIONS = [
    relations.relational_distance,
    relations.relational_angle,
    relations.similarity_preserving,
    relations.probabilistic_transfer,
]


@pytest.mark.parametrize("loss", RELATIONS)
def test_relations_are_blind_to_rotation_and_zero_for_equals(loss, rng):
    s, t = vectors(rng, 4), vectors(rng, 4)
    rotation = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    torch.testing.assert_close(loss(s @ rotation, t), loss(s, t))
    assert loss(t, t).item() == pytest.approx(0, abs=1e-12)
    assert loss(s, t) > 1e-4
    scaled = loss(7 * s, t)  # of these only the angle between samples matters, or their ratios
    torch.testing.assert_close(scaled, loss(s, t))


def test_hierarchical_context_longhand(rng):
    s, t = maps(rng, 2, side=8), maps(rng, 2, side=8)

    def mean_square(level):
        a, b = (
            x.numpy().reshape(3, 2, level, 8 // level, level, 8 // level).mean(axis=(3, 5))
            for x in (s, t)
        )
        return ((a - b) ** 2).reshape(3, -1).mean(axis=1)

    expected = mean_square(8) + mean_square(4) / 2 + mean_square(2) / 4 + mean_square(1) / 8
    np.testing.assert_allclose(pyramid.hierarchical_context(s, t), expected / 1.875)


TERMS = {
    "hint": features.HintLoss(**TAPS),
    "attention": features.AttentionTransfer(**TAPS),
    "channels": features.ChannelWiseKL(**TAPS),
    "projector": features.SingleProjector(**TAPS),
    "variational": features.VariationalInformation(**TAPS),
    "relational": relations.RelationalKD(**TAPS),
    "similarity": relations.SimilarityPreserving(**TAPS),
    "probabilistic": relations.ProbabilisticTransfer(**TAPS),
    "review": pyramid.ReviewLoss(
        student_tap=["a", "b"], teacher_tap=["c", "d"], weight=1.0, width=4
    ),
}
WITH_CONNECTORS = ("hint", "channels", "projector", "variational", "review")


@pytest.fixture(params=TERMS)
def term(request, rng):
    """A term with its connectors, a student's and a teacher's features."""
    torch.manual_seed(0)
    loss = TERMS[request.param]
    count = len(loss.student_taps)
    student = [maps(rng, 3, side=8 >> i) for i in range(count)]
    teacher = [maps(rng, 6, side=8 >> i) for i in range(count)]
    loss.connect([x.shape for x in student], [x.shape for x in teacher])
    loss.train()
    return request.param, loss, student, teacher


def test_gradients_are_those_of_finite_differences(term):
    _, loss, student, teacher = term
    loss.double()
    student = [x[..., :4, :4].clone().requires_grad_() for x in student]
    teacher = [x[..., :4, :4] for x in teacher]
    assert torch.autograd.gradcheck(lambda *s: loss(list(s), teacher), student, atol=1e-5)


def test_connectors_train_and_live_in_the_state(term):
    name, loss, student, teacher = term
    loss.float()
    parameters = list(loss.parameters())
    assert bool(parameters) == (name in WITH_CONNECTORS)
    assert bool(loss.state_dict()) == bool(parameters)
    if not parameters:
        return
    loss([x.float() for x in student], [x.float() for x in teacher]).backward()
    moved = [p.grad is not None and p.grad.abs().sum() > 0 for p in parameters]
    # A bias before batch normalisation, or a constant within a softmax, has no gradient.
    assert sum(moved) >= len(parameters) - 1


@pytest.mark.parametrize("scale", [0.0, 100.0])
def test_extreme_features_give_finite_losses_and_gradients(term, scale):
    _, loss, student, teacher = term
    loss.float()
    student = [(scale * x).float().requires_grad_() for x in student]
    value = loss(student, [(scale * x).float() for x in teacher])
    value.backward()
    assert torch.isfinite(value)
    assert all(torch.isfinite(x.grad).all() for x in student if x.grad is not None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_features_are_computed_in_float32(term, dtype):
    name, loss, student, teacher = term
    loss.float()
    student, teacher = ([x.to(dtype) for x in side] for side in (student, teacher))
    with torch.autocast("cpu", torch.bfloat16):
        low = loss(student, teacher)
    high = loss([x.float() for x in student], [x.float() for x in teacher])
    assert low.dtype == torch.float32
    # Connectors compute in bfloat16, as the network does; formulas do not.
    tolerance = 0.05 if name in WITH_CONNECTORS else 1e-5
    torch.testing.assert_close(low, high, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", ["attention", "channels", "review"])
def test_vectors_are_refused_where_maps_are_needed(name, rng):
    loss = TERMS[name]
    shapes = [torch.Size([2, 5])] * len(loss.student_taps)
    with pytest.raises(UserError, match=f"student's tap `{loss.student_taps[0]}`"):
        loss.connect(shapes, shapes)


def test_maps_against_vectors_are_refused():
    with pytest.raises(UserError, match=r"maps \[B, C, H, W\] at both taps, or vectors"):
        TERMS["hint"].connect([torch.Size([2, 5])], [torch.Size([2, 5, 4, 4])])


def test_unlike_numbers_of_taps_are_refused():
    with pytest.raises(UserError, match="as many `teacher_tap`"):
        features.HintLoss(student_tap=["a"], teacher_tap=["a", "b"], weight=1.0)


def test_hint_longhand_through_its_regressor(rng):
    loss = features.HintLoss(**TAPS)
    s, t = maps(rng, 3), maps(rng, 6)
    loss.connect([s.shape], [t.shape])
    loss.double()
    (regressor,) = loss.regressors
    assert isinstance(regressor, nn.Conv2d)
    weight = regressor.weight.detach().numpy()[:, :, 0, 0]
    regressed = np.einsum("oc,bchw->bohw", weight, s.numpy())
    regressed += regressor.bias.detach().numpy()[:, None, None]
    expected = ((regressed - t.numpy()) ** 2).mean()
    assert loss([s], [t]).item() == pytest.approx(expected)


def test_coinciding_embeddings_have_finite_gradients(rng):
    s = vectors(rng, 4)
    s[1] = s[0]
    for loss in RELATIONS:
        x = s.clone().requires_grad_()
        loss(x, vectors(rng, 4)).backward()
        assert torch.isfinite(x.grad).all()


def test_the_larger_map_is_averaged_down_to_the_smaller(rng):
    s, t = maps(rng, 2, side=4), maps(rng, 2, side=8)
    _, pooled = features.same_size(s, t)
    torch.testing.assert_close(pooled, F.avg_pool2d(t, 2))
