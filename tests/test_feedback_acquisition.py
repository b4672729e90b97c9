"""Strategies are what their papers say, by brute force; a choice holds to its limits."""

from collections import Counter
from itertools import combinations, islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import cdist

from distill.errors import UsageError
from distill.production.feedback import acquisition
from distill.production.feedback.acquisition import Pool, divergence
from distill.production.feedback.selection import Limits, choose, shares


def softmax(logits):
    return np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)


@pytest.fixture
def pool(rng):
    logits, teacher = rng.normal(size=(2, 40, 4)) * 2
    return Pool(
        logits=logits,
        teacher_logits=teacher,
        member_logits=rng.normal(size=(3, 40, 4)) * 2,
        embedding=rng.normal(size=(40, 5)),
    )


def scored(strategy, pool):
    """Scores by place, seen to come in the order of a walk over all."""
    walk = list(strategy(pool))
    assert sorted(place for place, _ in walk) == list(range(len(pool)))
    assert [s for _, s in walk] == sorted((s for _, s in walk), reverse=True)
    return np.array([score for _, score in sorted(walk)])


def test_uncertainty_is_what_each_paper_says(pool):
    probabilities = softmax(pool.logits)
    top = np.sort(probabilities, axis=1)
    expected = {
        "least_confidence": 1 - top[:, -1],
        "margin": 1 - (top[:, -1] - top[:, -2]),
        "entropy": stats.entropy(probabilities, axis=1),
        "disagreement": stats.entropy(softmax(pool.teacher_logits), probabilities, axis=1),
        "bald": stats.entropy(softmax(pool.member_logits).mean(axis=0), axis=1)
        - stats.entropy(softmax(pool.member_logits), axis=2).mean(axis=0),
    }
    for name, scores in expected.items():
        found = scored(getattr(acquisition, name), pool)
        np.testing.assert_allclose(found, scores, rtol=1e-9, err_msg=name)


def test_random_asks_each_as_often_whatever_the_model_says():
    logits = np.repeat([[9.0, 0.0], [0.0, 0.1]], 5, axis=0)
    first = [next(acquisition.random(Pool(logits=logits, seed=seed)))[0] for seed in range(2000)]
    counts = np.bincount(first, minlength=10)
    assert stats.chisquare(counts).pvalue > 0.001
    walk = [place for place, _ in acquisition.random(Pool(logits=logits, seed=1))]
    assert walk == [place for place, _ in acquisition.random(Pool(logits=logits, seed=1))]
    assert sorted(walk) == list(range(10))


def test_bald_is_nothing_where_members_agree_and_log_2_where_two_are_sure_of_two_things():
    sure, other = np.array([[50.0, 0.0]]), np.array([[0.0, 50.0]])
    (_, alike), *_ = acquisition.bald(Pool(logits=sure, member_logits=np.stack([sure, sure])))
    (_, apart), *_ = acquisition.bald(Pool(logits=sure, member_logits=np.stack([sure, other])))
    assert alike == pytest.approx(0, abs=1e-12)
    assert apart == pytest.approx(np.log(2))


def test_logits_of_any_size_are_finite_scores():
    logits = np.array([[1e6, -1e6, 0.0], [0.0, 0.0, 0.0]])
    pool = Pool(logits=logits, teacher_logits=logits[::-1])
    for name in ("least_confidence", "margin", "entropy", "disagreement", "core_set", "badge"):
        scores = [score for _, score in getattr(acquisition, name)(pool)]
        assert np.isfinite(scores[1:]).all(), name


@pytest.mark.parametrize("name", ["bald", "disagreement"])
def test_what_a_strategy_lacks_is_named(pool, name):
    with pytest.raises(UsageError, match=name):
        getattr(acquisition, name)(Pool(logits=pool.logits))


