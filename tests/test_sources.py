import dataclasses
import gzip
import hashlib
import io
import pickle
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from PIL import Image

from distill.errors import UserError
from distill.statistics.scoring import Classes
from distill.training.baselines.heuristics import LogisticRegressionOnPixels, NearestCentroid
from distill.training.baselines.scoring import score_baselines
from distill.training.data.loading import BatchDataModule
from distill.training.data.sources import (
    digits,
    image_arrays,
    image_folder,
    parquet_images,
    torchvision_images,
)
from distill.training.data.splits import RowsOnDisk, split_stratified

SPLIT = {"validation_fraction": 0.25, "seed": 0}


def png(rng, size=8):
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (size, size, 3)).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path, images, labels):
    rows = [{"bytes": image, "path": f"{i}.png"} for i, image in enumerate(images)]
    pq.write_table(pa.table({"image": rows, "label": labels}), path)


def write_folder(root: Path, rng, classes=("cat", "dog"), count=8):
    for name in classes:
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i}.png").write_bytes(png(rng, size=8 + i))


def test_digits_are_split_without_overlap_and_by_class():
    data = digits(test_fraction=0.4, validation_fraction=0.15, seed=0)
    parts = [set(split.indices) for split in (data.train, data.validation, data.test)]
    assert sum(map(len, parts)) == 1797
    assert len(set.union(*parts)) == 1797
    shares = np.bincount(data.test.labels) / len(data.test)
    assert np.ptp(shares) < 0.02
    assert data.train.inputs.max() == 255


def test_the_seed_moves_the_validation_set_and_never_the_test_set():
    first, second = (digits(test_fraction=0.4, validation_fraction=0.2, seed=s) for s in (0, 1))
    assert np.array_equal(first.test.indices, second.test.indices)
    assert not np.array_equal(first.validation.indices, second.validation.indices)
    assert first.fingerprint != second.fingerprint


def test_channel_statistics_are_those_of_numpy(data):
    mean, std = data.channel_statistics
    pixels = data.train.inputs / 255
    assert mean == pytest.approx(pixels.mean(axis=(0, 1, 2)))
    assert std == pytest.approx(pixels.std(axis=(0, 1, 2)))


def test_samples_keep_the_paths_that_their_source_has_and_the_fingerprint_its_value(tmp_path, rng):
    images = [png(rng) for _ in range(16)]
    for name in ("train", "test"):
        write_parquet(tmp_path / f"{name}.parquet", images, [i % 2 for i in range(16)])
    data = parquet_images(root=str(tmp_path), **SPLIT)
    assert data.test.paths.to_pylist() == [f"{i}.png" for i in range(16)]
    for split in (data.train, data.validation):
        assert split.paths.to_pylist() == [f"{i}.png" for i in split.indices]
    bare = dataclasses.replace(data, test=dataclasses.replace(data.test, paths=None))
    assert bare.fingerprint == data.fingerprint
    write_folder(tmp_path / "folder", rng)
    options = {"image_size": [8, 8], "test_fraction": 0.25, **SPLIT}
    folder = image_folder(root=str(tmp_path / "folder"), **options)
    for name, label in zip(folder.test.paths.to_pylist(), folder.test.labels, strict=True):
        assert (tmp_path / "folder" / name).is_file()
        assert name.startswith(folder.classes[label])


def test_paths_that_are_not_all_there_are_none(tmp_path, rng):
    rows = [{"bytes": png(rng), "path": "a.png" if i else None} for i in range(16)]
    for name in ("train", "test"):
        pq.write_table(pa.table({"image": rows, "label": [0, 1] * 8}), tmp_path / f"{name}.parquet")
    assert parquet_images(root=str(tmp_path), **SPLIT).test.paths is None


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 0.0001])
def test_an_impossible_split_is_refused(fraction):
    with pytest.raises(UserError, match="Expected"):
        split_stratified(np.repeat([0, 1], 10), fraction, 0)


def test_parquet_images_come_back_with_their_labels(tmp_path, rng):
    images = [png(rng) for _ in range(16)]
    labels = [i % 2 for i in range(16)]
    for name in ("train", "test"):
        write_parquet(tmp_path / f"{name}.parquet", images, labels)
    data = parquet_images(root=str(tmp_path), **SPLIT)
    assert (len(data.train), len(data.validation), len(data.test)) == (12, 4, 16)
    assert data.classes == ("0", "1")
    position = int(np.flatnonzero(data.test.indices == 3)[0])
    np.testing.assert_array_equal(
        data.test.inputs[position], np.asarray(Image.open(io.BytesIO(images[3])))
    )
    assert data.test.labels[position] == 1


