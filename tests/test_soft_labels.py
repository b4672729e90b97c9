import copy
import json
import shutil

import numpy as np
import pytest
from scipy.special import log_softmax, logsumexp, softmax

from distill.errors import UserError
from distill.training import soft_label_writer
from distill.training.soft_label_writer import StoreWriter, encode
from distill.training.soft_labels import (
    Recipe,
    SoftLabelStore,
    default_top_k,
    replay_error,
    stored_precision,
)

CLASSES = ("ant", "bee", "cow", "dog", "eel")


def recipe(**changes):
    values = {
        "teacher": "t" * 64,
        "data": "d" * 64,
        "classes": CLASSES,
        "views": {"views": {"padding": 4}, "mixing": {}},
        "views_version": 1,
        "num_samples": 10,
        "top_k": None,
        "precision": "float32",
    }
    return Recipe(**(values | changes))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(soft_label_writer, "BLOCK", 4)


@pytest.fixture
def logits(rng):
    return rng.normal(0, 5, size=(3, 10, 5)).astype(np.float32)  # [V, N, C]


INDICES = np.array([7, 3, 21, 4, 0, 9, 12, 5, 30, 2])


def build(folder, logits, made=None, stop_after=None, **options):
    made = made or recipe()
    writer = StoreWriter(folder, made, INDICES, len(logits), **options)
    writer.prepare()
    for count, (view, block) in enumerate(writer.missing_blocks()):
        if count == stop_after:
            return None
        writer.write(view, block, logits[view][writer.rows(block)])
    writer.finish()
    return SoftLabelStore(folder, made)


def files(folder):
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_sample_gets_back_what_the_teacher_said_of_it_in_that_view(tmp_path, logits):
    store = build(tmp_path, logits)
    asked = np.array([30, 7, 5])
    found = store.logits(2, asked)
    expected = logits[2][[8, 0, 7]].astype(np.float16).astype(np.float32)
    assert np.array_equal(found, expected)
    assert np.array_equal(store.logits(5, asked), expected)  # the views come round again


def test_top_k_keeps_the_mass_of_the_kept_and_of_the_rest(tmp_path, logits):
    store = build(tmp_path, logits, recipe(top_k=2))
    found = softmax(store.logits(1, INDICES).astype(np.float64), axis=1)
    truth = softmax(logits[1].astype(np.float64), axis=1)
    top = np.argsort(-truth, axis=1)[:, :2]
    kept, expected = (np.take_along_axis(p, top, axis=1) for p in (found, truth))
    np.testing.assert_allclose(kept, expected, atol=3e-3)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    rest = np.delete(found[0], top[0])
    np.testing.assert_allclose(rest, rest[0])  # spread evenly


def test_top_k_class_numbers_survive_many_classes(rng):
    wide = rng.normal(size=(3, 70_000)).astype(np.float32)
    stored = encode(wide, 4)
    assert stored["ids"].dtype == np.uint32
    assert np.array_equal(stored["ids"][:, 0], wide.argmax(axis=1))
    rest = [np.delete(row, ids) for row, ids in zip(wide, stored["ids"], strict=True)]
    np.testing.assert_allclose(stored["rest"], logsumexp(rest, axis=1), rtol=1e-6)
    assert default_top_k(1000) is None
    assert default_top_k(1001) == 100


@pytest.mark.parametrize("top_k", [None, 2])
def test_a_record_takes_at_most_two_bytes_a_class_and_64(tmp_path, logits, top_k):
    store = build(tmp_path, logits, recipe(top_k=top_k))
    header = 128 * len(store.files)
    assert store.size_bytes - header <= (2 * 5 + 64) * 3 * 10


@pytest.mark.parametrize("stop_after", [1, 4, 8])
def test_a_killed_build_goes_on_and_ends_byte_identical(tmp_path, logits, stop_after):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    build(whole, logits)
    assert build(resumed, logits, stop_after=stop_after) is None
    with pytest.raises(UserError, match="Run `soft_labels` to make it"):
        SoftLabelStore(resumed, recipe())
    writer = StoreWriter(resumed, recipe(), INDICES, 3)
    writer.prepare()
    assert len(writer.missing_blocks()) == 9 - stop_after
    build(resumed, logits)
    assert files(resumed) == files(whole)


