"""Claims about `data=feedback`: who judges, who is learnt from, and what may not be in either."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_wine

from distill.audit import place_of
from distill.dataset_versions import Rows, write_version
from distill.errors import UsageError, UserError
from distill.training.data.feedback import feedback
from distill.training.data.folds import draw_folds
from distill.training.data.loading import BatchDataModule, ShuffledBatches
from distill.training.data.splits import RowsOnDisk, joined
from distill.training.data.tables import sklearn_table

SEED = 11


def rows_like(inputs, labels, splits, **facts):
    """Make rows of a version: audits drawn with 0.5, others chosen; -1 is labelled by nobody."""
    count = len(labels)
    labels, splits = np.asarray(labels, np.int64), np.asarray(splits)
    values = {
        "ids": np.array([f"row{i:05d}" for i in range(count)]),
        "times": np.arange(count, dtype=np.float64),
        "inputs": inputs,
        "labels": labels,
        "teacher_logits": np.full((count, 10), np.nan, np.float32),
        "sources": np.where(labels < 0, "nobody", "human"),
        "weights": np.ones(count),
        "inclusion_probabilities": np.where(splits == "audit", 0.5, np.nan),
        "splits": splits,
    }
    return Rows(**(values | facts))


def new_world(data, num_audit=60, num_active=40, num_unlabelled=50, seed=SEED):
    """Digits of another world: the training images inverted."""
    count = num_audit + num_active + num_unlabelled
    drawn = np.random.default_rng(seed).permutation(len(data.train))[:count]
    labels = data.train.labels[drawn].copy()
    labels[num_audit + num_active :] = -1
    splits = np.repeat(["audit", "active", "unlabelled"], [num_audit, num_active, num_unlabelled])
    ids = [one for one in (f"row{i:06d}" for i in range(10 * count)) if place_of(one) < 0.5]
    return rows_like(255 - data.train.inputs[drawn], labels, splits, ids=np.array(ids[:count]))


def version(tmp_path, rows, classes="0123456789"):
    return write_version(tmp_path / "versions", rows, {"classes": list(classes)})[0]


def whole(split):
    return {one.tobytes() for one in split.inputs}


def test_the_audit_judges_and_what_was_chosen_is_learnt(data, tmp_path):
    rows = new_world(data)
    found = feedback(base=data, version=str(version(tmp_path, rows)), seed=SEED)
    assert whole(found.test) == {one.tobytes() for one in rows.of("audit").inputs}
    assert found.old_test is data.test
    new = whole(found.train) - whole(data.train), whole(found.validation) - whole(data.validation)
    assert [len(own) for own in new] == [34, 6]  # 15 % of 40
    assert new[0] | new[1] == {one.tobytes() for one in rows.of("active").inputs}
    np.testing.assert_array_equal(found.train.inputs[: len(data.train)], data.train.inputs)
    assert whole(found.unlabelled) == {one.tobytes() for one in rows.of("unlabelled").inputs}
    parts = (found.train, found.validation, found.test, found.old_test, found.unlabelled)
    numbers = np.concatenate([own.indices for own in parts])
    assert len(set(numbers.tolist())) == len(numbers)
    labels = {one.tobytes(): own for one, own in zip(rows.inputs, rows.labels, strict=True)}
    assert all(
        labels[x.tobytes()] == y for x, y in zip(found.test.inputs, found.test.labels, strict=True)
    )
    assert found.task == data.task


def test_a_folder_of_versions_means_the_newest(data, tmp_path):
    version(tmp_path, new_world(data, seed=1))
    newest = version(tmp_path, new_world(data, num_active=20, seed=2))
    found = feedback(base=data, version=str(tmp_path / "versions"))
    assert found.fingerprint == feedback(base=data, version=str(newest)).fingerprint
    with pytest.raises(UserError, match="Make one with `feedback collect`"):
        feedback(base=data, version=str(tmp_path / "nowhere"))


def test_an_audit_of_two_shares_is_thinned_to_the_smaller(data, tmp_path):
    rows = new_world(data, num_audit=200)
    shares = np.where(np.arange(len(rows)) % 2, 0.5, 0.3)
    kept = np.array([place_of(one) < own for one, own in zip(rows.ids, shares, strict=True)])
    probabilities = np.where(rows.splits == "audit", shares, np.nan)
    rows = dataclasses.replace(rows, inclusion_probabilities=probabilities)
    audit = kept & (rows.splits == "audit")
    rows = Rows(
        **{
            name: getattr(rows, name)[audit | (rows.splits != "audit")]
            for name in rows.__dataclass_fields__
        }
    )
    found = feedback(base=data, version=str(version(tmp_path, rows)))
    low = {
        one.tobytes() for one, id_ in zip(rows.inputs, rows.ids, strict=True) if place_of(id_) < 0.3
    }
    assert whole(found.test) == low & {one.tobytes() for one in rows.of("audit").inputs}
    assert 30 <= len(found.test) < audit.sum()


def test_nothing_that_was_trained_on_judges_and_the_old_test_set_stays_unseen(data, tmp_path):
    rows = new_world(data)
    inputs = rows.inputs.copy()
    inputs[:5] = data.train.inputs[:5]  # audited, and trained on
    inputs[60:63] = data.test.inputs[:3]  # chosen, and in the old test set
    inputs[100:102] = data.test.inputs[3:5]  # that nobody labelled, likewise
    changed = dataclasses.replace(rows, inputs=inputs)
    found = feedback(base=data, version=str(version(tmp_path, changed)))
    assert len(found.test) == 55
    assert not whole(found.test) & whole(found.train)
    old = whole(data.test)
    assert not old & (whole(found.train) | whole(found.validation) | whole(found.unlabelled))
    assert len(found.unlabelled) == 48
    assert [text[:2] for text in found.warnings] == ["5 ", "5 "]


def test_nothing_that_an_earlier_version_trained_on_judges(data, tmp_path):
    first = new_world(data)
    version(tmp_path, first)
    later = new_world(data, seed=2)
    inputs = later.inputs.copy()
    inputs[:4] = first.inputs[60:64]  # audited now, chosen then
    inputs[4:6] = first.inputs[:2]  # audited twice
    path = version(tmp_path, dataclasses.replace(later, inputs=inputs))
    learnt = {one.tobytes() for one in first.inputs[60:]}
    whole_audit = {one.tobytes() for one in inputs[:60]}
    found = feedback(base=data, version=str(path))
    assert whole(found.test) == whole_audit - learnt
    assert len(found.test) <= 56


def test_no_input_chooses_the_epoch_of_a_model_that_has_learnt_it(data, tmp_path):
    rows = new_world(data)
    inputs = rows.inputs.copy()
    inputs[60:100] = np.repeat(inputs[60:70], 4, axis=0)  # each was asked four times
    path = version(tmp_path, dataclasses.replace(rows, inputs=inputs))
    found = feedback(base=data, version=str(path), validation_fraction=0.2)
    new = (
        whole(own) - whole(data.train) - whole(data.validation)
        for own in (found.train, found.validation)
    )
    learnt, chosen = new
    assert not learnt & chosen
    assert (len(learnt), len(chosen)) == (8, 2)


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_the_new_rows_have_their_share_of_what_is_shown(data, tmp_path, share):
    path = str(version(tmp_path, new_world(data)))
    found = feedback(base=data, version=path, share=share)
    assert len(found.weights) == len(found.train) + len(found.unlabelled)
    own = found.weights[: len(found.train)]
    sampler = ShuffledBatches(len(found.train), 32, seed=0, weights=own)
    shown = np.concatenate([positions for _, positions in sampler])
    assert len(shown) == len(found.train)
    assert np.mean(shown >= len(data.train)) == pytest.approx(share, abs=0.01)
    assert feedback(base=data, version=path).weights is None
    assert found.fingerprint != feedback(base=data, version=path).fingerprint


def test_what_a_teacher_is_trusted_with_is_how_often_its_labels_are_shown(data, tmp_path):
    rows = new_world(data)
    weights = np.where(rows.splits == "unlabelled", 0.5, 1.0)
    path = version(tmp_path, dataclasses.replace(rows, weights=weights))
    found = feedback(base=data, version=str(path))
    batches = BatchDataModule(found, batch_size=32, taught=found.taught).train_dataloader()
    shown = np.concatenate([batch["index"].numpy() for batch in batches])
    by_teacher = np.isin(shown, found.unlabelled.indices).sum()
    assert by_teacher == pytest.approx(len(shown) * 25 / (25 + len(found.train)), abs=1)
    alone = BatchDataModule(found, batch_size=32).train_dataloader()  # the control's
    assert not np.isin(next(iter(alone))["index"].numpy(), found.unlabelled.indices).any()


def test_rows_of_a_table_are_encoded_as_before(tmp_path):
    base = sklearn_table(name="wine")
    frame = load_wine(as_frame=True).frame.sample(120, random_state=0)
    kinds = base.train.records.dtype
    records = np.empty(120, kinds)
    for name in kinds.names:
        records[name] = frame[name].to_numpy() + 0.25
    labels = frame["target"].to_numpy()
    splits = np.repeat(["audit", "active"], 60)
    ids = [one for one in (f"r{i}" for i in range(1000)) if place_of(one) < 0.5][:120]
    rows = rows_like(records, labels, splits, ids=np.array(ids))
    path = version(tmp_path, rows, classes=base.classes)
    found = feedback(base=base, version=str(path))
    np.testing.assert_array_equal(found.test.inputs, base.encoder(records[:60]))
    np.testing.assert_array_equal(found.test.labels, labels[:60])
    assert found.encoder is base.encoder
    assert found.train.records.dtype == kinds


def with_facts(data, name, facts):
    """Give each row of a data set its block, or its moment, by its index."""
    splits = {
        part: dataclasses.replace(split, **{name: facts[split.indices]})
        for part, split in (("train", data.train), ("validation", data.validation))
    }
    return dataclasses.replace(data, **splits)


@pytest.mark.parametrize("names", [np.arange(60), np.array([f"customer {n}" for n in range(60)])])
def test_a_group_stays_in_one_fold_beside_rows_of_the_log(data, tmp_path, names):
    groups = np.random.default_rng(0).choice(names, data.train.indices.max() + 800)
    base = with_facts(data, "blocks", groups)
    found = feedback(base=base, version=str(version(tmp_path, new_world(data))), seed=SEED)
    folds, count = draw_folds(found.train, 5), len(base.train)
    by_group = pd.Series(folds[:count]).groupby(base.train.blocks).nunique()
    assert (by_group == 1).all()
    assert len(np.unique(folds[count:])) == 5  # each is a group of its own
    assert len(np.unique(found.train.blocks)) == len(by_group) + len(found.train) - count
    assert len(found.validation.truth.blocks) == len(found.validation)
    both = joined(base.train, base.validation)  # which keep the names of their groups
    assert both.blocks.tolist() == groups[both.indices].tolist()


def test_rows_of_the_log_come_after_all_others_in_time(data, tmp_path):
    moments = np.random.default_rng(0).permutation(data.train.indices.max() + 800)
    base = with_facts(data, "spans", np.stack([moments, moments], axis=1))
    rows = new_world(data)
    times = np.random.default_rng(1).permutation(len(rows.labels)) * 0.5
    path = version(tmp_path, dataclasses.replace(rows, times=times))
    found = feedback(base=base, version=str(path), seed=SEED)
    folds, count = draw_folds(found.train, 5), len(base.train)
    when = dict(zip((one.tobytes() for one in rows.inputs), times, strict=True))
    came = [when[one.tobytes()] for one in found.train.inputs[count:]]
    order = [*np.argsort(base.train.spans[:, 0]), *(count + np.argsort(came))]
    assert (np.diff(folds[order]) >= 0).all()
    assert np.ptp(np.bincount(folds)) <= 1
    assert found.validation.spans[len(base.validation) :].min() > base.train.spans.max()


def refused(data, path, **settings):
    with pytest.raises(UserError) as error:
        feedback(base=data, version=str(path), **settings)
    return str(error.value)


def test_what_does_not_fit_is_refused(data, tmp_path):
    fine = new_world(data)
    few = version(tmp_path / "few", new_world(data, num_audit=10))
    assert "Expected 30 labelled rows of the audit" in refused(data, few)
    others = version(tmp_path / "others", fine, classes="abcdefghij")
    assert "classes" in refused(data, others)
    wide = dataclasses.replace(fine, inputs=np.zeros((len(fine), 9, 9, 1), np.uint8))
    assert "uint8 [8, 8, 1], but found uint8 [9, 9, 1]" in refused(
        data, version(tmp_path / "wide", wide)
    )
    numbers = sklearn_table(name="diabetes")
    path = version(tmp_path / "fine", fine)
    assert "people label classes alone" in refused(numbers, path)
    for settings in ({"share": 1.0}, {"share": 0}, {"validation_fraction": 2}):
        with pytest.raises(UsageError, match="above 0 and below 1"):
            feedback(base=data, version=str(path), **settings)


def test_a_small_audit_says_where_its_rows_went(data, tmp_path):
    rows = new_world(data, num_audit=40)
    inputs, labels = rows.inputs.copy(), rows.labels.copy()
    inputs[:7] = data.train.inputs[:7]
    labels[7:12] = -1
    path = version(tmp_path, dataclasses.replace(rows, inputs=inputs, labels=labels))
    told = refused(data, path)
    assert "found 28 of 40 (5 have no label, 7 have inputs that the model was trained on)" in told


def test_images_that_stay_on_disk_are_joined_there_and_are_the_same(data, tmp_path):
    def stored(split, name):
        inputs = np.memmap(tmp_path / name, np.uint8, "w+", shape=split.inputs.shape)
        inputs[:] = split.inputs
        return dataclasses.replace(split, inputs=inputs)

    splits = {name: stored(getattr(data, name), name) for name in ("train", "validation", "test")}
    splits["train"] = splits["train"].take(np.arange(len(data.train)))  # as a source hands them out
    path = version(tmp_path, new_world(data))
    held, on_disk = (
        feedback(base=base, version=str(path), seed=SEED)
        for base in (data, dataclasses.replace(data, **splits))
    )
    assert isinstance(on_disk.train.inputs, RowsOnDisk)
    assert isinstance(on_disk.taught.inputs, RowsOnDisk)
    assert on_disk.fingerprint == held.fingerprint
    order = np.random.default_rng(0).permutation(len(held.taught))
    for key in (order, slice(len(data.train) - 3, len(data.train) + 3), -1):
        np.testing.assert_array_equal(on_disk.taught.inputs[key], held.taught.inputs[key])
    some = on_disk.taught.take(order[:50]).inputs
    np.testing.assert_array_equal(some[:], held.taught.inputs[order[:50]])


def test_what_a_teacher_had_to_label_before_does_not_judge(data, tmp_path):
    rows = new_world(data)
    more = dataclasses.replace(data.train.take(np.arange(5)), inputs=rows.inputs[:5])
    path = version(tmp_path, rows)
    found = feedback(base=dataclasses.replace(data, unlabelled=more), version=str(path))
    assert len(found.test) == 55
    assert not whole(found.test) & whole(found.taught)
