"""Which predictions are worth a label: uncertainty, disagreement, and spread over the inputs.

A strategy walks through a pool, the most wanted first, and says with which score: as far as it is
asked, since some decide one by one in the light of what came before. All are divided by the cost of
a label where that is known. Knows arrays; knows nothing of a log, nor of who labels.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from distill.errors import UsageError
from distill.statistics.metrics import log_softmax

Scores = NDArray[np.float64]  # [N], the most wanted largest
Walk = Iterator[tuple[int, float]]  # places in the pool, each once, and scores


@dataclass(frozen=True, kw_only=True)
class Pool:
    """What may be chosen from.

    Attributes:
        logits: of the model that answered, [N, C].
        embedding: penultimate features, [N, D]; None where the model gives none.
        teacher_logits: [N, C]; None without a teacher.
        member_logits: of an ensemble, [M, N, C]; None without one.
        costs: of a label, [N] > 0, in any unit; None where all cost the same.
        asked: looks at what was asked before, and is learnt from; None where nothing was.
        seed: of strategies that draw.
    """

    logits: NDArray[np.floating]
    embedding: NDArray[np.floating] | None = None
    teacher_logits: NDArray[np.floating] | None = None
    member_logits: NDArray[np.floating] | None = None
    costs: NDArray[np.floating] | None = None
    asked: "Callable[[], Pool] | None" = None
    seed: int = 0

    def __len__(self) -> int:
        return len(self.logits)

    @cached_property
    def log_probabilities(self) -> NDArray[np.float64]:
        """Of the model that answered, [N, C]."""
        return log_softmax(self.logits)

    @cached_property
    def features(self) -> NDArray[np.float64]:
        """What distances are measured in, [N, D]: the embedding, else the logits.

        Logits are centred, since a constant added to all of them changes no answer.
        """
        if self.embedding is not None:
            width = math.prod(self.embedding.shape[1:])  # also of no rows
            return np.asarray(self.embedding, np.float64).reshape(len(self), width)
        logits = np.asarray(self.logits, np.float64)
        return logits - logits.mean(axis=1, keepdims=True)

    @property
    def worth(self) -> Scores:
        """One over the cost of a label, [N]."""
        return np.ones(len(self)) if self.costs is None else 1 / np.asarray(self.costs, np.float64)


Strategy = Callable[[Pool], Walk]


def random(pool: Pool) -> Walk:
    """Walk in any order: what all others must beat."""
    return _by_score(np.random.default_rng(pool.seed).random(len(pool)), pool)


def least_confidence(pool: Pool) -> Walk:
    """Walk by 1 - max p.

    Lewis, Gale, "A sequential algorithm for training text classifiers", 1994.
    """
    return _by_score(1 - np.exp(pool.log_probabilities.max(axis=1)), pool)


def margin(pool: Pool) -> Walk:
    """Walk by 1 - (p1 - p2), of the two likeliest classes.

    Scheffer, Decomain, Wrobel, "Active hidden Markov models for information extraction", 2001.
    """
    second, first = np.sort(np.exp(pool.log_probabilities), axis=1)[:, -2:].T
    return _by_score(1 - (first - second), pool)


def entropy(pool: Pool) -> Walk:
    """Walk by -sum p log p, in nats (Shannon, "A mathematical theory of communication", 1948)."""
    return _by_score(_entropy(pool.log_probabilities), pool)


def bald(pool: Pool) -> Walk:
    """Walk by H(mean of p_m) - mean of H(p_m), in nats: what members of an ensemble disagree about.

    Houlsby et al., "Bayesian active learning for classification and preference learning", 2011;
    over an ensemble instead of dropout, as Beluch et al., "The power of ensembles for active
    learning in image classification", 2018.

    Raises:
        UsageError: there are not two members.
    """
    members = pool.member_logits
    if members is None or len(members) < 2:
        raise UsageError(
            "Expected the answers of two members of an ensemble or more for `strategy=bald` but "
            f"got {0 if members is None else len(members)}. Name them: "
            "`teacher.members=[a.onnx,b.onnx]`."
        )
    each = np.stack([log_softmax(own) for own in members])  # [M, N, C]
    mean = np.log(np.maximum(np.exp(each).mean(axis=0), np.finfo(np.float64).tiny))
    apart = _entropy(mean) - np.mean([_entropy(own) for own in each], axis=0)
    return _by_score(np.maximum(apart, 0), pool)


def disagreement(pool: Pool) -> Walk:
    """Walk by KL(teacher || model), in nats: where the model has not learnt what its teacher knows.

    Raises:
        UsageError: there is no teacher.
    """
    if pool.teacher_logits is None:
        raise UsageError(
            "Expected a teacher for `strategy=disagreement` but there is none, or it answers "
            "nothing. Name it with `teacher.path=`, or take `strategy=margin`."
        )
    return _by_score(divergence(pool.teacher_logits, pool.logits), pool)


def core_set(pool: Pool) -> Walk:
    """Walk so that the farthest input from all chosen and asked ones comes next (k-center greedy).

    Where nothing was asked it starts with the input nearest the middle. Its radius is at most twice
    the best one. Sener, Savarese, "Active learning for convolutional neural networks: a core-set
    approach", 2018; Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985.
    """
    features, worth = pool.features, pool.worth
    if not len(pool):
        return
    left, nearest = np.ones(len(pool), bool), np.full(len(pool), np.inf)
    for center in () if pool.asked is None else pool.asked().features:
        nearest = np.minimum(nearest, _distances(features, center))
    for _ in range(len(pool)):
        if np.isinf(nearest).all():
            here = int(_distances(features, features.mean(axis=0)).argmin())
        else:
            here = int(np.where(left, nearest * worth, -1.0).argmax())
        yield here, float(nearest[here] * worth[here])
        left[here] = False
        nearest = np.minimum(nearest, _distances(features, features[here]))


def badge(pool: Pool) -> Walk:
    """Walk as k-means++ draws over gradients of the last layer, (p - onehot(argmax p)) x features.

    Large where the model is unsure, far apart where inputs differ. Ash et al., "Deep batch active
    learning by diverse, uncertain gradient lower bounds", 2020. Products are never written out: the
    distance of two needs their factors alone.
    """
    probabilities = np.exp(pool.log_probabilities)
    errors = probabilities.copy()
    errors[np.arange(len(pool)), probabilities.argmax(axis=1)] -= 1
    gradients = _Products(errors, pool.features)
    worth, rng = pool.worth, np.random.default_rng(pool.seed)
    nearest, left = gradients.norms.copy(), np.ones(len(pool), bool)
    for number in range(len(pool)):
        chances = np.where(left, nearest * worth, 0.0)
        if number == 0 or not chances.any():  # all that is left is as what was chosen
            here = int(np.where(left, gradients.norms * worth, -1.0).argmax())
        else:
            here = int(rng.choice(len(pool), p=chances / chances.sum()))
        yield here, float(np.sqrt(nearest[here]))
        left[here] = False
        nearest = np.minimum(nearest, gradients.distances(here))


def divergence(
    teacher_logits: NDArray[np.floating], logits: NDArray[np.floating]
) -> NDArray[np.float64]:
    """KL(teacher || model) of each row, sum p_t (log p_t - log p), [N] in nats.

    Kullback, Leibler, "On information and sufficiency", 1951.
    """
    teacher, own = log_softmax(teacher_logits), log_softmax(logits)
    return np.maximum((np.exp(teacher) * (teacher - own)).sum(axis=1), 0)


def _by_score(scores: Scores, pool: Pool) -> Walk:
    per_cost = scores * pool.worth
    order = np.argsort(-per_cost, kind="stable")
    return ((int(place), float(per_cost[place])) for place in order)


def _entropy(log_probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    return -(np.exp(log_probabilities) * log_probabilities).sum(axis=-1)


def _distances(features: NDArray[np.float64], center: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sqrt(((features - center) ** 2).sum(axis=1))


class _Products:
    """Outer products of rows, [N, C] x [N, D], by their factors."""

    def __init__(self, left: NDArray[np.float64], right: NDArray[np.float64]) -> None:
        self._left, self._right = left, right
        self.norms = (left**2).sum(axis=1) * (right**2).sum(axis=1)  # squared, [N]

    def distances(self, place: int) -> NDArray[np.float64]:
        """Squared distances of all from one, [N]."""
        inner = (self._left @ self._left[place]) * (self._right @ self._right[place])
        return np.maximum(self.norms + self.norms[place] - 2 * inner, 0)