def test_a_score_is_divided_by_what_the_label_costs(pool, rng):
    costs = rng.uniform(1, 5, len(pool))
    dear = Pool(logits=pool.logits, costs=costs)
    free = scored(acquisition.margin, Pool(logits=pool.logits))
    np.testing.assert_allclose(scored(acquisition.margin, dear), free / costs)


@given(
    st.lists(
        st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=12, unique=True
    )
)
def test_core_set_takes_the_farthest_each_time_and_is_within_twice_the_best_radius(points):
    features = np.array(points, float)
    pool = Pool(logits=np.zeros((len(points), 2)), embedding=features)
    apart = cdist(features, features)
    order = [place for place, _ in acquisition.core_set(pool)]
    assert sorted(order) == list(range(len(points)))
    for k in range(1, len(points)):
        to_nearest = apart[:, order[:k]].min(axis=1)
        assert to_nearest[order[k]] == pytest.approx(to_nearest.max())
    k = min(3, len(points))
    best = min(apart[:, c].min(axis=1).max() for c in combinations(range(len(points)), k))
    assert apart[:, order[:k]].min(axis=1).max() <= 2 * best + 1e-9


def test_core_set_goes_on_from_what_was_asked_before(rng):
    """As if the walk had begun with those."""
    asked, pool = rng.normal(size=(4, 2)), rng.normal(size=(9, 2))
    before = Pool(logits=np.zeros((4, 2)), embedding=asked)
    own = Pool(logits=np.zeros((9, 2)), embedding=pool, asked=lambda: before)
    centers = asked
    for place, score in acquisition.core_set(own):
        gaps = cdist(pool, centers).min(axis=1)
        assert score == pytest.approx(gaps.max()) == pytest.approx(gaps[place])
        centers = np.concatenate([centers, pool[[place]]])
    nothing = Pool(logits=np.zeros((0, 2)), embedding=np.zeros((0, 2)))
    first = Pool(logits=own.logits, embedding=pool, asked=lambda: nothing)
    alone = Pool(logits=own.logits, embedding=pool)
    assert [*acquisition.core_set(first)] == [*acquisition.core_set(alone)]


def test_core_set_prefers_the_cheap_of_two_as_far():
    features = np.array([[0.0], [1.0], [-1.0]])
    pool = Pool(logits=np.zeros((3, 2)), embedding=features, costs=np.array([1.0, 9.0, 1.0]))
    assert [place for place, _ in acquisition.core_set(pool)] == [0, 2, 1]


def test_badge_draws_by_squared_distances_of_gradients(rng):
    logits, embedding = rng.normal(size=(6, 3)) * 2, rng.normal(size=(6, 2))
    errors = softmax(logits) - np.eye(3)[logits.argmax(axis=1)]
    gradients = (errors[:, :, None] * embedding[:, None, :]).reshape(6, -1)
    first = int((gradients**2).sum(axis=1).argmax())
    chances = np.minimum(
        ((gradients - gradients[first]) ** 2).sum(axis=1), (gradients**2).sum(axis=1)
    )
    chances[first] = 0
    seconds = Counter()
    for seed in range(2000):
        pool = Pool(logits=logits, embedding=embedding, seed=seed)
        (one, _), (two, score) = islice(acquisition.badge(pool), 2)
        assert one == first
        assert score == pytest.approx(np.sqrt(chances[two]))
        seconds[two] += 1
    others = [i for i in range(6) if i != first]
    expected = 2000 * chances[others] / chances.sum()
    assert stats.chisquare([seconds[i] for i in others], expected).pvalue > 1e-4


def test_badge_takes_each_once_also_where_nothing_differs():
    pool = Pool(logits=np.zeros((5, 2)), embedding=np.zeros((5, 3)))
    assert sorted(place for place, _ in acquisition.badge(pool)) == [0, 1, 2, 3, 4]


def test_without_an_embedding_distances_are_of_logits_up_to_a_constant(rng):
    logits = rng.normal(size=(9, 3))
    moved = logits + rng.normal(size=(9, 1)) * 100
    walks = [[p for p, _ in acquisition.core_set(Pool(logits=own))] for own in (logits, moved)]
    assert walks[0] == walks[1]


