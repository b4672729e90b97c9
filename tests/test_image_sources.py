"""Images are listed alike by what predicts them and by what is taught by those predictions."""

import logging

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from distill.decode import ImageFormat, decode_images
from distill.errors import UserError
from distill.image_sources import encoded_images, image_files
from distill.training.data.sources import image_folder
from distill.verbs.rows.image_files import read_sources


def write_image(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 4), value, np.uint8)).save(path, "PNG")


@pytest.fixture
def photos(tmp_path):
    """Two classes of four images each, and what file managers and people leave beside them."""
    for number in range(8):
        write_image(tmp_path / "photos" / "ab"[number % 2] / f"{number}.png", number)
    for name in (".thumbs/1.png", "a/.thumbs/1.png", "a/._1.png", "a.png"):
        write_image(tmp_path / "photos" / name, 99)
    (tmp_path / "linked").mkdir()
    write_image(tmp_path / "linked" / "9.png", 9)
    write_image(tmp_path / "linked" / "8.png", 8)
    (tmp_path / "photos" / "c").symlink_to(tmp_path / "linked")
    return tmp_path / "photos"


def test_a_prediction_has_the_place_of_the_sample_that_training_reads(photos, caplog):
    with caplog.at_level(logging.WARNING):
        sources, names = read_sources(photos, "image")
    assert "1 images beside the class folders" in caplog.text
    assert "a.png" in caplog.text
    data = image_folder(
        root=str(photos), image_size=[4, 4], channels=1, test_fraction=0.5, validation_fraction=0.5,
        seed=0,
    )  # fmt: skip
    assert data.classes == ("a", "b", "c")
    images = decode_images(sources, ImageFormat(channels=1)).images
    assert len(images) == 10
    for split in (data.train, data.validation, data.test):
        np.testing.assert_array_equal(split.inputs, images[split.indices])
        assert split.paths.to_pylist() == [names[i] for i in split.indices]


def test_of_a_folder_without_classes_all_images_are_listed(tmp_path):
    for name in ("b.png", "a.png", "c/old.png", ".hidden.png"):
        write_image(tmp_path / name)
    (tmp_path / "notes").mkdir()
    found = [path.relative_to(tmp_path).as_posix() for path in image_files(tmp_path)]
    assert found == ["a.png", "b.png", "c/old.png"]


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(UserError, match="but found none"):
        image_files(tmp_path)


def test_a_column_of_bytes_of_structs_or_of_paths_is_read_with_its_gaps(tmp_path):
    file = tmp_path / "images.parquet"
    bare, structs = [b"x", None], [{"bytes": b"x", "path": "a"}, {"bytes": None, "path": "b"}]
    for column in (bare, structs):
        assert encoded_images(pa.chunked_array([column]), file) == [b"x", b""]
    named = pa.chunked_array([["a.png", None]])
    for column in (named, named.dictionary_encode()):
        assert encoded_images(column, file) == [tmp_path / "a.png", b""]


def test_a_gap_among_the_paths_of_a_file_is_an_image_that_cannot_be_decoded(tmp_path):
    write_image(tmp_path / "a.png", 7)
    pq.write_table(pa.table({"image": ["a.png", None, "a.png"]}), tmp_path / "in.parquet")
    (tmp_path / "in.csv").write_text("id,image\n1,a.png\n2\n3,a.png\n")
    for name in ("in.parquet", "in.csv"):
        sources, names = read_sources(tmp_path / name, "image")
        decoded = decode_images(sources, ImageFormat(), names=names, skip_corrupt=True)
        assert (decoded.positions.tolist(), decoded.skipped) == ([0, 2], ["row 1"])


def test_a_column_of_numbers_is_refused(tmp_path):
    pq.write_table(pa.table({"image": [1, 2]}), tmp_path / "in.parquet")
    with pytest.raises(UserError, match=r"paths, in .*in\.parquet but found int64"):
        read_sources(tmp_path / "in.parquet", "image")
