"""Claims about dates of a table, however they are written, held against `datetime`."""

import logging
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distill.contract import TableInput
from distill.errors import UsageError, UserError
from distill.tables.columns import NO_DATE, Column, Kind
from distill.tables.table_files import raw_records, raw_values
from distill.training.data.series import series
from distill.training.data.tables import table
from distill.verbs.rows.table_rows import read_rows

DAYS = [datetime(2024, 1, 5, tzinfo=UTC) + timedelta(days=3 * i) for i in range(100)]
MOMENTS = [int(day.timestamp() * 1000) for day in DAYS]
DAY = Column(name="day", kind=Kind.DATE)


def csv(path, days):
    rows = [f"{day},{i % 7},{'yes' if i % 3 else 'no'}" for i, day in enumerate(days)]
    path.write_text("\n".join(["day,x,label", *rows]) + "\n")
    return str(path)


def in_use(date_format):
    return cast("Any", SimpleNamespace(delimiter=None, encoding="utf-8", date_format=date_format))


@pytest.mark.parametrize(
    "written", ["%Y%m%d", "%d%m%Y", "%y%m%d", "%d%m%y", "%Y%m%d%H%M", "%d.%m.%Y", "%Y-%d-%m"]
)
@pytest.mark.parametrize("how", ["text", "without its zeros", "with a fraction"])
def test_a_format_tells_dates_whatever_they_look_like(tmp_path, written, how):
    days = [day.strftime(written) for day in DAYS]
    if how != "text" and days[0].isdecimal():
        days = [day.lstrip("0") + ".0" * (how == "with a fraction") for day in days]
    path = csv(tmp_path / "a.csv", days)
    choice = {"label": "label", "kinds": {"day": "date"}, "date_format": written}
    data = table(path=path, **choice)
    for part in (data.train, data.validation, data.test):
        assert part.records["day"].tolist() == [MOMENTS[i] for i in part.indices]
    takes = TableInput(columns=data.encoder.takes, categories={})
    _, found = read_rows(in_use(written), tmp_path / "a.csv", takes)
    assert found["day"].tolist() == MOMENTS
    other = table(path=path, **choice, test_path=path, unlabelled=path)
    assert other.test.records["day"].tolist() == other.unlabelled.records["day"].tolist() == MOMENTS


@pytest.mark.parametrize("written", ["%Y%m%d", "%d%m%Y"])
def test_rows_are_split_by_time_and_not_by_the_first_digits(tmp_path, written):
    path = csv(tmp_path / "a.csv", [day.strftime(written) for day in DAYS])
    data = table(path=path, label="label", time="day", columns=["x", "day"], date_format=written)
    assert data.test.indices.tolist() == list(range(80, 100))
    assert data.encoder.takes[1].kind is Kind.DATE
    with pytest.raises(
        UserError, match=rf"`day` .*written as digits.*`data.date_format={written}`"
    ):
        table(path=path, label="label", time="day")


@pytest.mark.parametrize("kind", [pa.int64(), pa.float64(), pa.string()])
def test_digits_in_parquet_are_read_by_a_format_with_their_gaps(kind):
    given = pa.chunked_array([pa.array([5012024, None, 31122024]).cast(kind)])
    if kind == pa.float64():
        given = pa.chunked_array([pa.array([5012024.0, np.nan, 31122024.0], from_pandas=False)])
    found = raw_values(given, DAY, date_format="%d%m%Y")
    last = datetime(2024, 12, 31, tzinfo=UTC).timestamp() * 1000
    assert found.tolist() == [MOMENTS[0], NO_DATE, last]


@pytest.mark.parametrize(
    "written", ["%Y%m%d", "%d%m%Y", "%m%d%Y", "%Y%m", "%y%m%d", "%Y%m%d%H", "%Y%m%d%H%M%S"]
)
def test_dates_written_as_digits_are_refused_without_a_format(tmp_path, written):
    numbers = pa.table({"day": [int(day.strftime(written)) for day in DAYS]})
    with pytest.raises(UserError, match=f"milliseconds since 1970.*`data.date_format={written}`"):
        raw_records(numbers, [DAY])
    pq.write_table(numbers, tmp_path / "a.parquet")
    takes = TableInput(columns=(DAY,), categories={})
    with pytest.raises(UserError, match=f"`date_format={written}`"):
        read_rows(in_use(None), tmp_path / "a.parquet", takes)


