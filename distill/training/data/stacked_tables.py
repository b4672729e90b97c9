"""The table of a test set below that of the other rows."""

from collections.abc import Collection

import pyarrow as pa

from distill.errors import UserError
from distill.tables.table_files import text_columns


def below(first: pa.Table, second: pa.Table, path: str, *, codes: Collection[str] = ()) -> pa.Table:
    """Put the rows of the test set's own table below those of the other.

    Of `codes`, columns of categories, texts in one of them are texts in both.

    Raises:
        UserError: a column is missing, or of another type.
    """
    missing = [name for name in first.column_names if name not in second.column_names]
    if missing:
        raise UserError(
            f"Expected the same columns in the test set {path} but it lacks {', '.join(missing)}."
        )
    second = second.select(first.column_names)
    for at, name in enumerate(first.column_names):
        if name in codes and (name in text_columns(first)) != (name in text_columns(second)):
            first, second = (
                own.set_column(at, name, own[name].cast(pa.string())) for own in (first, second)
            )
    try:
        return pa.concat_tables([first, second], promote_options="permissive")
    except pa.ArrowException as error:
        raise UserError(
            f"Expected columns of the same types in the test set {path} but found: "
            f"{str(error).splitlines()[0]}"
        ) from error
