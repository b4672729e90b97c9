"""Where images come from: each function reads one kind of source into an `ImageData`.

Knows nothing of training. Nothing is downloaded unless `download=True` says so.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from distill.decode import ImageFormat, Progress, decode_images
from distill.errors import UserError
from distill.image_sources import IMAGE_SUFFIXES, encoded_images, image_files, visible_folders
from distill.tasks import classification
from distill.training.data.images import ImageData, check_labels
from distill.training.data.splits import Split, split_stratified

Labels = NDArray[np.int64]


def digits(*, test_fraction: float, validation_fraction: float, seed: int) -> ImageData:
    """Read the 1,797 handwritten digits that ship with scikit-learn: 8x8 gray, ten classes.

    Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998. They come as one
    set, so a test set is drawn by class with a seed of its own that `seed` does not move.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = np.round(np.asarray(pixels).reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    whole = _numbered(images, np.asarray(labels, np.int64))
    rest, test = split_stratified(whole.labels, test_fraction, 0)
    return _with_validation(
        "digits",
        tuple(str(digit) for digit in range(10)),
        [whole.take(rest), whole.take(test)],
        validation_fraction,
        seed,
        test_is_drawn=True,
    )


def image_arrays(
    name: str,
    classes: Sequence[str],
    train: tuple[NDArray[np.uint8], Labels],
    test: tuple[NDArray[np.uint8], Labels],
    *,
    seed: int,
    validation_fraction: float = 0.15,
) -> ImageData:
    """Take images that are in memory: for a source of one's own.

    Args:
        name: of the data.
        classes: names, in the order of the labels.
        train: images [N, H, W, C], and labels [N] from 0; validation is taken from them, by class.
        test: likewise, of the same height, width and channels.
        seed: of the validation set.
        validation_fraction: of the training images.

    Raises:
        UserError: shapes or types do not fit, or a label is no class.
    """
    names, splits = tuple(map(str, classes)), []
    for part, (images, labels) in (("train", train), ("test", test)):
        images, labels = np.asarray(images), np.asarray(labels)
        if images.dtype != np.uint8 or images.ndim != 4 or len(labels) != len(images):
            raise UserError(
                f"Expected {part} images of {name} as uint8 [N, H, W, C] with N labels but got "
                f"{images.dtype} {list(images.shape)} with {len(labels)}."
            )
        check_labels(labels.astype(np.int64), names, f"the {part} labels of {name}")
        splits.append(_numbered(images, labels.astype(np.int64)))
    if splits[0].inputs.shape[1:] != splits[1].inputs.shape[1:]:
        raise UserError(
            f"Expected train and test images of {name} to have one shape but got "
            f"{list(splits[0].inputs.shape[1:])} and {list(splits[1].inputs.shape[1:])}."
        )
    return _with_validation(name, names, splits, validation_fraction, seed)


def parquet_images(
    *,
    root: str,
    validation_fraction: float,
    seed: int,
    train_file: str = "train.parquet",
    test_file: str = "test.parquet",
    image_column: str = "image",
    label_column: str = "label",
    classes: Sequence[str] | None = None,
    image_size: Sequence[int] | None = None,
    channels: int = 3,
    skip_corrupt: bool = False,
    scratch: str | None = None,
    progress: Progress | None = None,
) -> ImageData:
    """Read encoded images and integer labels from Parquet, as the Hugging Face hub lays them out.

    See `encoded_images` for what the image column holds.

    Raises:
        UserError: a file or column is missing, an image is corrupt, or a label is no class.
    """
    folder = _existing_root(root, f"with {train_file} and {test_file}")
    names = None if classes is None else tuple(map(str, classes))  # a command line reads numbers
    image_format = _format(image_size, channels)
    splits, skipped = [], 0
    for file in (train_file, test_file):
        path = folder / file
        table = _read_parquet(path, (image_column, label_column))
        labels = table[label_column].to_numpy().astype(np.int64)
        names = names or tuple(str(number) for number in range(int(labels.max()) + 1))
        check_labels(labels, names, str(path))
        decoded = decode_images(
            encoded_images(table[image_column], path),
            image_format,
            names=_RowNames(path),
            skip_corrupt=skip_corrupt,
            skip_option="data.skip_corrupt",
            progress=progress,
            scratch=_scratch(scratch),
        )
        skipped += len(decoded.skipped)
        splits.append(
            Split(
                inputs=decoded.images,
                labels=labels[decoded.positions],
                indices=decoded.positions,
                paths=_image_paths(table[image_column], decoded.positions),
            )
        )
    assert names is not None
    name = folder.name
    return _with_validation(name, names, splits, validation_fraction, seed, skipped)


def image_folder(
    *,
    root: str,
    image_size: Sequence[int],
    test_fraction: float,
    validation_fraction: float,
    seed: int,
    channels: int = 3,
    skip_corrupt: bool = False,
    scratch: str | None = None,
    progress: Progress | None = None,
) -> ImageData:
    """Read class folders of images at any size.

    Either `root/train/<class>/*` and `root/test/<class>/*`, or `root/<class>/*`, from which
    `test_fraction` of every class is split off.

    Raises:
        UserError: the folder is missing or empty, train and test have other classes, or an image
            is corrupt.
    """
    folder = _existing_root(root, "with one folder of images per class")
    parts = [folder / "train", folder / "test"]
    parts = parts if all(part.is_dir() for part in parts) else [folder]
    classes = _class_folders(parts[0])
    image_format = _format(image_size, channels)
    splits, skipped = [], 0
    for part in parts:
        if _class_folders(part) != classes:
            raise UserError(
                f"Expected the class folders of {parts[0]} ({', '.join(classes)}) in {part} too "
                f"but found {', '.join(_class_folders(part))}."
            )
        paths = image_files(part)
        labels = _labels_of(paths, part, classes)
        decoded = decode_images(
            paths,
            image_format,
            skip_corrupt=skip_corrupt,
            skip_option="data.skip_corrupt",
            progress=progress,
            scratch=_scratch(scratch),
        )
        skipped += len(decoded.skipped)
        splits.append(
            Split(
                inputs=decoded.images,
                labels=labels[decoded.positions],
                indices=decoded.positions,
                paths=pa.array(
                    [paths[i].relative_to(folder).as_posix() for i in decoded.positions]
                ),
            )
        )
    test_is_drawn = len(splits) == 1
    if test_is_drawn:
        rest, test = split_stratified(splits[0].labels, test_fraction, 0)
        splits = [splits[0].take(rest), splits[0].take(test)]
    return _with_validation(
        folder.name,
        classes,
        splits,
        validation_fraction,
        seed,
        skipped,
        test_is_drawn=test_is_drawn,
    )


def torchvision_images(
    *,
    dataset: Callable[..., Any],
    root: str,
    validation_fraction: float,
    seed: int,
    classes: Sequence[str] | None = None,
    download: bool = False,
) -> ImageData:
    """Read CIFAR-10, CIFAR-100 or Fashion-MNIST through torchvision's own loader.

    Args:
        dataset: the loader's class, called with (root, train=, download=).
        root: the folder that holds the published files.
        validation_fraction: of the training set, by class.
        seed: of that split.
        classes: names to call them by, in the order of the labels; None takes the loader's.
        download: whether torchvision may fetch the files.

    Raises:
        UserError: the files are not there or are damaged, and says which and where they belong; or
            there are more or fewer names than classes.
    """
    splits = []
    names: tuple[str, ...] = ()
    for train in (True, False):
        try:
            loaded = dataset(root, train=train, download=download)
        except (RuntimeError, OSError) as error:
            raise UserError(
                f"Expected the files of {dataset.__name__} under {root} but: "
                f"{str(error).rstrip('.')}. Put {_published_files(dataset)} "
                "there, or set `data.download=true`."
            ) from error
        names = tuple(loaded.classes)
        images = np.asarray(loaded.data)
        images = images if images.ndim == 4 else images[..., None]
        splits.append(_numbered(images, np.asarray(loaded.targets, np.int64)))
    if classes is not None:
        if len(classes) != len(names):
            raise UserError(
                f"Expected {len(names)} names in `data.classes`, of the classes of "
                f"{dataset.__name__}, but got {len(classes)}. Set `data.classes=null` for its own."
            )
        names = tuple(map(str, classes))
    name = dataset.__name__.lower()
    return _with_validation(name, names, splits, validation_fraction, seed)


def _published_files(dataset: Any) -> str:
    if hasattr(dataset, "filename"):
        return f"{dataset.filename} (or its unpacked folder {dataset.base_folder})"
    names = ", ".join(name for name, _ in dataset.resources)
    return f"{names} in {dataset.__name__}/raw"


def _with_validation(
    name: str,
    classes: tuple[str, ...],
    splits: Sequence[Split],
    validation_fraction: float,
    seed: int,
    num_skipped: int = 0,
    *,
    test_is_drawn: bool = False,
) -> ImageData:
    train, test = splits
    rest, validation = split_stratified(train.labels, validation_fraction, seed)
    return ImageData(
        name=name,
        task=classification(classes),
        train=train.take(rest),
        validation=train.take(validation),
        test=test,
        test_is_drawn=test_is_drawn,
        num_skipped=num_skipped,
    )


def _numbered(images: NDArray[np.uint8], labels: Labels) -> Split:
    return Split(inputs=images, labels=labels, indices=np.arange(len(labels)))


def _scratch(folder: str | None) -> Path | None:
    return None if folder is None else Path(folder).expanduser()


def _existing_root(root: str, contents: str) -> Path:
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(f"Expected a folder {contents} at `data.root={root}` but there is none.")
    if not any(folder.iterdir()):
        raise UserError(f"Expected a folder {contents} at `data.root={root}` but it is empty.")
    return folder


def _format(image_size: Sequence[int] | None, channels: int) -> ImageFormat:
    if image_size is None:
        return ImageFormat(channels=channels)
    if len(image_size) != 2:
        raise UserError(f"Expected `image_size=[height,width]` but got {list(image_size)}.")
    return ImageFormat(height=image_size[0], width=image_size[1], channels=channels)


def _class_folders(folder: Path) -> tuple[str, ...]:
    names = [path.name for path in visible_folders(folder)]
    if len(names) < 2:
        raise UserError(
            f"Expected a folder of images for each of at least two classes in {folder} but found "
            f"{', '.join(names) or 'no folder'}."
        )
    return tuple(names)


def _labels_of(paths: Sequence[Path], folder: Path, classes: Sequence[str]) -> Labels:
    """Number the class folder that each image lies in, [N]."""
    found = [path.relative_to(folder).parts[0] for path in paths]
    empty = sorted({*classes} - {*found})
    if empty:
        raise UserError(
            f"Expected images ({', '.join(IMAGE_SUFFIXES)}) in {folder / empty[0]} but found none. "
            "Remove the folder, or put that class's images in."
        )
    number = {name: label for label, name in enumerate(classes)}
    return np.array([number[name] for name in found], np.int64)


class _RowNames(Sequence[str]):
    """Names of a file's rows, made only when asked."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return 2**63 - 1

    def __getitem__(self, row: Any) -> Any:
        return f"the image in row {row} of {self.path}"


def _read_parquet(path: Path, columns: Sequence[str]) -> pa.Table:
    if not path.is_file():
        raise UserError(
            f"Expected a Parquet file at {path} but there is none. "
            "Name others with `data.train_file=` and `data.test_file=`."
        )
    try:
        found = pq.read_schema(path).names
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"Expected a Parquet file at {path} but {error}") from error
    missing = [column for column in columns if column not in found]
    if missing:
        raise UserError(
            f"Expected a column `{missing[0]}` in {path} but found {', '.join(found)}. "
            "Name it with `data.image_column=` or `data.label_column=`."
        )
    return pq.read_table(path, columns=list(columns))


def _image_paths(column: pa.ChunkedArray, positions: NDArray[np.int64]) -> pa.Array | None:
    """Read the field `path` of an image column, if it names all images; copies no image."""
    if not pa.types.is_struct(column.type) or column.type.get_field_index("path") < 0:
        return None
    paths = pc.call_function("struct_field", [column], pc.StructFieldOptions("path"))
    return None if paths.null_count else paths.combine_chunks().take(pa.array(positions))
