"""Sample tables and splits: whatever the swaps are, nobody is in two splits."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfake_nb.core.errors import SampleError
from deepfake_nb.data.samples import make_samples, subsample_balanced
from deepfake_nb.data.splits import check_split, split_samples


@st.composite
def tables(draw):
    """Draw a sample table: some people, real frames of each, and swaps between them."""
    people = draw(st.integers(3, 14))
    rows = []
    for i in range(people):
        shown = {"label": 0, "identity": f"p{i}", "video": f"v{i}", "original": f"v{i}"}
        for frame in range(draw(st.integers(1, 3))):
            rows.append(shown | {"path": f"r{i}_{frame}", "frame": frame})
    pair = st.tuples(st.integers(0, people - 1), st.integers(0, people + 1))
    for i, j in draw(st.lists(pair, min_size=1, max_size=40, unique=True)):
        rows.append(
            {
                "path": f"f{i}_{j}",
                "label": 1,
                "identity": f"p{i}",
                "source": f"p{j}",
                "video": f"v{i}_{j}",
                "original": f"v{i}",
                "frame": 0,
            }
        )
    return make_samples(pd.DataFrame(rows).assign(kind="image", dataset="made"))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(tables(), st.integers(0, 5), st.sampled_from(["auto", "original"]))
def test_a_split_keeps_its_guarantee(table, seed, group_by):
    fractions = {"train": 0.6, "test": 0.4}
    try:
        split, result = split_samples(table, fractions, group_by, seed)
    except SampleError as error:
        assert "leaves both classes in every split" in str(error)
        return
    check_split(split, result.kind.removesuffix("-disjoint"))
    assert len(split) + result.dropped == len(table)
    counts = result.table[["real", "fake"]]
    assert (counts > 0).all(axis=None)
    assert split.groupby("split").size().to_dict() == counts.sum(axis=1).to_dict()
    assert split.equals(split_samples(table, fractions, group_by, seed)[0])


@settings(max_examples=30, deadline=None)
@given(tables(), st.integers(0, 5))
def test_balanced_classes_are_equal_in_size_and_drawn_from_the_table(table, seed):
    balanced = subsample_balanced(table, seed)
    smaller = min((table.label == 0).sum(), (table.label == 1).sum())
    assert (balanced.label == 0).sum() == smaller
    assert (balanced.label == 1).sum() == smaller
    assert set(balanced.path) <= set(table.path)


def test_videos_of_one_name_under_two_manipulations_stay_two():
    rows = []
    for manipulation in ("Deepfakes", "FaceSwap"):
        rows.append(
            {
                "path": f"{manipulation}/000_003",
                "kind": "video",
                "label": 1,
                "dataset": "ff",
                "video": f"{manipulation}/000_003",
                "original": "000",
                "identity": "000",
                "source": "003",
                "manipulation": manipulation,
            }
        )
    assert make_samples(rows).video.nunique() == 2


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("label", 2),
        ("label", "fake"),
        ("kind", "gif"),
        ("frame", -1),
        ("frame", 1.5),
        ("split", "dev"),
        ("path", None),
    ],
)
def test_errors_name_row_and_column(column, value):
    good = {"path": "a", "kind": "image", "label": 1, "dataset": "made", "frame": 0}
    with pytest.raises(SampleError, match=rf"row 1, column '{column}'"):
        make_samples([good | {"path": "b"}, good | {column: value}])