def test_classes_that_a_command_line_reads_as_numbers_are_names(tmp_path, rng):
    for name in ("train", "test"):
        write_parquet(tmp_path / f"{name}.parquet", [png(rng) for _ in range(16)], [0, 1] * 8)
    assert parquet_images(root=str(tmp_path), classes=[7, 9], **SPLIT).classes == ("7", "9")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_images_that_do_not_fit_in_memory_are_read_from_disk_and_are_the_same(
    tmp_path, rng, num_workers
):
    images = [png(rng) for _ in range(60)]
    for name in ("train", "test"):
        write_parquet(tmp_path / f"{name}.parquet", images, [i % 3 for i in range(60)])
    options = {"root": str(tmp_path), "validation_fraction": 0.2, "seed": 0}
    held = parquet_images(**options)
    mapped = parquet_images(**options, scratch=str(tmp_path / "scratch"))
    assert list((tmp_path / "scratch").iterdir()) == []  # nothing is left behind
    assert isinstance(mapped.train.inputs, RowsOnDisk)
    assert mapped.fingerprint == held.fingerprint
    assert mapped.channel_statistics == held.channel_statistics
    asked = {"centroid": NearestCentroid(), "linear": LogisticRegressionOnPixels()}
    scoring = Classes(3)
    first, second = (score_baselines(d, asked, scoring, confidence=0.95)[1] for d in (held, mapped))
    assert all(np.array_equal(first[name], second[name]) for name in asked)
    loaders = [
        BatchDataModule(d, batch_size=16, num_workers=n).train_dataloader()
        for d, n in ((held, 0), (mapped, num_workers))
    ]
    for one, other in zip(*loaders, strict=True):
        assert torch.equal(one["input"], other["input"])
        assert torch.equal(one["label"], other["label"])


def test_labels_outside_the_classes_are_refused(tmp_path, rng):
    for name in ("train", "test"):
        write_parquet(tmp_path / f"{name}.parquet", [png(rng)] * 4, [0, 1, 2, 1])
    with pytest.raises(UserError, match="row 2 has 2"):
        parquet_images(root=str(tmp_path), classes=["a", "b"], **SPLIT)


def test_a_missing_column_and_a_foreign_file_are_named(tmp_path, rng):
    write_parquet(tmp_path / "train.parquet", [png(rng)] * 4, [0, 1, 0, 1])
    with pytest.raises(UserError, match=r"column `target`.*found image, label"):
        parquet_images(root=str(tmp_path), label_column="target", **SPLIT)
    with pytest.raises(UserError, match=r"test\.parquet but there is none"):
        parquet_images(root=str(tmp_path), **SPLIT)
    (tmp_path / "test.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="Expected a Parquet file"):
        parquet_images(root=str(tmp_path), **SPLIT)


def test_class_folders_at_any_size(tmp_path, rng):
    write_folder(tmp_path, rng)
    data = image_folder(root=str(tmp_path), image_size=[6, 5], test_fraction=0.25, **SPLIT)
    assert data.classes == ("cat", "dog")
    assert data.image_shape == (6, 5, 3)
    assert len(data.train) + len(data.validation) + len(data.test) == 16


def test_a_folder_with_train_and_test_keeps_them_apart(tmp_path, rng):
    write_folder(tmp_path / "train", rng)
    write_folder(tmp_path / "test", rng, count=3)
    data = image_folder(root=str(tmp_path), image_size=[8, 8], test_fraction=0.5, **SPLIT)
    assert len(data.test) == 6


def test_train_and_test_with_other_classes_are_refused(tmp_path, rng):
    write_folder(tmp_path / "train", rng)
    write_folder(tmp_path / "test", rng, classes=("cat", "cow"))
    with pytest.raises(UserError, match=r"cat, dog.*cat, cow"):
        image_folder(root=str(tmp_path), image_size=[8, 8], test_fraction=0.5, **SPLIT)


def test_a_truncated_jpeg_is_named_or_skipped_and_counted(tmp_path, rng):
    write_folder(tmp_path, rng)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (64, 64, 3)).astype(np.uint8)).save(buffer, "JPEG")
    (tmp_path / "cat" / "broken.jpg").write_bytes(buffer.getvalue()[:900])
    options = {"root": str(tmp_path), "image_size": [8, 8], "test_fraction": 0.25, **SPLIT}
    with pytest.raises(UserError, match=r"broken\.jpg"):
        image_folder(**options)
    data = image_folder(**options, skip_corrupt=True)
    assert data.num_skipped == 1