def test_divergence_is_zero_of_equal_answers_whatever_their_offset(rng):
    logits = rng.normal(size=(5, 3))
    np.testing.assert_allclose(divergence(logits + 7, logits), 0, atol=1e-12)


@given(
    predicted=st.lists(st.integers(0, 4), min_size=1, max_size=40),
    budget=st.integers(0, 50),
    per_unit=st.none() | st.integers(1, 3),
    stratified=st.booleans(),
    data=st.data(),
)
def test_a_choice_holds_to_its_limits(predicted, budget, per_unit, stratified, data):
    count = len(predicted)
    draw = st.lists(st.sampled_from("abcdef"), min_size=count, max_size=count)
    units, hashes = data.draw(draw), data.draw(draw)
    pool = Pool(logits=np.eye(5)[predicted] * np.arange(1, count + 1)[:, None])
    limits = Limits(budget=budget, per_unit=per_unit, stratified=stratified)
    choice = choose(pool, acquisition.margin, limits, units=units, hashes=hashes)
    places = [pick.place for pick in choice.picks]
    assert len(places) == len(set(places)) <= budget
    assert len({hashes[i] for i in places}) == len(places)
    most = Counter(units[i] for i in places).most_common(1)
    assert per_unit is None or not most or most[0][1] <= per_unit
    if per_unit is None:  # then nothing but duplicates may be left over
        assert len(places) == min(budget, len(set(hashes)))


def test_strata_have_equal_shares_as_far_as_they_have_as_many():
    predicted = np.array([0] * 10 + [1] * 2 + [2] * 5)
    assert shares(predicted, 9) == {0: 4, 1: 2, 2: 3}
    pool = Pool(logits=np.eye(3)[predicted] * 3)
    choice = choose(pool, acquisition.margin, Limits(budget=9, stratified=True))
    found = Counter(predicted[[pick.place for pick in choice.picks]].tolist())
    assert found == {0: 4, 1: 2, 2: 3}


def test_a_share_that_duplicates_leave_empty_goes_to_others():
    predicted = np.array([0] * 4 + [1] * 4)
    hashes = ["same"] * 4 + list("abcd")
    pool = Pool(logits=np.eye(2)[predicted])
    limits = Limits(budget=4, stratified=True)
    choice = choose(pool, acquisition.margin, limits, hashes=hashes)
    found = Counter(predicted[[pick.place for pick in choice.picks]].tolist())
    assert (found, choice.num_duplicates) == ({0: 1, 1: 3}, 3)


def test_inputs_nearer_than_a_share_of_the_spread_are_one():
    features = np.array([[0.0], [0.01], [10.0], [-10.0]])
    pool = Pool(logits=np.zeros((4, 2)), embedding=features)
    near = choose(pool, acquisition.margin, Limits(budget=4, duplicate_distance=0.01))
    assert [pick.place for pick in near.picks] == [0, 2, 3]
    assert len(choose(pool, acquisition.margin, Limits(budget=4)).picks) == 4


def test_inputs_without_a_hash_are_no_duplicates():
    pool = Pool(logits=np.zeros((3, 2)))
    choice = choose(pool, acquisition.margin, Limits(budget=3), hashes=[None, None, None])
    assert len(choice.picks) == 3


def test_an_empty_pool_gives_nothing():
    pool = Pool(logits=np.zeros((0, 3)))
    for name in ("margin", "core_set", "badge"):
        assert choose(pool, getattr(acquisition, name), Limits(budget=3)).picks == ()


@pytest.mark.parametrize(
    "wrong", [{"budget": -1}, {"budget": 1, "per_unit": 0}, {"budget": 1, "duplicate_distance": 1}]
)
def test_limits_that_choose_nothing_are_refused(wrong):
    with pytest.raises(UsageError):
        Limits(**wrong)
