import pickle

import numpy as np
import pytest
import torch

from distill.errors import UserError
from distill.training.data.loading import (
    BatchDataModule,
    BatchDataset,
    OrderedBatches,
    ShuffledBatches,
)
from distill.training.data.splits import RowsOnDisk
from distill.training.views import ShiftFlip


class HalfAndHalf:
    """A mixing that is easy to follow: the partner is the next sample, in equal shares."""

    def partners(self, indices, view, num_samples):
        return (indices + 1) % num_samples

    def mix(self, images, partner_images, indices, view):
        mixed = (images.astype(int) + partner_images) // 2
        return mixed.astype(np.uint8), np.full(len(images), 0.5, np.float32)


def test_every_sample_is_shown_once_an_epoch_in_another_order():
    sampler = ShuffledBatches(103, 10, seed=0)
    orders = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert {view for view, _ in batches} == {epoch}
        orders.append(np.concatenate([positions for _, positions in batches]))
        assert sorted(orders[-1]) == list(range(103))
        assert min(len(positions) for _, positions in batches) >= 10
    assert not np.array_equal(*orders)


def test_stored_views_come_round_again():
    sampler = ShuffledBatches(20, 10, seed=0, num_views=3)
    shown = []
    for epoch in range(7):
        sampler.set_epoch(epoch)
        shown.append(next(iter(sampler))[0])
    assert shown == [0, 1, 2, 0, 1, 2, 0]


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_the_ranks_share_every_batch_of_one_process(num_ranks):
    whole = list(ShuffledBatches(103, 10, seed=0))
    shares = [
        list(ShuffledBatches(103, 10, seed=0, share=(rank, num_ranks))) for rank in range(num_ranks)
    ]
    assert len({len(share) for share in shares}) == 1  # as many steps on every rank
    for step, (_, positions) in enumerate(whole):
        together = np.concatenate([share[step][1] for share in shares])
        assert sorted(together) == sorted(positions)


@pytest.mark.parametrize("num_samples", [103, 7])
def test_the_ranks_share_every_batch_of_the_validation_set(num_samples):
    shares = [list(OrderedBatches(num_samples, 10, share=(rank, 2))) for rank in (0, 1)]
    assert len(shares[0]) == len(shares[1])  # else one would wait for the other for ever
    assert min(len(positions) for share in shares for _, positions in share) > 0
    together = np.concatenate([positions for share in shares for _, positions in share])
    assert sorted(together) == list(range(num_samples))


def test_images_that_stay_on_disk_refuse_to_travel():
    rows = RowsOnDisk(np.zeros((4, 2, 2, 1), np.uint8), np.arange(2))
    with pytest.raises(UserError, match="torchrun"):
        pickle.dumps(rows)


def test_a_batch_holds_view_index_label_and_pixels_of_its_samples(data):
    views = ShiftFlip(padding=1, flip=False, seed=5)
    positions = np.array([5, 900, 17])
    batch = BatchDataset(data.train, views)[3, positions]
    assert batch["view"] == 3
    indices = data.train.indices[positions]
    assert np.array_equal(batch["index"].numpy(), indices)
    assert np.array_equal(batch["label"].numpy(), data.train.labels[positions])
    expected = views(data.train.inputs[positions], indices, 3)
    assert np.array_equal(batch["input"].numpy(), expected)


def test_mixed_images_carry_mixed_labels_seen_by_whoever_gets_the_batch(data):
    dataset = BatchDataset(data.train, None, HalfAndHalf(), num_classes=10)
    positions = np.array([0, 7])
    batch = dataset[0, positions]
    partners = (data.train.indices[positions] + 1) % len(data.train)
    images = data.train.inputs
    expected = (images[positions].astype(int) + images[partners]) // 2
    assert np.array_equal(batch["input"].numpy(), expected)
    shares = torch.zeros(2, 10)
    for row, (own, other) in enumerate(zip(positions, partners, strict=True)):
        shares[row, data.train.labels[own]] += 0.5
        shares[row, data.train.labels[other]] += 0.5
    assert torch.equal(batch["label"], shares)


def test_validation_images_are_never_augmented_nor_mixed(data):
    module = BatchDataModule(
        data, batch_size=50, views=ShiftFlip(padding=2, flip=True), mixing=HalfAndHalf()
    )
    images = torch.cat([batch["input"] for batch in module.val_dataloader()])
    assert np.array_equal(images.numpy(), data.validation.inputs)