@pytest.mark.parametrize("contents", ["missing", "empty", "no classes", "empty class"])
def test_a_root_without_images_is_refused(tmp_path, contents):
    root = tmp_path / "root"
    if contents != "missing":
        root.mkdir()
    if contents == "no classes":
        (root / "file.txt").touch()
    if contents == "empty class":
        (root / "a").mkdir()
        (root / "b").mkdir()
    with pytest.raises(UserError, match=str(root)):
        image_folder(root=str(root), image_size=[8, 8], test_fraction=0.25, **SPLIT)


def test_missing_torchvision_files_say_where_they_belong(tmp_path):
    for kind, file in (("CIFAR10", "cifar-10-python.tar.gz"), ("FashionMNIST", "train-images")):
        dataset = getattr(torchvision.datasets, kind)
        with pytest.raises(UserError, match=rf"{tmp_path}.*{file}.*data\.download=true"):
            torchvision_images(dataset=dataset, root=str(tmp_path), **SPLIT)


def test_fashion_mnist_through_torchvisions_own_loader(tmp_path, rng):
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    images = rng.integers(0, 256, (20, 28, 28)).astype(np.uint8)
    labels = (np.arange(20) % 10).astype(np.uint8)
    for part in ("train", "t10k"):
        pixels = struct.pack(">iiii", 0x803, 20, 28, 28) + images.tobytes()
        numbers = struct.pack(">ii", 0x801, 20) + labels.tobytes()
        for name, content in (
            (f"{part}-images-idx3-ubyte", pixels),
            (f"{part}-labels-idx1-ubyte", numbers),
        ):
            (raw / name).write_bytes(content)
            (raw / f"{name}.gz").write_bytes(gzip.compress(content))
    data = torchvision_images(
        dataset=torchvision.datasets.FashionMNIST,
        root=str(tmp_path),
        validation_fraction=0.5,
        seed=0,
    )
    assert data.image_shape == (28, 28, 1)
    assert data.classes[9] == "Ankle boot"
    np.testing.assert_array_equal(data.test.inputs[..., 0], images)


def test_cifar10_through_torchvisions_own_loader(tmp_path, rng, monkeypatch):
    # The published layout with 20 images a batch; the loader's checksums are set to these files.
    dataset = torchvision.datasets.CIFAR10
    folder = tmp_path / dataset.base_folder
    folder.mkdir()
    sums = {}
    names = [name for name, _ in [*dataset.train_list, *dataset.test_list]]
    for name in names:
        content = {
            "data": rng.integers(0, 256, (20, 3072)).astype(np.uint8),
            "labels": [i % 10 for i in range(20)],
        }
        (folder / name).write_bytes(pickle.dumps(content))
    classes = list("abcdefghij")
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": classes}))
    for path in folder.iterdir():
        sums[path.name] = hashlib.md5(path.read_bytes()).hexdigest()
    monkeypatch.setattr(dataset, "train_list", [[n, sums[n]] for n, _ in dataset.train_list])
    monkeypatch.setattr(dataset, "test_list", [[n, sums[n]] for n, _ in dataset.test_list])
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": sums["batches.meta"]})
    data = torchvision_images(dataset=dataset, root=str(tmp_path), validation_fraction=0.1, seed=0)
    assert data.classes == tuple(classes)
    assert (len(data.train), len(data.validation), len(data.test)) == (90, 10, 20)
    options = {"dataset": dataset, "root": str(tmp_path), **SPLIT}
    assert torchvision_images(**options, classes=list("klmnopqrst")).classes == tuple("klmnopqrst")
    with pytest.raises(UserError, match=r"Expected 10 names in `data\.classes`.*but got 3"):
        torchvision_images(**options, classes=list("abc"))
    assert data.image_shape == (32, 32, 3)


def test_arrays_of_ones_own_are_taken_and_what_does_not_fit_is_said(rng):
    images, labels = rng.integers(0, 256, (40, 4, 5, 1), dtype=np.uint8), np.arange(40) % 2

    def call(train, test):
        return image_arrays("mine", ["a", "b"], train, test, seed=0, validation_fraction=0.25)

    found = call((images, labels), (images[:8], labels[:8]))
    assert [len(found.train), len(found.validation), len(found.test)] == [30, 10, 8]
    assert np.array_equal(found.train.inputs, images[found.train.indices])
    assert found.task.outputs == ("a", "b")
    for train, test, message in (
        ((images / 255, labels), (images, labels), r"train images of mine as uint8.*float64"),
        ((images, labels[:9]), (images, labels), r"with N labels.*with 9"),
        ((images, labels + 1), (images, labels), r"labels from 0 to 1.*row 1 has 2"),
        ((images, labels), (images[:, :3], labels), r"one shape.*\[4, 5, 1\] and \[3, 5, 1\]"),
    ):
        with pytest.raises(UserError, match=message):
            call(train, test)
