"""Adapters: the rows of every layout, of pieces of the real datasets, and of embedded ones."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from planted import isolated, plant  # noqa: F401

from deepfake_nb.core.errors import ManifestError
from deepfake_nb.core.paths import cache_dir
from deepfake_nb.data.datasets import load_arrays, load_samples
from deepfake_nb.data.locks import default_lock
from deepfake_nb.data.manifests import list_datasets, locate
from deepfake_nb.data.samples import make_samples
from deepfake_nb.data.splits import split_samples
from deepfake_nb.data.verification import verify_dataset

FF_METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
DFD_REAL = "original_sequences/actors/{}/videos/01__kitchen.mp4"
DFD_FAKE = "manipulated_sequences/DeepFakeDetection/{}/videos/01_02__kitchen__ABCDEFGH.mp4"


def filled(column) -> list:
    """Return the values of a column, with '' for missing ones."""
    return column.fillna("").tolist()


def test_one_name_under_five_methods_stays_five_videos(tmp_path):
    plant(
        tmp_path,
        "original_sequences/youtube/c23/videos/000.mp4",
        *(f"manipulated_sequences/{name}/c23/videos/000_003.mp4" for name in FF_METHODS),
        DFD_REAL.format("c23"),
        DFD_FAKE.format("c23"),
    )
    samples = load_samples("faceforensics", tmp_path)
    assert samples.video.nunique() == len(samples) == 6
    fakes = samples[samples.label == 1]
    assert set(fakes.original) == set(fakes.identity) == {"000"}
    assert set(fakes.source) == {"003"}
    assert set(fakes.manipulation) == set(FF_METHODS)
    reals = samples[samples.label == 0]
    assert reals[["video", "original", "identity"]].values.tolist() == [["000"] * 3]


def test_raw_is_c0_and_compressions_are_never_mixed_by_default(tmp_path):
    plant(tmp_path, *(f"original_sequences/youtube/{c}/videos/000.mp4" for c in ("raw", "c40")))
    with pytest.raises(ManifestError, match="choose a compression of c0, c40"):
        load_samples("faceforensics", tmp_path)
    raw = load_samples("faceforensics", tmp_path, compression="c0")
    assert raw.path.str.contains("raw").all()
    both = load_samples("faceforensics", tmp_path, compression=["c0", "c40"])
    assert both.video.tolist() == ["000@c40", "000@c0"]
    assert set(both.original) == {"000"}


def test_dfd_names(tmp_path):
    scene = "walking_and_outside_surprised"
    plant(
        tmp_path,
        f"DFD_original sequences/28__{scene}.mp4",
        f"DFD_manipulated_sequences/DFD_manipulated_sequences/28_02__{scene}__A1OSUJE9.mp4",
    )
    real, fake = load_samples("dfd", tmp_path).to_dict("records")
    assert (fake["identity"], fake["source"]) == ("28", "02")
    assert (fake["original"], fake["compression"]) == (real["video"], "c23")

    official = plant(
        tmp_path / "official",
        DFD_REAL.format("raw"),
        DFD_FAKE.format("raw"),
        DFD_FAKE.format("masks"),
    )
    fake = load_samples("dfd", official).iloc[1]
    assert fake.compression == "c0"
    assert fake.mask_path.endswith("masks/videos/01_02__kitchen__ABCDEFGH.mp4")


def test_the_list_of_celeb_df_is_read_the_right_way_round(tmp_path):
    file = "List_of_testing_videos.txt"
    lines = "1 YouTube-real/00007.mp4\r\n0 Celeb-synthesis/id0_id1_0000.mp4\r\n"
    plant(
        tmp_path,
        "Celeb-real/id0_0000.mp4",
        "YouTube-real/00007.mp4",
        "Celeb-synthesis/id0_id1_0000.mp4",
        files={file: lines},
    )
    samples = load_samples("celeb-df-v2", tmp_path)
    assert samples.label.tolist() == [0, 0, 1]
    assert filled(samples.split) == ["", "test", "test"]
    assert samples.identity.tolist() == ["id0", "youtube-00007", "id0"]
    assert filled(samples.source) == ["", "", "id1"]
    for flipped in (
        "0 YouTube-real/00007.mp4",
        "1 Celeb-synthesis/id0_id1_0000.mp4",
        "YouTube-real/00007.mp4",
    ):
        (tmp_path / file).write_text(flipped)
        with pytest.raises(ManifestError, match="line 1"):
            load_samples("celeb-df-v2", tmp_path)


def test_dfdc_ignores_the_sample_videos_and_reads_parts(tmp_path):
    entry = {"label": "FAKE", "split": "train", "original": "o.mp4"}
    for part in (0, 1, 49):
        listing = json.dumps({f"v{part}.mp4": entry, "gone.mp4": entry})
        folder = tmp_path / f"dfdc_train_part_{part}"
        plant(folder, f"v{part}.mp4", files={"metadata.json": listing})
    listing = json.dumps({"v0.mp4": entry})
    plant(tmp_path / "train_sample_videos", "v0.mp4", files={"metadata.json": listing})

    samples = load_samples("dfdc", tmp_path)
    assert samples.video.tolist() == ["v0", "v1", "v49"]
    assert samples.part.tolist() == [0, 1, 49]
    assert set(samples.original) == {"o"}
    assert load_samples("dfdc", tmp_path, parts=range(45, 50)).video.tolist() == ["v49"]
    assert load_samples("dfdc-sample", tmp_path).path.str.contains("train_sample_videos").all()
    (tmp_path / "dfdc_train_part_1" / "metadata.json").write_text("{")
    with pytest.raises(ManifestError, match="dfdc_train_part_1/metadata.json"):
        load_samples("dfdc", tmp_path)


def test_celeba_with_and_without_its_lists(tmp_path):
    plant(tmp_path, "img_align_celeba/000001.jpg", "img_align_celeba/000002.jpg")
    assert load_samples("celeba", tmp_path).identity.isna().all()
    lists = {
        "Anno/identity_CelebA.txt": "000001.jpg 5\n000002.jpg 5\n",
        "list_eval_partition.txt": "000001.jpg 1\n000002.jpg 2\n",
    }
    plant(tmp_path, files=lists)
    samples = load_samples("celeba", tmp_path)
    assert samples.identity.tolist() == ["celeba-5"] * 2
    assert samples.split.tolist() == ["validation", "test"]
    (tmp_path / "list_eval_partition.txt").write_text("000001.jpg 1 2\n")
    with pytest.raises(ManifestError, match="list_eval_partition.txt"):
        load_samples("celeba", tmp_path)


def test_limit_takes_so_many_of_each_class_by_seed(tmp_path):
    plant(tmp_path / "celeba" / "img_align_celeba", *(f"{i:06d}.jpg" for i in range(40)))
    plant(tmp_path / "1-million-fake-faces" / "1m_faces_00", *(f"{i:03d}.jpg" for i in range(30)))
    name = "celeba+million-fake-faces"
    one, same, other = (load_samples(name, tmp_path, limit=10, seed=seed) for seed in (1, 1, 2))
    assert one.label.value_counts().to_dict() == {0: 10, 1: 10}
    assert one.equals(same)
    assert not one.equals(other)
    assert one.dataset.unique().tolist() == ["celeba", "million-fake-faces"]
    assert len(load_samples("celeba", tmp_path, limit=100)) == 40


def test_options_are_checked_before_anything_is_read(tmp_path):
    message = "unknown option 'compresion'; did you mean 'compression'"
    with pytest.raises(ManifestError, match=message):
        load_samples("faceforensics", tmp_path, compresion="c23")
    with pytest.raises(ManifestError, match="holds arrays"):
        load_samples("celeba+mnist", tmp_path)


def test_uadfv_has_one_source(tmp_path):
    plant(tmp_path, *(f"real/{i:04d}.mp4" for i in range(6)))
    plant(tmp_path, *(f"fake/{i:04d}_fake.mp4" for i in range(6)))
    samples = load_samples("uadfv", tmp_path)
    assert samples[samples.label == 1].source.nunique() == 1
    assert samples.identity.nunique() == samples.original.nunique() == 6
    assert (samples.groupby("original").label.nunique() == 2).all()


def test_digits_of_real_and_fake_face_are_kept(tmp_path):
    plant(tmp_path, "training_real/real_00001.jpg", "training_fake/hard_7_0011.jpg")
    fake = load_samples("real-and-fake-face", tmp_path).iloc[1]
    assert (fake.label, fake.difficulty, fake.face_parts) == (1, "hard", "0011")


def test_paths_are_absolute_and_tables_are_valid(tmp_path, monkeypatch):
    plant(tmp_path / "data" / "uadfv", "real/0000.mp4", "fake/0000_fake.mp4")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEEPFAKE_NB_DATA")
    samples = load_samples("uadfv")
    assert all(Path(path).is_absolute() for path in samples.path)
    assert make_samples(samples).equals(samples)


def test_attributes_never_merge_videos_or_flip_labels(tmp_path):
    path = "manipulated_sequences/{}/c23/videos/000_001.mp4"
    swapped, reenacted = path.format("Deepfakes"), path.format("NeuralTextures")
    header = "path,label,video,identity,source,manipulation,skin_tone\n"
    attributes = (
        f"{header}{swapped},1,000_001,007,008,face-swap,3\n{reenacted},1,000_001,007,,mouth,4\n"
    )
    plant(
        tmp_path,
        "original_sequences/youtube/c23/videos/000.mp4",
        swapped,
        reenacted,
        files={"attributes.csv": attributes},
    )
    samples = load_samples("faceforensics", tmp_path).set_index("video")
    assert samples.index.tolist() == ["000", "Deepfakes/000_001", "NeuralTextures/000_001"]
    assert samples.identity.tolist() == ["000", "007", "007"]
    assert filled(samples.source) == ["", "008", ""]
    assert filled(samples.manipulation) == ["", "face-swap", "mouth"]
    assert samples.skin_tone.tolist()[1:] == [3, 4]
    plant(tmp_path, files={"attributes.csv": f"{header}{swapped},0,,,,,\n"})
    with pytest.raises(ManifestError, match="has label 0"):
        load_samples("faceforensics", tmp_path)


# Pieces of the real datasets

REAL_DATA = os.environ.get("DEEPFAKE_NB_DATA")


@pytest.fixture
def real_data():
    """Return the folder of the pieces of the real datasets."""
    if not REAL_DATA or not Path(REAL_DATA).is_dir():
        pytest.skip("DEEPFAKE_NB_DATA names no folder with pieces of the real datasets")
    return Path(REAL_DATA)


@pytest.mark.parametrize(
    ("name", "real", "fake"),
    [
        ("dfdc", 1, 2),
        ("dfdc-faces", 4995, 4995),
        ("faceforensics", 24, 41),  # with the short videos
        ("real-and-fake-face", 864, 768),
        ("fake-or-real", 105, 122),
    ],
)
def test_pieces_of_real_data(name, real, fake, real_data):
    samples = load_samples(name)
    assert samples.label.value_counts().to_dict() == {0: real, 1: fake}
    assert all(map(os.path.isfile, samples.path))
    assert samples.video.dropna().is_unique
    result = verify_dataset(name, lock=False, progress=False)
    state = "complete" if name == "fake-or-real" else "incomplete"  # whose number is unknown
    assert (result.ok, result.state) == (True, state)
    assert not result.extra
    assert not result.missing


def test_real_pairs_stay_together(real_data):
    _, result = split_samples(load_samples("faceforensics"), {"train": 2 / 3, "test": 1 / 3})
    assert result.kind == "identity-disjoint"
    assert result.dropped == 0
    faces = load_samples("dfdc-faces")
    assert (faces.groupby("original").label.nunique() == 2).all()


def test_real_mnist(real_data):
    arrays = load_arrays("mnist")
    assert arrays["x_train"].max() == 255
    counts = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(arrays["y_test"]).tolist() == counts
    result = verify_dataset("mnist", deep=True, lock=False, progress=False)
    assert result.complete
    assert result.files == 1
    assert not result.extra


def test_the_lock_of_a_read_only_folder_is_in_the_cache(real_data):
    folder = locate("faceforensics")
    if folder.stat().st_mode & 0o222:
        pytest.skip("the folder of the pieces can be written here")
    assert default_lock("faceforensics", folder) == cache_dir() / "locks" / "faceforensics.sha256"


# Embedded data

SIZES = {
    "synthetic-faces": {"identities": 4, "videos": 1, "frames": 2},
    "synthetic-faces-crude": {"identities": 2, "videos": 1, "frames": 2},
    "synthetic-faces-hard": {"identities": 2, "videos": 1, "frames": 2},
    "synthetic-dfdc": {"identities": 2, "frames": 3},
    "synthetic-faceforensics": {"identities": 2, "frames": 3},
    "synthetic-celeb-df": {"identities": 6, "frames": 3},
}


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """Return a function that gives the table of a tiny embedded dataset, and its folder."""
    cache = tmp_path_factory.mktemp("rendered")

    def get(name):
        os.environ["DEEPFAKE_NB_CACHE"] = str(cache)
        samples = load_samples(name, progress=False, **SIZES[name])
        parents = Path(samples.path[0]).parents
        return samples, next(path for path in parents if path.parent.name == "synthetic")

    return get


def test_every_embedded_dataset_is_tried():
    assert set(SIZES) == {name for name in list_datasets() if name.startswith("synthetic-")}


@pytest.mark.parametrize("name", SIZES)
def test_embedded_data_are_read_by_the_same_adapters(name, rendered):
    samples, folder = rendered(name)
    assert set(samples.label) == {0, 1}
    assert set(samples.dataset) == {name}
    assert samples.identity.notna().all()
    assert {"skin_tone", "lighting", "quality"} <= set(samples.columns)
    reals, fakes = samples[samples.label == 0], samples[samples.label == 1]
    assert fakes.mask_path.map(os.path.isfile).all()
    assert reals.mask_path.isna().all()
    assert set(fakes.original) <= set(reals.video)
    assert (samples.groupby("video").label.nunique() == 1).all()
    if samples.kind[0] == "video":
        assert samples.video.is_unique
    assert set(fakes.source.dropna()) <= set(samples.identity)
    swaps = fakes.manipulation == "face-swap"
    assert swaps.any()
    assert fakes[swaps].source.notna().all()
    assert fakes[~swaps].source.isna().all()
    result = verify_dataset(name, folder, deep=True, progress=False)
    assert result.complete
    assert not result.extra


def test_options_for_rendering_are_checked(rendered):
    _, folder = rendered("synthetic-faces")
    message = "unknown option 'identites'; did you mean 'identities'"
    with pytest.raises(ManifestError, match=message):
        load_samples("synthetic-faces", identites=2)
    with pytest.raises(ManifestError, match="'identities' is for rendering"):
        load_samples("synthetic-faces", folder, identities=2)


def test_a_damaged_video_is_found(tmp_path, rendered):
    _, folder = rendered("synthetic-dfdc")
    copy = shutil.copytree(folder, tmp_path / "copy")
    first, second, third = sorted((copy / "dfdc_train_part_0").glob("*.mp4"))[:3]
    content = first.read_bytes()
    first.write_bytes(content[: len(content) // 2])
    content = bytearray(second.read_bytes())
    start = len(content) // 2
    content[start : start + 200] = bytes(200)
    second.write_bytes(content)
    result = verify_dataset("synthetic-dfdc", copy, deep=True, progress=False)
    assert set(result.corrupt) == {path.relative_to(copy).as_posix() for path in (first, second)}
    assert third.exists()
