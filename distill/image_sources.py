"""Where encoded images lie, in an order that all agree on: the files of a folder, a Parquet column.

A prediction finds its sample again by its place here. Decodes nothing.
"""

import logging
from pathlib import Path

import pyarrow as pa

from distill.errors import UserError

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")


def image_files(folder: Path) -> list[Path]:
    """List the images of a folder, sorted, without what is hidden.

    Where two folders in it or more hold images, those are classes: images beside them are of none,
    and are left out.

    Raises:
        UserError: there is none.
    """
    by_folder = [_images_below(inner) for inner in visible_folders(folder)]
    inside = [path for files in by_folder for path in files]
    beside = [path for path in folder.iterdir() if _is_image(path) and not path.is_dir()]
    if sum(map(bool, by_folder)) >= 2:
        if beside:
            log.warning(
                "%d images beside the class folders in %s, such as %s, are of no class and are "
                "left out", len(beside), folder, min(beside).name,
            )  # fmt: skip
        return inside
    if not inside and not beside:
        raise UserError(
            f"Expected images ({', '.join(IMAGE_SUFFIXES)}) in {folder} but found none. Name a "
            "folder that holds some."
        )
    return sorted([*inside, *beside])


def visible_folders(folder: Path) -> list[Path]:
    """List the folders in a folder that are not hidden, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")


def encoded_images(column: pa.ChunkedArray, path: Path) -> list[bytes | Path]:
    """Read a Parquet column of images: bytes, a struct with a field `bytes`, or paths.

    A gap is an image of no bytes, which none can decode.

    Args:
        column: of the file.
        path: of the file; paths are relative to it.

    Raises:
        UserError: the column holds something else.
    """
    values = column.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_struct(values.type) and values.type.get_field_index("bytes") >= 0:
        values = values.field("bytes")
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return [path.parent / name if name else b"" for name in values.to_pylist()]
    if not (pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)):
        raise UserError(
            f"Expected encoded images, or their paths, in {path} but found {values.type}. Name "
            "another column."
        )
    return [value or b"" for value in values.to_pylist()]


def _images_below(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if _is_image(path) and not any(p[0] == "." for p in path.relative_to(folder).parts)
    )


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."
