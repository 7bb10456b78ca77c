# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - tables of values
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from airflow_ml_provider.artifacts.codecs.sparse import CLASSES
from airflow_ml_provider.artifacts.store import ArtifactStore
from airflow_ml_provider.exceptions import UnsupportedTypeError
from tests.unit.artifacts.sameness import same

DENSE = np.array([[0, 1.5, 0, 0], [2, 0, 0, -0.0], [0, 0, 0, 0], [0, 7, np.nan, 3]])


def insides(value: Any) -> dict[str, Any]:
    """All that an instance holds but answers that scipy keeps for later."""
    held = {name: item for name, item in vars(value).items() if not name.startswith("_has_")}
    for name in ("rows", "data"):
        if value.format == "lil":
            held[name] = [list(row) for row in held[name]]
    return held


def assert_same(left: Any, right: Any) -> None:
    assert type(left) is type(right)
    assert left.shape == right.shape
    assert left.dtype == right.dtype
    found, expected = insides(left), insides(right)
    assert list(found) == list(expected) or set(found) == set(expected)
    for name, item in found.items():
        if name == "data" and left.format == "lil":
            assert np.array_equal(left.toarray(), right.toarray(), equal_nan=True)
        elif name == "_dict":
            assert list(item) == list(expected[name])
            assert [type(entry) for entry in item.values()] == [type(e) for e in expected[name].values()]
            assert np.array_equal(list(item.values()), list(expected[name].values()), equal_nan=True)
        else:
            assert same(item, expected[name]), name


def unsorted() -> Any:
    made = sp.csr_matrix((2, 4))
    made.data, made.indices, made.indptr = (
        np.array([1.0, 2, 3, 0]),
        np.array([3, 1, 1, 0]),
        np.array([0, 3, 4]),
    )
    return made


def wide_indices() -> Any:
    made = sp.csc_array(DENSE)
    made.indices, made.indptr = made.indices.astype(np.int64), made.indptr.astype(np.int64)
    return made


def summed() -> Any:
    made = sp.coo_array(([1, 2, 3], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    made.sum_duplicates()
    return made


AWKWARD = {
    **{name: (lambda cls=cls: cls(DENSE)) for name, cls in CLASSES.items()},
    **{f"empty {name}": (lambda cls=cls: cls((3, 2), dtype="i2")) for name, cls in CLASSES.items()},
    **{f"no rows {name}": (lambda cls=cls: cls((0, 2))) for name, cls in CLASSES.items() if "bsr" not in name},
    **{
        f"{layout} of {dtype}": (lambda layout=layout, dtype=dtype: sp.random_array((5, 6), density=0.4, rng=1).astype(dtype).asformat(layout))
        for layout in ("csr", "lil", "dok")
        for dtype in ("bool", "int8", "uint64", "float32", "longdouble", "complex64", "complex128")
    },
    "unsorted, with duplicates and a stored zero": unsorted,
    "wide indices": wide_indices,
    "duplicates": lambda: sp.coo_matrix(([1, 2], ([0, 0], [1, 1])), shape=(2, 2)),
    "summed": summed,
    "blocks": lambda: sp.bsr_array(np.kron(np.eye(2), np.ones((2, 3))), blocksize=(2, 3)),
    "diagonals": lambda: sp.dia_array((np.arange(8.0).reshape(2, 4), [0, -1]), shape=(4, 4)),
    "csr of one dimension": lambda: sp.csr_array(np.array([0, 1.0, 2])),
    "dok of one dimension": lambda: sp.dok_array(np.array([0, 1.0, 2])),
    "coo of one dimension": lambda: sp.coo_array(np.array([0, 1.0, 2])),
    "coo of three dimensions": lambda: sp.coo_array(np.arange(8).reshape(2, 2, 2)),
    "shown short": lambda: sp.csr_array(DENSE, maxprint=2),
    "transposed": lambda: sp.csr_array(DENSE).T,
    "strided data": lambda: sp.dia_matrix((np.arange(16.0).reshape(2, 8)[:, ::2], [0, 1]), shape=(4, 4)),
}  # fmt: skip


@pytest.mark.parametrize("make", AWKWARD.values(), ids=AWKWARD.keys())
def test_a_sparse_matrix_comes_back_with_its_class_and_arrays(store: ArtifactStore, make: Any) -> None:
    value = make()
    ref = store.save(value, "task")

    back = store.load(ref)

    assert_same(back, value)
    assert ref.format == "scipy-sparse-v1"
    assert store.save(back, "task").digest == store.save(make(), "task").digest == ref.digest
    assert ref.type == f"scipy.sparse.{type(value).__name__}"
    assert ref.schema == {
        "shape": list(value.shape),
        "dtype": str(value.dtype),
        "layout": value.format,
        "nnz": value.nnz,
    }


def test_what_scipy_found_out_about_a_matrix_does_not_change_its_bytes(store: ArtifactStore) -> None:
    asked, fresh = unsorted(), unsorted()
    assert not asked.has_sorted_indices
    assert not asked.has_canonical_format

    back = store.load(store.save(asked, "task"))

    assert store.save(asked, "task").digest == store.save(fresh, "task").digest
    assert not back.has_sorted_indices
    assert not back.has_canonical_format
    assert back.toarray().tolist() == fresh.toarray().tolist()


def test_what_comes_back_can_be_computed_with_and_written_to(store: ArtifactStore) -> None:
    back = store.load(store.save(sp.csr_array(DENSE), "task"))

    back.data[0] = 9

    assert (back @ np.ones(4))[0] == 9
    assert back[[0]].sum() == 9


def test_the_same_numbers_in_another_class_are_another_content(store: ArtifactStore) -> None:
    digests = {store.save(cls(DENSE), "task").digest for cls in CLASSES.values()}

    assert len(digests) == len(CLASSES)


def test_a_matrix_with_an_attribute_of_the_user_is_refused(store: ArtifactStore) -> None:
    value = sp.csr_array(DENSE)
    value.source = "here"

    with pytest.raises(UnsupportedTypeError, match=r"'source'.*in a dict"):
        store.save(value, "task")


def test_a_matrix_of_objects_is_refused(store: ArtifactStore) -> None:
    value = sp.csr_array(DENSE)
    value.data = value.data.astype(object)

    with pytest.raises(UnsupportedTypeError, match="Python objects"):
        store.save(value, "task")


def test_a_subclass_is_refused(store: ArtifactStore) -> None:
    class Own(sp.csr_array):
        pass

    with pytest.raises(UnsupportedTypeError, match="Own"):
        store.save(Own(DENSE), "task")
