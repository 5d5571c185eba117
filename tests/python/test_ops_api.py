"""The descriptions of native transforms: their checks, how they are chained, compared and pickled."""

from __future__ import annotations

import pickle

import numpy as np
import penstock as ps
import pyarrow as pa
import pytest
from support import run_python

EXAMPLES = [
    ps.ops.cast("float32"),
    ps.ops.fill_null(3),
    ps.ops.fill_null("none"),
    ps.ops.fill_null(b"\xff"),
    ps.ops.hash_bucket(100),
    ps.ops.lookup(["a", "b"], missing=-1),
    ps.ops.scale(mean=1, std=2),
    ps.ops.clip(lower=0),
    ps.testing.spin(mean_us=5),
]


@pytest.mark.parametrize("op", EXAMPLES, ids=repr)
def test_ops_are_equal_and_hash_alike_after_pickling(op: ps.ops.Op) -> None:
    copy = pickle.loads(pickle.dumps(op))
    assert copy == op
    assert hash(copy) == hash(op)
    assert repr(copy) == repr(op)
    assert len({op, copy}) == 1


def test_ops_are_immutable() -> None:
    with pytest.raises(AttributeError):
        ps.ops.cast("int8").to = "int16"  # type: ignore[misc]


def test_chains_run_from_left_to_right() -> None:
    a, b, c = ps.ops.fill_null(0), ps.ops.cast("float32"), ps.ops.scale(1, 2)
    assert (ps.col("x") | a | b | c) == ps.ops.Chain("x", (a, b, c))
    assert (a | b | c) == ps.ops.Chain(None, (a, b, c))
    assert (ps.col("x") | (a | b)) == ps.ops.Chain("x", (a, b))
    assert repr(ps.col("x") | a) == "col('x') | fill_null(value=0)"
    assert pickle.loads(pickle.dumps(ps.col("x") | a | b)) == (ps.col("x") | a | b)


def test_only_ops_can_follow_in_a_chain() -> None:
    with pytest.raises(TypeError):
        ps.col("x") | "float32"  # type: ignore[operator]
    with pytest.raises(TypeError, match="starts from a column of its own"):
        ps.ops.cast("int8") | ps.col("x")
    with pytest.raises(TypeError, match="name is a str"):
        ps.col(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("to", ["float32", np.float32, np.dtype("float32"), pa.float32()], ids=repr)
def test_cast_takes_types_of_other_libraries(to: object) -> None:
    assert ps.ops.cast(to).to == "float32"  # type: ignore[arg-type]


def test_cast_takes_torch_types() -> None:
    torch = pytest.importorskip("torch")
    assert ps.ops.cast(torch.float16).to == "float16"
    assert ps.ops.cast(torch.bool).to == "bool"
    with pytest.raises(ValueError, match="choose one of bool, int8"):
        ps.ops.cast(torch.bfloat16)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: ps.ops.cast("string"), ValueError, "choose one of"),
        (lambda: ps.ops.cast("complex64"), ValueError, "choose one of"),
        (lambda: ps.ops.fill_null([1]), TypeError, "fill value"),
        (lambda: ps.ops.fill_null(2**64), ValueError, "64 bits"),
        (lambda: ps.ops.hash_bucket(0), ValueError, "at least 1"),
        (lambda: ps.ops.hash_bucket(True), TypeError, "int"),
        (lambda: ps.ops.hash_bucket(1.5), TypeError, "int"),
        (lambda: ps.ops.lookup("abc"), TypeError, "not one value"),
        (lambda: ps.ops.lookup(["a"], missing="b"), TypeError, "missing is an int"),
        (lambda: ps.ops.scale(std=0), ValueError, "std"),
        (lambda: ps.ops.scale(mean="1"), TypeError, "number"),
        (lambda: ps.ops.clip(lower=2, upper=1), ValueError, "above"),
    ],
)
def test_wrong_arguments_are_refused_at_once(make, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message):
        make()


def test_lookup_takes_any_arrow_array() -> None:
    class Foreign:
        def __init__(self, array: pa.Array) -> None:
            self.array = array

        def __arrow_c_array__(self, requested_schema: object | None = None) -> object:
            return self.array.__arrow_c_array__(requested_schema)

    words = pa.array(["a", "b"])
    assert ps.ops.lookup(Foreign(words)) == ps.ops.lookup(words) == ps.ops.lookup(["a", "b"])
    assert ps.ops.lookup(pa.chunked_array([["a"], ["b"]])) == ps.ops.lookup(words)
    assert ps.ops.lookup(words) != ps.ops.lookup(["a", "c"])


def test_a_vocabulary_of_strings_is_what_arrow_makes_of_it() -> None:
    for words in (["a", "", "äö", "\N{SNOWMAN}" * 3], ("b",), []):
        assert ps.ops.lookup(words) == ps.ops.lookup(pa.array(words))


def test_pandas_is_not_imported_for_a_vocabulary() -> None:
    """pyarrow imports it to make an array of a list, which takes longer than to read the first batch."""
    pytest.importorskip("pandas")
    code = (
        "import sys, penstock as ps; ps.ops.lookup(['a', 'b']); sys.exit(3 if 'pandas' in sys.modules else 0)"
    )
    done = run_python(code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("transforms", "message"),
    [
        ([ps.ops.cast("int8")], "transforms is a dict"),
        ({1: ps.ops.cast("int8")}, "output's name is a str"),
        ({"x": "int8"}, r"transforms\['x'\] is an op"),
        ({"x": [ps.ops.cast("int8"), "int8"]}, r"transforms\['x'\] is an op"),
    ],
)
def test_what_is_no_transform_is_a_type_error(numbers: str, transforms: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        ps.Loader(numbers, transforms=transforms, format="numpy")  # type: ignore[arg-type]


def test_ops_reach_the_native_side(write_parquet) -> None:  # type: ignore[no-untyped-def]
    path = write_parquet(
        {
            "n": pa.array([1, None, 300], pa.int32()),
            "s": ["a", "b", "zz"],
            "big": pa.array([None, 5, 2**62 + 1], pa.int64()),
        }
    )
    loader = ps.Loader(
        path,
        columns=["n", "s", "big"],
        transforms={
            "n": [ps.ops.fill_null(7), ps.ops.clip(upper=100), ps.ops.scale(1, 2)],
            "s": ps.ops.lookup(["a", "b"], missing=9),
            "bucket": ps.col("s") | ps.ops.hash_bucket(10),
            "big": ps.ops.fill_null(2**62 + 3),
        },
        format="numpy",
    )
    (batch,) = loader
    assert batch["n"].dtype == np.float32
    assert batch["n"].tolist() == [0.0, 3.0, 49.5]
    assert batch["s"].tolist() == [0, 1, 9]
    assert batch["big"].tolist() == [2**62 + 3, 5, 2**62 + 1]
    assert all(0 <= bucket < 10 for bucket in batch["bucket"].tolist())
    assert loader.schema["s"].vocabulary.to_pylist() == ["a", "b"]
