"Data of your own: a part that is named is kept, and a word that names none is an error."

import numpy as np
import pytest
from PIL import Image

from deepfake_nb.detectors.training import _in_parts
from deepfake_nb.core.errors import ManifestError
from deepfake_nb.data.datasets import load_samples
from deepfake_nb.data.custom import PARTS, read_list
from deepfake_nb.data.samples import split_samples


@pytest.fixture
def listing(tmp_path):
    "Writes a list with these values of `split`."

    def write(*words: str):
        for i in range(len(words)):
            Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
        (tmp_path / "list.csv").write_text(
            "path,label,split\n"
            + "".join(f"{i}.png,{i % 2},{word}\n" for i, word in enumerate(words))
        )
        return tmp_path / "list.csv"

    return write


@pytest.mark.parametrize("word", PARTS)
def test_words_for_parts_are_understood(listing, word):
    assert read_list(listing(word, f" {word.upper()} "))["split"].tolist() == [PARTS[word]] * 2


def test_dev_and_eval_are_no_missing_parts(listing):
    assert read_list(listing("train", "dev", "eval", "test ", "", "  "))["split"].fillna(
        "none"
    ).tolist() == ["train", "validation", "test", "test", "none", "none"]


def test_an_unknown_part_is_named_with_its_line(listing):
    with pytest.raises(
        ManifestError,
        match=r"list.csv, line 3: split 'hold-out'; expected one of train, training, val,.* or nothing",
    ):
        read_list(listing("train", "hold-out"))


def test_a_given_test_part_is_kept():
    table = load_samples("synthetic-faces-crude", identities=16, videos=1, frames=2)
    published = split_samples(table, {"train": 0.7, "test": 0.3})[0]
    parts, text = _in_parts(published, 0)
    assert set(parts.loc[parts["split"] == "test", "path"]) == set(
        published.loc[published["split"] == "test", "path"]
    )
    assert parts.groupby("identity")["split"].nunique().max() == 1 and set(parts["split"]) == {
        "train",
        "validation",
        "test",
    }
    assert "the dataset's own test part" in text and "identity-disjoint" in text
    assert (
        "made anew"
        in _in_parts(published[published["split"] == "train"].reset_index(drop=True), 0)[1]
    )
    assert "made anew" not in _in_parts(table.assign(split=None), 0)[1]