def test_parts_of_another_recipe_are_neither_taken_over_nor_dropped_unasked(tmp_path, logits):
    build(tmp_path / "a", logits + 1, recipe(teacher="other"), stop_after=5)
    before = files(tmp_path / "a")
    with pytest.raises(UserError, match="unfinished one of another teacher"):
        build(tmp_path / "a", logits)
    assert files(tmp_path / "a") == before
    build(tmp_path / "a", logits, replace=True)
    build(tmp_path / "b", logits)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_more_views_are_added_to_those_that_are_there(tmp_path, logits):
    build(tmp_path / "a", logits[:1])
    writer = StoreWriter(tmp_path / "a", recipe(), INDICES, 3)
    writer.prepare()
    assert {view for view, _ in writer.missing_blocks()} == {1, 2}
    build(tmp_path / "a", logits)
    build(tmp_path / "b", logits)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_one_flipped_byte_is_found_named_and_mended(tmp_path, logits):
    build(tmp_path, logits)
    before = files(tmp_path)
    path = tmp_path / "view_001.logits.npy"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        UserError, match=r"view_001\.logits\.npy changed.*Delete .*view_001.logits.npy and run"
    ):
        SoftLabelStore(tmp_path, recipe())
    with pytest.raises(UserError, match="changed"):  # nor is a damaged file vouched for anew
        build(tmp_path, logits)
    path.unlink()
    with pytest.raises(UserError, match=r"view_001\.logits\.npy is missing"):
        SoftLabelStore(tmp_path, recipe())
    build(tmp_path, logits)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"teacher": "x"}, "another teacher"),
        ({"data": "x"}, "other data"),
        ({"classes": CLASSES[::-1]}, "other classes, or the same in another order"),
        ({"views": {"views": {"padding": 3}, "mixing": {}}}, "other augmentation"),
        ({"views_version": 2}, "another version of the code that makes the views"),
        ({"precision": "bfloat16"}, "another precision"),
    ],
)
def test_a_store_of_anything_else_is_refused_and_says_what_changed(tmp_path, logits, change, said):
    build(tmp_path, logits)
    before = files(tmp_path)
    with pytest.raises(UserError, match=said):
        SoftLabelStore(tmp_path, recipe(**change))
    with pytest.raises(UserError, match=said):
        build(tmp_path, logits, recipe(**change))
    assert files(tmp_path) == before
    build(tmp_path, logits, recipe(**change), replace=True)


def test_another_format_is_refused(tmp_path, logits):
    build(tmp_path, logits)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(UserError, match="format"):
        SoftLabelStore(tmp_path, recipe())


def test_a_sample_that_is_not_in_the_store_is_an_error(tmp_path, logits):
    store = build(tmp_path, logits)
    for absent in (1, 31, -1):
        with pytest.raises(UserError, match=f"index {absent}"):
            store.logits(0, np.array([7, absent]))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
def test_a_logit_that_float16_cannot_hold_is_refused(tmp_path, logits, bad):
    logits[1, 5, 2] = bad
    with pytest.raises(UserError, match=r"below 65,504"):
        build(tmp_path, logits)


def test_a_teacher_of_another_width_is_refused(tmp_path, logits):
    with pytest.raises(UserError, match=r"shape \(4, 5\).*got \(4, 4\)"):
        build(tmp_path, logits[..., :4])


def test_nonsense_is_refused(tmp_path):
    with pytest.raises(UserError, match="top_k"):
        recipe(top_k=5)
    with pytest.raises(UserError, match="num_views"):
        StoreWriter(tmp_path, recipe(), INDICES, 0)


def test_the_replay_error_is_that_of_log_probabilities(logits):
    first, second = logits[0], logits[1]
    a, b = log_softmax(first.astype(float), axis=1), log_softmax(second.astype(float), axis=1)
    expected = np.sqrt(np.mean((a - b) ** 2)) / np.std(b)
    assert replay_error([first[:3], first[3:]], [second[:3], second[3:]]) == pytest.approx(expected)
    assert replay_error([first + 100], [first]) == pytest.approx(0, abs=1e-4)  # shifts say nothing


def test_float16_storage_stays_within_the_replay_tolerance(tmp_path, logits):
    from distill.training.labelling import TOLERANCE

    store = build(tmp_path, logits)
    error = replay_error([store.logits(0, INDICES)], [logits[0]])
    assert 0 < error < TOLERANCE["float32"] / 5
    assert replay_error([store.logits(1, INDICES)], [logits[0]]) > 10 * TOLERANCE["bfloat16"]


def test_a_store_may_be_moved(tmp_path, logits):
    build(tmp_path / "a", logits)
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert SoftLabelStore(tmp_path / "b", recipe()).num_views == 3


def test_fewer_views_than_are_there_leave_the_store_as_it_is(tmp_path, logits):
    build(tmp_path, logits)
    before = files(tmp_path)
    assert StoreWriter(tmp_path, recipe(), INDICES, 2).is_finished()
    assert not StoreWriter(tmp_path, recipe(), INDICES, 4).is_finished()
    assert not StoreWriter(tmp_path, recipe(teacher="x"), INDICES, 2).is_finished()
    assert build(tmp_path, logits[:2]).num_views == 3
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda m: m | {"num_views": 4},
        lambda m: {k: v for k, v in m.items() if k != "files"},
        lambda m: m | {"recipe": m["recipe"] | {"surprise": 1}},
        lambda m: m | {"recipe": {k: v for k, v in m["recipe"].items() if k != "top_k"}},
    ],
)
def test_a_damaged_manifest_is_one_message(tmp_path, logits, damage):
    build(tmp_path, logits)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    for use in (lambda: SoftLabelStore(tmp_path), lambda: build(tmp_path, logits)):
        with pytest.raises(UserError, match="damaged"):
            use()


def test_a_store_travels_to_another_process_without_its_arrays(tmp_path, logits):
    store = build(tmp_path, logits)
    expected = store.logits(1, INDICES)
    travelled = copy.copy(store)  # as pickle does, by the object's state
    assert "_shards" not in travelled.__dict__
    assert np.array_equal(travelled.logits(1, INDICES), expected)


def test_the_precision_of_a_store_counts_only_for_the_same_recipe(tmp_path, logits):
    build(tmp_path, logits, recipe(precision="bfloat16"))
    assert stored_precision(tmp_path, recipe(precision="auto")) == "bfloat16"
    assert stored_precision(tmp_path, recipe(precision="auto", teacher="x")) is None
    assert stored_precision(tmp_path / "nowhere", recipe()) is None
