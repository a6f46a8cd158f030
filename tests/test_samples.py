"Properties of splits: whatever the swaps, nobody is on both sides."

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepfake_nb.core.errors import SampleError
from deepfake_nb.data.samples import check_split, make_samples, split_samples, subsample_balanced


@st.composite
def tables(draw):
    "Sample tables: some people, real frames of each, and swaps between them."
    people = draw(st.integers(3, 14))
    rows = [
        dict(path=f"r{i}_{f}", label=0, identity=f"p{i}", video=f"v{i}", original=f"v{i}", frame=f)
        for i in range(people)
        for f in range(draw(st.integers(1, 3)))
    ]
    swaps = draw(
        st.lists(
            st.tuples(st.integers(0, people - 1), st.integers(0, people + 1)),
            min_size=1,
            max_size=40,
            unique=True,
        )
    )
    rows += [
        dict(
            path=f"f{i}_{j}",
            label=1,
            identity=f"p{i}",
            source=f"p{j}",
            video=f"v{i}_{j}",
            original=f"v{i}",
            frame=0,
        )
        for i, j in swaps
    ]
    return make_samples(pd.DataFrame(rows).assign(kind="image", dataset="made"))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(tables(), st.integers(0, 5), st.sampled_from(["auto", "original"]))
def test_splits_keep_their_promise(table, seed, group_by):
    try:
        split, report = split_samples(table, {"train": 0.6, "test": 0.4}, group_by, seed)
    except SampleError as error:
        assert "leaves samples of both classes in every part" in str(error)
        return
    check_split(split, "identity" if report.kind.startswith("identity") else "original")
    assert len(split) + report.dropped == len(table)
    assert (report.table[["real", "fake"]] > 0).all(axis=None)
    assert (
        split.groupby("split").size().to_dict()
        == report.table[["real", "fake"]].sum(axis=1).to_dict()
    )
    assert split.equals(split_samples(table, {"train": 0.6, "test": 0.4}, group_by, seed)[0])


@settings(max_examples=30, deadline=None)
@given(tables(), st.integers(0, 5))
def test_balance_is_level_and_drawn_from_the_table(table, seed):
    level = subsample_balanced(table, seed)
    assert (
        (level.label == 0).sum()
        == (level.label == 1).sum()
        == min((table.label == 0).sum(), (table.label == 1).sum())
    )
    assert set(level.path) <= set(table.path)


def test_same_named_videos_of_two_manipulations_stay_two():
    rows = [
        dict(
            path=f"{m}/000_003",
            kind="video",
            label=1,
            dataset="ff",
            video=f"{m}/000_003",
            original="000",
            identity="000",
            source="003",
            manipulation=m,
        )
        for m in ("Deepfakes", "FaceSwap")
    ]
    assert make_samples(rows).video.nunique() == 2


@pytest.mark.parametrize(
    "bad",
    [
        {"label": 2},
        {"label": "fake"},
        {"kind": "gif"},
        {"frame": -1},
        {"frame": 1.5},
        {"split": "dev"},
        {"path": None},
    ],
)
def test_errors_name_row_column_and_value(bad):
    good = dict(path="a", kind="image", label=1, dataset="made", frame=0)
    column, value = next(iter(bad.items()))
    with pytest.raises(SampleError, match=rf"row 1, column '{column}'"):
        make_samples([good | {"path": "b"}, good | bad])
