"""Custom datasets: what a list or a folder says is kept, and an unknown word is an error."""

import numpy as np
import pytest
from PIL import Image

from deepfake_nb.core.errors import ManifestError
from deepfake_nb.core.files import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from deepfake_nb.data.datasets import load_samples
from deepfake_nb.data.folders import SPLIT_WORDS, read_folder
from deepfake_nb.data.lists import read_list
from deepfake_nb.data.splits import split_samples


def write_image(path, value=128):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(path)


@pytest.fixture
def listing(tmp_path):
    """Return a function that writes a list with the given values of `split`."""

    def write(*words: str):
        lines = ["path,label,split"]
        for i, word in enumerate(words):
            write_image(tmp_path / f"{i}.png", i)
            lines.append(f"{i}.png,{i % 2},{word}")
        (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
        return tmp_path / "list.csv"

    return write


@pytest.mark.parametrize("word", SPLIT_WORDS)
def test_words_for_splits_are_understood(listing, word):
    expected = SPLIT_WORDS[word]
    assert read_list(listing(word, f" {word.upper()} "))["split"].tolist() == [expected] * 2


def test_dev_and_eval_are_splits_and_blanks_are_none(listing):
    table = read_list(listing("train", "dev", "eval", "test ", "", "  "))
    expected = ["train", "validation", "test", "test", "none", "none"]
    assert table["split"].fillna("none").tolist() == expected


def test_an_unknown_split_is_named_with_its_line(listing):
    message = (
        r"list.csv, line 3: split 'hold-out'; expected one of train, training, val,.* or nothing"
    )
    with pytest.raises(ManifestError, match=message):
        read_list(listing("train", "hold-out"))


def test_a_folder_is_read_with_all_kinds_of_images_and_videos(tmp_path):
    for label in ("real", "fake"):
        (tmp_path / label).mkdir()
        for suffix in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES, ".WMV", ".txt"):
            (tmp_path / label / f"{label}_{suffix[1:]}{suffix}").touch()
    table = read_folder(tmp_path)
    assert len(table) == 2 * (len(IMAGE_SUFFIXES) + len(VIDEO_SUFFIXES) + 1)
    videos = table[table["kind"] == "video"]["path"]
    assert videos.str.endswith(".wmv").sum() == videos.str.endswith(".flv").sum() == 2


@pytest.mark.slow
def test_videos_of_one_name_are_extracted_and_scored_separately(tmp_path):
    from deepfake_nb.evaluation.frames import video_scores
    from deepfake_nb.faces.dataset import extract_faces
    from deepfake_nb.faces.extraction import Extraction

    for label in ("real", "fake"):
        for i in range(12):
            write_image(tmp_path / "twins" / label / f"{i:04}.png")
        for i in range(8):
            write_image(tmp_path / "twins" / label / f"clip_{i}" / "0.png")
            write_image(tmp_path / "twins" / label / f"clip_{i}" / "1.png")
    split, _ = split_samples(read_folder(tmp_path / "twins"))
    assert len(video_scores(split, split["label"])) == 40
    extraction = Extraction(face_detector="frame", size=8)
    result = extract_faces(split, tmp_path / "faces", extraction, workers=0, progress=False)
    assert len(result.index) == len(split) == 2 * (12 + 16)


@pytest.mark.slow
def test_a_given_test_split_is_kept():
    from deepfake_nb.detectors.training import with_splits

    table = load_samples("synthetic-faces-crude", identities=16, videos=1, frames=2)
    published = split_samples(table, {"train": 0.7, "test": 0.3})[0]
    given = published.loc[published["split"] == "test", "path"]
    made, text = with_splits(published, 0)
    assert set(made.loc[made["split"] == "test", "path"]) == set(given)
    assert made.groupby("identity")["split"].nunique().max() == 1
    assert set(made["split"]) == {"train", "validation", "test"}
    assert "the dataset's own test split" in text
    assert "identity-disjoint" in text
    without_test = published[published["split"] == "train"].reset_index(drop=True)
    assert "made anew" in with_splits(without_test, 0)[1]
    assert "made anew" not in with_splits(table.assign(split=None), 0)[1]