def test_milliseconds_stay_as_they_are_and_numbers_of_another_unit_are_warned_of(caplog):
    found = raw_values(pa.chunked_array([[*MOMENTS, None, -5 * 10**11]]), DAY)
    assert found.tolist() == [*MOMENTS, NO_DATE, -5 * 10**11]
    assert not caplog.records
    caplog.set_level(logging.WARNING)
    for numbers in ([2022, 2023, 2024], [own // 1000 for own in MOMENTS], [0, 1, 2]):
        caplog.clear()
        assert raw_values(pa.chunked_array([numbers]), DAY).tolist() == numbers
        assert "`day`" in caplog.text
        assert "`date_format`" in caplog.text


def test_iso_dates_are_read_beside_a_format_and_a_bad_one_is_named_with_its_row():
    iso = pa.chunked_array([["2024-01-05", None]])
    assert raw_values(iso, DAY, date_format="%d.%m.%Y").tolist() == [MOMENTS[0], NO_DATE]
    for bad in ("31.13.2024", "2024-01-05", "soon"):
        given = pa.chunked_array([["05.01.2024", None, bad]])
        with pytest.raises(UserError, match=f"written as %d.%m.%Y in `day` but row 2 has '{bad}'"):
            raw_values(given, DAY, date_format="%d.%m.%Y")


@pytest.mark.parametrize(
    ("written", "bad"),
    [
        ("%d.%m.%Y", "31.02.2024"), ("%d.%m.%Y", "01.02.24"), ("%d.%m.%Y", "01.02.0024"),
        ("%Y%m%d", "20240230"), ("%Y%m%d", "240331"), ("%H:%M %d.%m.%Y", "24:00 01.02.2024"),
        ("%s", "9" * 15), ("%s", "9" * 30),
    ],
)  # fmt: skip
def test_a_day_that_is_not_in_the_calendar_is_no_other_day(written, bad):
    given = pa.chunked_array([[DAYS[0].strftime(written), bad]])
    with pytest.raises(UserError, match=f"`day` but row 1 has '.*{bad}'"):
        raw_values(given, DAY, date_format=written)


def test_milliseconds_with_a_gap_are_read_as_pandas_writes_them():
    numbers = pa.chunked_array([pa.array([float(MOMENTS[0]), np.nan, MOMENTS[1] + 0.4])])
    assert raw_values(numbers, DAY).tolist() == [MOMENTS[0], NO_DATE, MOMENTS[1]]
    numbers = pa.chunked_array([pa.array([20240105.0, np.nan, 20240105.5])])
    with pytest.raises(UserError, match=r"`day` but row 2 has 20240105\.5"):
        raw_values(numbers, DAY, date_format="%Y%m%d")


def test_a_format_may_be_seconds_or_have_a_zone_and_one_that_is_none_is_refused():
    seconds = pa.chunked_array([[own // 1000 for own in MOMENTS]])
    assert raw_values(seconds, DAY, date_format="%s").tolist() == MOMENTS
    zoned = pa.chunked_array([["2024-01-05 02:00 +0200"]])
    assert raw_values(zoned, DAY, date_format="%Y-%m-%d %H:%M %z").tolist() == [MOMENTS[0]]
    with pytest.raises(UserError, match=r"but got '%d/%q': 'q' is a bad directive"):
        raw_values(pa.chunked_array([["05/01"]]), DAY, date_format="%d/%q")


def test_a_format_of_dates_that_no_column_has_is_refused(tmp_path):
    days = [day.strftime("%d.%m.%Y") for day in DAYS]
    path = csv(tmp_path / "a.csv", days)
    with pytest.raises(UsageError, match=r"`data.time=`.*`\+data.kinds.since=date`"):
        table(path=path, label="label", date_format="%d.%m.%Y")
    kinds = {"day": "date"}
    data = table(path=path, label="label", date_format="%d.%m.%Y", kinds=kinds)
    assert data.encoder.takes[0].kind is Kind.DATE


@pytest.mark.parametrize("written", ["%Y%m%d", "%d%m%Y"])
def test_the_moments_of_series_are_read_by_a_format_of_digits(tmp_path, written):
    rows = [f"{day.strftime(written)},{i}" for i, day in enumerate(DAYS)]
    (tmp_path / "a.csv").write_text("\n".join(["day,sold", *rows]))
    choice = {"time": "day", "value": "sold", "window": 5, "horizon": 2}
    data = series(path=str(tmp_path / "a.csv"), **choice, date_format=written)
    assert data.pool.panel.times.tolist() == MOMENTS
    assert str(data.pool.panel.spacing) == "3 days"
    with pytest.raises(UserError, match=r"a number.*`data.date_format=%Y%m%d`"):
        series(path=str(tmp_path / "a.csv"), **choice)
