import io

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from distill.decode import ImageFormat, decode_image, decode_images
from distill.errors import UserError


def encoded(pixels, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def picture(rng):
    return rng.integers(0, 256, (12, 10, 3)).astype(np.uint8)


def test_png_pixels_come_back_exactly(picture):
    np.testing.assert_array_equal(decode_image(encoded(picture), ImageFormat()), picture)


def test_gray_has_one_channel(picture):
    assert decode_image(encoded(picture), ImageFormat(channels=1)).shape == (12, 10, 1)


@pytest.mark.parametrize("size", [(5, 5), (24, 7), (12, 10), (40, 40)])
def test_any_size_is_brought_to_the_format(picture, size):
    image_format = ImageFormat(height=size[0], width=size[1])
    assert decode_image(encoded(picture), image_format).shape == (*size, 3)


def test_proportions_are_kept_and_the_centre_is_cut_out():
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 255
    found = decode_image(encoded(wide), ImageFormat(height=10, width=10))
    assert found.min() == 255


def test_a_truncated_jpeg_is_named(picture):
    whole = encoded(np.repeat(np.repeat(picture, 8, 0), 8, 1), "JPEG")
    with pytest.raises(UserError, match=r"cat\.jpg cannot be decoded.*remove it\.$"):
        decode_images([whole, whole[: len(whole) // 2]], ImageFormat(), names=["a.jpg", "cat.jpg"])


def test_the_option_that_skips_what_is_corrupt_is_named_as_its_verb_has_it():
    with pytest.raises(UserError, match=r", or set `data\.skip_corrupt=true` to go on without it"):
        decode_images([b""], ImageFormat(), names=["a"], skip_option="data.skip_corrupt")


def test_skipped_images_are_counted_and_the_others_keep_their_places(picture):
    good = encoded(picture)
    found = decode_images(
        [good, b"nonsense", good, b""], ImageFormat(), names=list("abcd"), skip_corrupt=True
    )
    assert found.skipped == ["b", "d"]
    assert found.positions.tolist() == [0, 2]
    assert len(found.images) == 2


def test_images_of_two_sizes_need_a_size(picture):
    with pytest.raises(UserError, match="image_size"):
        decode_images([encoded(picture), encoded(picture[:5])], ImageFormat(), names=["a", "b"])


def test_nothing_readable_is_an_error():
    with pytest.raises(UserError, match="at least one"):
        decode_images([b"x"], ImageFormat(), names=["a"], skip_corrupt=True)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_these_formats_are_read_by_any_name(picture, kind, tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(encoded(picture, kind))
    assert decode_image(path, ImageFormat()).shape == picture.shape


@pytest.mark.parametrize("kind", ["EPS", "TIFF", "GIF", "PPM"])
def test_other_formats_are_refused_and_start_no_program(picture, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("it was started"))
    path = tmp_path / "x.png"
    path.write_bytes(encoded(picture, kind))
    with pytest.raises(OSError, match="cannot identify"):
        decode_image(path, ImageFormat())
