"""CSV files as people have them: separators, marks, decimal commas; and what is said of those that are none."""

import numpy as np
import pytest

from replicajax.cli._request import ProblemError
from replicajax.cli._table import columns_of, read_csv

ROWS = [(1.5, -2.0, 3.25), (0.0, 1e-3, 4.0)]


def write(tmp_path, text: str, encoding: str = "utf-8"):
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_and_marks(tmp_path, separator, encoding):
    lines = [separator.join(["höhe", '"x, y"' if separator == "," else "x", "label"])]
    lines += [separator.join(map(str, row)) for row in ROWS]
    frame = read_csv(write(tmp_path, "\r\n".join(lines), encoding))
    assert frame.columns[0] == "höhe"
    np.testing.assert_array_equal(frame.to_numpy(), ROWS)


def test_decimal_commas(tmp_path):
    path = write(tmp_path, "a;b\n1,5;2\n-3,25;4e-1\n".replace("4e-1", "0,4"))
    np.testing.assert_array_equal(columns_of(path, "b").to_numpy(), [[1.5, 2.0], [-3.25, 0.4]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n", "has a header, a, b, and no rows"),
        ("\n\n", "it is empty"),
        ("a b\n1 2\n", "two distinct columns, separated by a comma, semicolon, tab or ., got a b"),
        ("a,a\n1,2\n", "two distinct columns"),
        ("a,b\n1,2,3\n4,5,6\n", "rows have more fields than the header, a, b, has names"),
        ("a,b\n0,1,2\n1,4,5\n", "rows have more fields than the header"),
        ('a,b\n"1,5",2\n', "column a must be numbers, got '1,5'; with decimal commas separate columns by ;"),
        (
            "a,b\nx,1\ny,2\n",
            "column a must be numbers, got 'x': it is text; leave such columns out, or make each a 0/1 column",
        ),
        ("a,b,c\nx,1,z\ny,2,z\n", "it is text .as are c.; leave"),
        (
            "a,b\n1,1\n2,2\n?,3\n",
            "column a must be numbers, got '.' in data row 3 .1 such rows.: fill them in, or leave",
        ),
        ("a,b,c\n1,,3\n1,2,3\n,1,\n", "3 missing .* leave out those 2 rows or columns a, b, c"),
        ("a;b\n1,5;1.5\n", "column b must be numbers, got '1.5'"),
        (
            "a,b\n1,\n",
            "1 missing or infinite values, the first in column b, data row 1; fill them in, or leave out that row",
        ),
        ("a,b\n1," + "9" * 400 + "\n", "missing or infinite|must be numbers"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, message):
    with pytest.raises(ProblemError, match=message):
        read_csv(write(tmp_path, text))


def test_other_encodings_are_named(tmp_path):
    with pytest.raises(ProblemError, match="is not readable as CSV: 'utf-8' codec"):
        read_csv(write(tmp_path, "höhe,b\n1,2\n", "latin-1"))


def test_the_target_is_looked_for_in_the_header_alone(tmp_path):
    with pytest.raises(ProblemError, match="--target y: no such column"):
        columns_of(write(tmp_path, "a,b\n1,words\n"), "y")
