"Manifests, adapters, verifying and locking: what spans more than one cell of notebook 01."

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deepfake_nb.core.errors import DatasetNotFoundError, ManifestError
from deepfake_nb.core.files import file_hash, write_atomic
from deepfake_nb.core.paths import cache_dir, manifests_dir
from deepfake_nb.data.datasets import (
    ADAPTERS,
    describe_command,
    is_embedded,
    list_command,
    load_arrays,
    load_samples,
)
from deepfake_nb.data.manifests import list_datasets, load_manifest, locate, read_manifest
from deepfake_nb.data.verification import (
    _lock_line,
    default_lock,
    lock_command,
    lock_dataset,
    read_lock,
    verify_command,
    verify_dataset,
)
from deepfake_nb.data.samples import make_samples, split_samples

NAMES = list_datasets()
REAL_DATA = os.environ.get("DEEPFAKE_NB_DATA")
needs_data = pytest.mark.skipif(
    not REAL_DATA or not Path(REAL_DATA).is_dir(),
    reason="DEEPFAKE_NB_DATA names no folder with pieces of the real datasets",
)


@pytest.fixture(autouse=True)
def nowhere(tmp_path_factory, monkeypatch, request):
    "No data and no cache from outside, unless a test asks for them."
    if "real_data" not in request.fixturenames:
        monkeypatch.setenv("DEEPFAKE_NB_DATA", str(tmp_path_factory.mktemp("none")))
    monkeypatch.setenv("DEEPFAKE_NB_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def real_data():
    return Path(REAL_DATA)


def plant(root: Path, *names: str, **texts: str) -> Path:
    for name, text in {**dict.fromkeys(names, "x"), **texts}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 48, 3), dtype="uint8")).save(
        path
    )
    return path


# Manifests


def test_every_named_dataset_has_a_manifest():
    assert set(NAMES) == {
        "dfdc",
        "dfdc-sample",
        "dfdc-faces",
        "celeba",
        "million-fake-faces",
        "uadfv",
        "celeb-df-v1",
        "celeb-df-v2",
        "faceforensics",
        "dfd",
        "real-and-fake-face",
        "mnist",
        "synthetic-faces",
        "synthetic-faces-crude",
        "synthetic-dfdc",
        "synthetic-faceforensics",
        "synthetic-celeb-df",
    }


@pytest.mark.parametrize("name", NAMES)
def test_manifest_says_everything(name):
    manifest = load_manifest(name)
    assert manifest.name == name and manifest.kind in ("image", "video", "arrays")
    assert manifest.homepage.startswith("https://") and manifest.terms["url"].startswith("http")
    assert re.match(r"\s*@\w+\{\w+,", manifest.citation) and manifest.citation.count(
        "{"
    ) == manifest.citation.count("}")
    assert set(manifest.reports) <= {"000", "001", "002", "003", "004"} and len(manifest.use) > 20
    assert manifest.adapter in ADAPTERS or manifest.kind == "arrays"
    assert all(manifest.terms[k] for k in ("licence", "agreement")) and all(
        manifest.obtain[k] for k in ("how", "commands", "size")
    )
    assert all(e.count is not None or e.reason for e in manifest.expected) and any(
        e.role == "sample" for e in manifest.expected
    )
    for text in (manifest.terms["licence"], manifest.obtain["size"]):
        assert not text.strip().lower() == "unknown", "unknown needs a reason"
    assert len(manifest.caveats) >= 2
    if manifest.stand_in:
        assert load_manifest(manifest.stand_in).embedded
    else:
        assert manifest.stand_in_reason
    assert bool(manifest.embedded) == name.startswith("synthetic-")


@pytest.mark.parametrize("name", NAMES)
def test_manifest_names_no_place_of_one_machine(name):
    text = (manifests_dir() / f"{name}.toml").read_text()
    assert not re.search(r"(?<![\w.])/(home|work|tmp|root|Users|opt)/", text)


@pytest.mark.parametrize(
    "field",
    [
        "name",
        "title",
        "kind",
        "adapter",
        "homepage",
        "reports",
        "use",
        "folders",
        "markers",
        "citation",
        "caveats",
        "terms",
        "obtain",
        "expected",
        "stand_in",
    ],
)
def test_manifest_without_a_field_is_refused(field, tmp_path):
    lines, skipping = [], False
    for line in (manifests_dir() / "uadfv.toml").read_text().splitlines(keepends=True):
        top = re.match(r"(\w+) = |\[+(\w+)", line)
        if top:
            skipping = (top[1] or top[2]) == field or (
                skipping
                and line[0] != "["
                and top[1] is not None
                and field in ("terms", "obtain", "expected")
            )
        if not skipping:
            lines.append(line)
    (tmp_path / "uadfv.toml").write_text("".join(lines))
    with pytest.raises(ManifestError, match=field):
        read_manifest(tmp_path / "uadfv.toml")


@pytest.mark.parametrize(
    "old, new, message",
    [
        ('name = "uadfv"', 'name = "other"', "expected 'uadfv', as the file"),
        ('reports = ["004"]', 'reports = "004"', "'reports' is '004'; expected a list"),
        ("count = 49", 'count = "many"', "has count 'many'"),
        ('stand_in = "synthetic-faces-crude"', 'stand_in = ""', "without a 'stand_in_reason'"),
        ("[terms]\nlicence", "[terms]\nlicense", "'terms.licence' is missing"),
        ("globs = [", "files = [", "lacks 'globs'"),
    ],
)
def test_manifest_with_a_wrong_field_is_refused(old, new, message, tmp_path):
    text = (manifests_dir() / "uadfv.toml").read_text()
    assert old in text
    (tmp_path / "uadfv.toml").write_text(text.replace(old, new, 1))
    with pytest.raises(ManifestError, match=re.escape(message)):
        read_manifest(tmp_path / "uadfv.toml")


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    "Puts a manifest of one's own into the data folder: UADFV's text with a change and an addition, as dataset 'foreign'."

    def write(old="", new="", more=""):
        text = (
            (manifests_dir() / "uadfv.toml")
            .read_text()
            .replace('name = "uadfv"', 'name = "foreign"')
        )
        assert old in text
        plant(tmp_path / "data", **{"manifests/foreign.toml": text.replace(old, new, 1) + more})
        monkeypatch.setenv("DEEPFAKE_NB_DATA", str(tmp_path / "data"))

    return write


def test_a_manifest_of_ones_own_runs_no_code(foreign, tmp_path, monkeypatch):
    "It named a module and a function with parameters, which were imported and called."
    trace = tmp_path / "trace"
    write = f"from pathlib import Path\nPath({str(trace)!r}).touch()\ndef leave(**_): Path({str(trace)!r}).touch()\n"
    plant(tmp_path / "modules", **{"leaves_a_trace.py": write})
    monkeypatch.syspath_prepend(tmp_path / "modules")
    foreign(
        more='\n[embedded]\ngenerator = "leaves_a_trace:leave"\nlayout = "faces"\n\n[embedded.parameters]\nquality = "crude"\n'
    )
    refused = "foreign.toml.*'leaves_a_trace:leave', which would be run as code; only the library's own.*Remove the table"
    for read in (load_manifest, locate, load_samples, is_embedded):
        with pytest.raises(ManifestError, match=refused):
            read("foreign")
    assert not trace.exists() and "leaves_a_trace" not in sys.modules


@pytest.mark.parametrize("pattern", ["../*.mp4", "real/../../x", "/etc/*", "..\\\\*", "C:/x/*"])
@pytest.mark.parametrize("old", ["fake/*.mp4", "real/*.mp4"])
def test_patterns_stay_within_the_folder(old, pattern, foreign):
    foreign(old, pattern)
    with pytest.raises(
        ManifestError, match="foreign.toml: pattern .* leads out of the dataset's folder"
    ):
        load_manifest("foreign")


def test_an_adapter_that_does_not_exist_is_named(foreign):
    foreign('adapter = "uadfv"', 'adapter = "os.system"')
    with pytest.raises(ManifestError, match="adapter 'os.system' is not known; there are .*uadfv"):
        load_samples("foreign")


def test_packaged_manifests_come_first(tmp_path, monkeypatch):
    import deepfake_nb

    package = tmp_path / "site" / "deepfake_nb"
    (package / "_data" / "manifests").mkdir(parents=True)
    monkeypatch.setattr(deepfake_nb, "__file__", str(package / "__init__.py"))
    assert manifests_dir() == package / "_data" / "manifests"
    shutil.rmtree(package / "_data")
    with pytest.raises(ManifestError, match="incomplete"):
        manifests_dir()


# Finding data

LAYOUTS = {
    "dfdc": [
        "dfdc_train_part_3/metadata.json",
        "dfdc_train_part_03/dfdc_train_part_3/metadata.json",
    ],
    "dfdc-sample": ["metadata.json", "train_sample_videos/metadata.json"],
    "dfdc-faces": ["faces_224/a.jpg"],
    "celeba": [
        "img_align_celeba/000001.jpg",
        "img_align_celeba/img_align_celeba/000001.jpg",
        "Img/img_align_celeba/000001.jpg",
    ],
    "million-fake-faces": [
        "1m_faces_00/A.jpg",
        "1m_faces_00_01_02_03/1m_faces_00_01_02_03/1m_faces_02/A.jpg",
    ],
    "uadfv": ["fake/0000_fake.mp4", "fake/frames/0000_fake/000.png"],
    "celeb-df-v1": ["Celeb-synthesis/id0_id1_0000.mp4"],
    "celeb-df-v2": ["Celeb-real/id0_0000.mp4"],
    "faceforensics": [
        "original_sequences/youtube/c40/videos/000.mp4",
        "manipulated_sequences/FaceShifter/raw/videos/000_003.mp4",
        "original/000.mp4",
    ],
    "dfd": [
        "original_sequences/actors/c23/videos/01__kitchen.mp4",
        "DFD_manipulated_sequences/DFD_manipulated_sequences/01_02__kitchen__ABCDEFGH.mp4",
    ],
    "real-and-fake-face": ["training_real/real_00001.jpg"],
    "mnist": ["mnist.npz"],
}


def test_layouts_are_tried_for_every_real_dataset():
    assert set(LAYOUTS) == {n for n in NAMES if not load_manifest(n).embedded}


@pytest.mark.parametrize("name, file", [(n, f) for n, files in LAYOUTS.items() for f in files])
def test_locate_finds_every_documented_folder(name, file, tmp_path, monkeypatch):
    for i, folder in enumerate(f for f in load_manifest(name).folders if not f.startswith("~")):
        base = tmp_path / str(i)
        plant(base / folder, file)
        monkeypatch.setenv("DEEPFAKE_NB_DATA", str(base))
        for found in (locate(name, base), locate(name, base / folder), locate(name)):
            assert found.is_relative_to(base / folder) and any(
                found.glob(marker) for marker in load_manifest(name).markers
            )


@pytest.mark.parametrize("name", [n for n in LAYOUTS if n != "mnist"])
def test_absent_dataset_says_where_how_and_what_instead(name, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPFAKE_NB_DATA", str(tmp_path))
    manifest = load_manifest(name)
    with pytest.raises(DatasetNotFoundError) as raised:
        load_samples(name)
    message = str(raised.value)
    assert (
        str(tmp_path / manifest.folders[0]) in message
        and manifest.obtain["commands"][0] in message
        and manifest.stand_in in message
    )
    assert isinstance(raised.value, FileNotFoundError)


def test_unknown_name_suggests_a_known_one():
    with pytest.raises(ManifestError, match="did you mean.*celeb-df-v2"):
        load_manifest("celeb-df-2")


# Adapters


def test_same_name_under_five_methods_stays_five_videos(tmp_path):
    methods = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
    plant(
        tmp_path,
        "original_sequences/youtube/c23/videos/000.mp4",
        *(f"manipulated_sequences/{n}/c23/videos/000_003.mp4" for n in methods),
        "original_sequences/actors/c23/videos/01__kitchen.mp4",
        "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__kitchen__ABCDEFGH.mp4",
    )
    samples = load_samples("faceforensics", tmp_path)
    assert samples.video.nunique() == len(samples) == 6
    fakes = samples[samples.label == 1]
    assert (
        set(fakes.original) == set(fakes.identity) == {"000"}
        and set(fakes.source) == {"003"}
        and set(fakes.manipulation) == set(methods)
    )
    assert samples[samples.label == 0][["video", "original", "identity"]].values.tolist() == [
        ["000"] * 3
    ]


def test_raw_is_c0_and_compressions_are_never_mixed_unasked(tmp_path):
    plant(tmp_path, *(f"original_sequences/youtube/{c}/videos/000.mp4" for c in ("raw", "c40")))
    with pytest.raises(ManifestError, match="choose a compression of c0, c40"):
        load_samples("faceforensics", tmp_path)
    assert load_samples("faceforensics", tmp_path, compression="c0").path.str.contains("raw").all()
    both = load_samples("faceforensics", tmp_path, compression=["c0", "c40"])
    assert both.video.tolist() == ["000@c40", "000@c0"] and set(both.original) == {"000"}


def test_dfd_names(tmp_path):
    plant(
        tmp_path,
        "DFD_original sequences/28__walking_and_outside_surprised.mp4",
        "DFD_manipulated_sequences/DFD_manipulated_sequences/28_02__walking_and_outside_surprised__A1OSUJE9.mp4",
    )
    plant(
        tmp_path / "o",
        "original_sequences/actors/raw/videos/01__kitchen.mp4",
        "manipulated_sequences/DeepFakeDetection/raw/videos/01_02__kitchen__ABCDEFGH.mp4",
        "manipulated_sequences/DeepFakeDetection/masks/videos/01_02__kitchen__ABCDEFGH.mp4",
    )
    real, fake = load_samples("dfd", tmp_path).to_dict("records")
    assert (fake["identity"], fake["source"], fake["original"], fake["compression"]) == (
        "28",
        "02",
        real["video"],
        "c23",
    )
    fake = load_samples("dfd", tmp_path / "o").iloc[1]
    assert fake.compression == "c0" and fake.mask_path.endswith(
        "masks/videos/01_02__kitchen__ABCDEFGH.mp4"
    )


def test_celeb_df_list_is_read_the_right_way_round(tmp_path):
    plant(
        tmp_path,
        "Celeb-real/id0_0000.mp4",
        "YouTube-real/00007.mp4",
        "Celeb-synthesis/id0_id1_0000.mp4",
        **{
            "List_of_testing_videos.txt": "1 YouTube-real/00007.mp4\r\n0 Celeb-synthesis/id0_id1_0000.mp4\r\n"
        },
    )
    samples = load_samples("celeb-df-v2", tmp_path)
    assert samples.label.tolist() == [0, 0, 1] and samples.split.fillna("").tolist() == [
        "",
        "test",
        "test",
    ]
    assert samples.identity.tolist() == ["id0", "youtube-00007", "id0"] and samples.source.fillna(
        ""
    ).tolist() == ["", "", "id1"]
    for flipped in (
        "0 YouTube-real/00007.mp4",
        "1 Celeb-synthesis/id0_id1_0000.mp4",
        "YouTube-real/00007.mp4",
    ):
        (tmp_path / "List_of_testing_videos.txt").write_text(flipped)
        with pytest.raises(ManifestError, match="line 1"):
            load_samples("celeb-df-v2", tmp_path)


def test_dfdc_ignores_the_sample_and_reads_parts(tmp_path):
    entry = {"label": "FAKE", "split": "train", "original": "o.mp4"}
    for part in (0, 1, 49):
        plant(
            tmp_path / f"dfdc_train_part_{part}",
            f"v{part}.mp4",
            **{"metadata.json": json.dumps({f"v{part}.mp4": entry, "gone.mp4": entry})},
        )
    plant(
        tmp_path / "train_sample_videos",
        "v0.mp4",
        **{"metadata.json": json.dumps({"v0.mp4": entry})},
    )
    samples = load_samples("dfdc", tmp_path)
    assert (
        samples.video.tolist() == ["v0", "v1", "v49"]
        and samples.part.tolist() == [0, 1, 49]
        and set(samples.original) == {"o"}
    )
    assert load_samples("dfdc", tmp_path, parts=range(45, 50)).video.tolist() == ["v49"]
    assert load_samples("dfdc-sample", tmp_path).path.str.contains("train_sample_videos").all()
    (tmp_path / "dfdc_train_part_1" / "metadata.json").write_text("{")
    with pytest.raises(ManifestError, match="dfdc_train_part_1/metadata.json"):
        load_samples("dfdc", tmp_path)


def test_celeba_with_and_without_its_lists(tmp_path):
    plant(tmp_path, "img_align_celeba/000001.jpg", "img_align_celeba/000002.jpg")
    assert load_samples("celeba", tmp_path).identity.isna().all()
    plant(
        tmp_path,
        **{
            "Anno/identity_CelebA.txt": "000001.jpg 5\n000002.jpg 5\n",
            "list_eval_partition.txt": "000001.jpg 1\n000002.jpg 2\n",
        },
    )
    samples = load_samples("celeba", tmp_path)
    assert samples.identity.tolist() == ["celeba-5"] * 2 and samples.split.tolist() == [
        "validation",
        "test",
    ]
    (tmp_path / "list_eval_partition.txt").write_text("000001.jpg 1 2\n")
    with pytest.raises(ManifestError, match="list_eval_partition.txt"):
        load_samples("celeba", tmp_path)


def test_limit_takes_so_many_of_each_class_by_seed(tmp_path):
    plant(tmp_path / "celeba" / "img_align_celeba", *(f"{i:06d}.jpg" for i in range(40)))
    plant(tmp_path / "1-million-fake-faces" / "1m_faces_00", *(f"{i:03d}.jpg" for i in range(30)))
    one, same, other = (
        load_samples("celeba+million-fake-faces", tmp_path, limit=10, seed=s) for s in (1, 1, 2)
    )
    assert (
        one.label.value_counts().to_dict() == {0: 10, 1: 10}
        and one.equals(same)
        and not one.equals(other)
    )
    assert one.dataset.unique().tolist() == ["celeba", "million-fake-faces"]
    assert len(load_samples("celeba", tmp_path, limit=100)) == 40


def test_options_are_checked_before_anything_is_read(tmp_path):
    with pytest.raises(ManifestError, match="no option 'compresion'.*compression"):
        load_samples("faceforensics", tmp_path, compresion="c23")
    with pytest.raises(ManifestError, match="holds arrays"):
        load_samples("celeba+mnist", tmp_path)


def test_uadfv_has_one_source(tmp_path):
    plant(
        tmp_path,
        *(f"{k}/{i:04d}{s}.mp4" for i in range(6) for k, s in (("real", ""), ("fake", "_fake"))),
    )
    samples = load_samples("uadfv", tmp_path)
    assert (
        samples[samples.label == 1].source.nunique() == 1
        and samples.identity.nunique() == samples.original.nunique() == 6
    )
    assert (samples.groupby("original").label.nunique() == 2).all()


def test_bits_of_real_and_fake_face(tmp_path):
    plant(tmp_path, "training_real/real_00001.jpg", "training_fake/hard_7_0011.jpg")
    fake = load_samples("real-and-fake-face", tmp_path).iloc[1]
    assert (fake.label, fake.difficulty, fake.face_parts) == (1, "hard", "0011")


def test_paths_are_absolute_and_the_tables_are_valid(tmp_path, monkeypatch):
    plant(tmp_path / "data" / "uadfv", "real/0000.mp4", "fake/0000_fake.mp4")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEEPFAKE_NB_DATA")
    samples = load_samples("uadfv")
    assert all(Path(p).is_absolute() for p in samples.path)
    assert make_samples(samples).equals(samples)


# Pieces of the real datasets


@needs_data
@pytest.mark.parametrize(
    "name, real, fake",
    [
        ("dfdc", 1, 2),
        ("dfdc-faces", 4995, 4995),
        ("faceforensics", 6, 18),
        ("real-and-fake-face", 864, 768),
    ],
)
def test_pieces_of_real_data(name, real, fake, real_data):
    samples = load_samples(name)
    assert samples.label.value_counts().to_dict() == {0: real, 1: fake}
    assert all(map(os.path.isfile, samples.path)) and samples.video.dropna().is_unique
    report = verify_dataset(name, lock=False, progress=False)
    assert (
        (report.ok, report.complete, report.state) == (True, False, "a part")
        and not report.extra
        and not report.missing
    )


@needs_data
def test_real_pairs_stay_together(real_data):
    _, report = split_samples(load_samples("faceforensics"), {"train": 2 / 3, "test": 1 / 3})
    assert report.kind == "identity-disjoint" and report.dropped == 0
    faces = load_samples("dfdc-faces")
    assert (faces.groupby("original").label.nunique() == 2).all()


@needs_data
def test_real_mnist(real_data):
    arrays = load_arrays("mnist")
    assert arrays["x_train"].max() == 255 and np.bincount(arrays["y_test"]).tolist() == [
        980,
        1135,
        1032,
        1010,
        982,
        892,
        958,
        1028,
        974,
        1009,
    ]
    report = verify_dataset("mnist", deep=True, lock=False, progress=False)
    assert report.complete and report.files == 1 and not report.extra


@needs_data
def test_lock_of_a_folder_that_cannot_be_written(real_data):
    folder = locate("faceforensics")
    if folder.stat().st_mode & 0o222:
        pytest.skip("the folder of the pieces can be written here")
    assert default_lock("faceforensics", folder) == cache_dir() / "locks" / "faceforensics.sha256"


# Embedded data


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    "Function that gives the table of a tiny embedded dataset, and its folder."
    pytest.importorskip("deepfake_nb.synthetic")
    cache = tmp_path_factory.mktemp("rendered")
    sizes = {
        "synthetic-faces": dict(identities=4, videos=1, frames=2),
        "synthetic-faces-crude": dict(identities=2, videos=1, frames=2),
        "synthetic-dfdc": dict(identities=2, frames=3),
        "synthetic-faceforensics": dict(identities=2, frames=3),
        "synthetic-celeb-df": dict(identities=6, frames=3),
    }

    def get(name):
        os.environ["DEEPFAKE_NB_CACHE"] = str(cache)
        samples = load_samples(name, progress=False, **sizes[name])
        folder = next(p for p in Path(samples.path[0]).parents if p.parent.name == "synthetic")
        return samples, folder

    return get


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("synthetic-")])
def test_embedded_data_come_back_through_the_same_adapters(name, rendered):
    samples, folder = rendered(name)
    assert (
        set(samples.label) == {0, 1}
        and set(samples.dataset) == {name}
        and samples.identity.notna().all()
    )
    assert {"skin_tone", "lighting", "quality"} <= set(samples.columns)
    fakes = samples[samples.label == 1]
    assert (
        fakes.mask_path.map(os.path.isfile).all()
        and samples[samples.label == 0].mask_path.isna().all()
    )
    assert set(fakes.original) <= set(samples[samples.label == 0].video)
    assert (samples.groupby("video").label.nunique() == 1).all()
    if samples.kind[0] == "video":
        assert samples.video.is_unique
    assert set(fakes.source.dropna()) <= set(samples.identity)
    swaps = fakes.manipulation == "face-swap"
    assert swaps.any() and fakes[swaps].source.notna().all() and fakes[~swaps].source.isna().all()
    report = verify_dataset(name, folder, deep=True, progress=False)
    assert report.complete and not report.extra


def test_embedded_options_reach_the_generator(rendered):
    rendered("synthetic-faces")
    with pytest.raises(ManifestError, match="no option 'identites'.*identities"):
        load_samples("synthetic-faces", identites=2)
    with pytest.raises(ManifestError, match="'identities' is for rendering"):
        load_samples("synthetic-faces", rendered("synthetic-faces")[1], identities=2)


# Attributes


def test_attributes_never_merge_videos_or_flip_labels(tmp_path):
    plant(
        tmp_path,
        "original_sequences/youtube/c23/videos/000.mp4",
        *(
            f"manipulated_sequences/{n}/c23/videos/000_001.mp4"
            for n in ("Deepfakes", "NeuralTextures")
        ),
    )
    path = "manipulated_sequences/{}/c23/videos/000_001.mp4"
    head = "path,label,video,identity,source,manipulation,skin_tone\n"
    plant(
        tmp_path,
        **{
            "attributes.csv": head
            + f"{path.format('Deepfakes')},1,000_001,007,008,face-swap,3\n"
            + f"{path.format('NeuralTextures')},1,000_001,007,,mouth,4\n"
        },
    )
    samples = load_samples("faceforensics", tmp_path).set_index("video")
    assert samples.index.tolist() == ["000", "Deepfakes/000_001", "NeuralTextures/000_001"]
    assert samples.identity.tolist() == ["000", "007", "007"] and samples.source.fillna(
        ""
    ).tolist() == ["", "008", ""]
    assert samples.manipulation.fillna("").tolist() == [
        "",
        "face-swap",
        "mouth",
    ] and samples.skin_tone.tolist()[1:] == [3, 4]
    plant(tmp_path, **{"attributes.csv": head + f"{path.format('Deepfakes')},0,,,,,\n"})
    with pytest.raises(ManifestError, match="has label 0"):
        load_samples("faceforensics", tmp_path)


# Verifying


@pytest.fixture
def crops(tmp_path):
    "Six sound face crops with their list."
    lines = ["videoname,original_width,original_height,label,original"]
    for i, name in enumerate("abcdef"):
        picture(tmp_path / "crops" / "faces_224" / f"{name}.jpg", i)
        lines.append(f"{name}.mp4,48,48,{'FAKE,a.mp4' if i else 'REAL,'}")
    return plant(tmp_path / "crops", **{"metadata.csv": "\n".join(lines) + "\n"})


def test_a_part_is_not_damage(crops):
    report = verify_dataset("dfdc-faces", crops, deep=True, progress=False)
    assert (report.ok, report.complete, report.state) == (True, False, "a part")
    assert report.table.state.tolist() == ["a part: 6 of 95,634", "whole"] and "no fault" in str(
        report
    )


def test_missing_by_its_own_list_is_a_part(crops):
    (crops / "faces_224" / "c.jpg").unlink()
    report = verify_dataset("dfdc-faces", crops, progress=False)
    assert report.missing == ("faces_224/c.jpg",) and report.state == "a part"


def test_extra_files_are_named_and_harmless(crops):
    plant(crops, "faces_224/readme.doc", "thumbs/x.jpg", ".hidden", ".git/config")
    report = verify_dataset("dfdc-faces", crops, progress=False)
    assert report.extra == ("faces_224/readme.doc", "thumbs/x.jpg") and report.ok


@pytest.mark.parametrize("deep", [False, True])
def test_empty_file_is_damage_at_any_depth(crops, deep):
    (crops / "faces_224" / "c.jpg").write_bytes(b"")
    report = verify_dataset("dfdc-faces", crops, deep=deep, progress=False)
    assert (
        report.corrupt == {"faces_224/c.jpg": "empty file"}
        and report.state == "damaged"
        and not report.ok
    )


def test_truncated_picture_is_found_by_decoding_only(crops):
    file = crops / "faces_224" / "c.jpg"
    file.write_bytes(file.read_bytes()[:-200])
    assert verify_dataset("dfdc-faces", crops, progress=False).ok
    report = verify_dataset("dfdc-faces", crops, deep=True, progress=False)
    assert (
        list(report.corrupt) == ["faces_224/c.jpg"]
        and "truncated" in report.corrupt["faces_224/c.jpg"]
    )


def test_list_that_cannot_be_read_is_damage(crops):
    (crops / "metadata.csv").write_text("name\nx\n")
    report = verify_dataset("dfdc-faces", crops, progress=False)
    assert not report.ok and "column 'videoname' is missing" in report.corrupt["lists"]


def test_damaged_video_is_found(tmp_path, rendered):
    _, folder = rendered("synthetic-dfdc")
    copy = shutil.copytree(folder, tmp_path / "copy")
    first, second, third = sorted((copy / "dfdc_train_part_0").glob("*.mp4"))[:3]
    data = first.read_bytes()
    first.write_bytes(data[: len(data) // 2])
    data = bytearray(second.read_bytes())
    start = len(data) // 2
    data[start : start + 200] = bytes(200)
    second.write_bytes(data)
    report = verify_dataset("synthetic-dfdc", copy, deep=True, progress=False)
    assert (
        set(report.corrupt) == {p.relative_to(copy).as_posix() for p in (first, second)}
        and third.exists()
    )


def test_neighbours_in_one_download_are_not_extra(tmp_path):
    plant(
        tmp_path,
        "original_sequences/youtube/c23/videos/000.mp4",
        "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4",
        "original_sequences/actors/c23/videos/01__kitchen.mp4",
        "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__kitchen__ABCDEFGH.mp4",
    )
    for name in ("faceforensics", "dfd"):
        report = verify_dataset(name, tmp_path, progress=False)
        assert report.files == 2 and not report.extra, name


def test_whole_dataset_and_optional_groups(tmp_path):
    plant(
        tmp_path,
        *(f"{k}/{i:04d}{s}.mp4" for i in range(49) for k, s in (("real", ""), ("fake", "_fake"))),
    )
    report = verify_dataset("uadfv", tmp_path, progress=False)
    assert report.complete and report.table.state.tolist() == [
        "whole",
        "whole",
        "not here (optional)",
    ]
    (tmp_path / "fake" / "0000_fake.mp4").unlink()
    assert verify_dataset("uadfv", tmp_path, progress=False).state == "a part"


# Locks


def test_lock_can_be_checked_by_sha256sum(crops):
    lock = lock_dataset("dfdc-faces", crops, progress=False)
    assert (
        lock == crops / "dfdc-faces.sha256"
        and not list(crops.glob("*.journal"))
        and not list(crops.glob(".*tmp"))
    )
    for name, digest in read_lock(lock).items():
        assert hashlib.sha256((crops / name).read_bytes()).hexdigest() == digest
    if shutil.which("sha256sum"):
        assert (
            subprocess.run(
                ["sha256sum", "--check", "--strict", "--quiet", lock.name], cwd=crops
            ).returncode
            == 0
        )
    again = lock_dataset(
        "dfdc-faces", crops, out=crops.parent / "again.sha256", workers=3, progress=False
    )
    assert again.read_bytes() == lock.read_bytes()


def test_lock_proves_that_the_data_are_the_same(crops):
    lock_dataset("dfdc-faces", crops, progress=False)
    report = verify_dataset("dfdc-faces", crops, progress=False)
    assert report.ok and report.lock == crops / "dfdc-faces.sha256" and not report.extra
    picture(crops / "faces_224" / "b.jpg", 99)
    picture(crops / "faces_224" / "new.jpg")
    (crops / "faces_224" / "f.jpg").unlink()
    report = verify_dataset("dfdc-faces", crops, progress=False)
    assert (report.changed, report.added, report.missing) == (
        ("faces_224/b.jpg",),
        ("faces_224/new.jpg",),
        ("faces_224/f.jpg",),
    )
    assert (
        report.state == "damaged"
        and verify_dataset("dfdc-faces", crops, lock=False, progress=False).state == "a part"
    )


@pytest.mark.parametrize("change", ["changed", "added", "gone"])
def test_each_difference_from_the_lock_counts_alone(crops, change):
    lock = lock_dataset("dfdc-faces", crops, out=crops.parent / "x.sha256", progress=False)
    if change == "changed":
        picture(crops / "faces_224" / "b.jpg", 99)
    elif change == "added":
        picture(crops / "faces_224" / "new.jpg")
    else:
        (crops / "faces_224" / "f.jpg").unlink()
    assert not verify_dataset("dfdc-faces", crops, lock=lock, progress=False).ok


KILLED = """
import sys, time
true = file_hash
def slow(path):
    time.sleep(0.05)
    return true(path)
file_hash = slow
lock_dataset("dfdc-faces", sys.argv[1], workers=1, progress=False)
"""


def test_killed_lock_goes_on_where_it_stopped(crops, monkeypatch):
    for i in range(60):
        picture(crops / "faces_224" / f"x{i:02d}.jpg", i)
    lock, journal = crops / "dfdc-faces.sha256", crops / "dfdc-faces.sha256.journal"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(crops)])
    end = time.monotonic() + 40
    while not (journal.exists() and journal.read_text().count("\n") >= 8):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not lock.exists(), "a lock is there whole or not at all"
    noted = [json.loads(line)[0] for line in journal.read_text().splitlines()]
    picture(crops / noted[0], 1234)  # one of the files changes before the second attempt
    with journal.open("a") as torn:
        torn.write('["faces_224/x5')  # what a kill in the middle of a write leaves
    hashed, true = [], file_hash
    monkeypatch.setattr(
        m,
        "file_hash",
        lambda path: (hashed.append(path.relative_to(crops).as_posix()), true(path))[1],
    )
    lock_dataset("dfdc-faces", crops, progress=False)
    assert (
        len(noted) >= 8
        and set(hashed) & set(noted) == {noted[0]}
        and len(hashed) == 67 - len(noted) + 1
    )
    assert (
        read_lock(lock)
        == {p: hashlib.sha256((crops / p).read_bytes()).hexdigest() for p in read_lock(lock)}
        and len(read_lock(lock)) == 67
    )
    assert not journal.exists()


def test_resumed_twice(crops, monkeypatch):
    true, budget = file_hash, [0]

    def hungry(path):
        if not budget[0]:
            raise KeyboardInterrupt
        budget[0] -= 1
        return true(path)

    monkeypatch.setattr(m, "file_hash", hungry)
    attempts = 0
    while not (crops / "dfdc-faces.sha256").exists():
        budget[0], attempts = 2, attempts + 1
        assert attempts < 9
        try:
            lock_dataset("dfdc-faces", crops, workers=1, progress=False)
        except KeyboardInterrupt:
            pass
    assert attempts == 4 and len(read_lock(crops / "dfdc-faces.sha256")) == 7


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), min_size=1))
def test_any_file_name_survives_a_lock(tmp_path_factory, name):
    file = tmp_path_factory.mktemp("names") / "x.sha256"
    write_atomic(file, "# head\n" + _lock_line("a" * 64, name) + "\n")
    assert read_lock(file) == {name: "a" * 64}


def test_wrong_lock_is_refused(crops):
    with pytest.raises(ManifestError, match="no lock at"):
        verify_dataset("dfdc-faces", crops, lock=crops / "none.sha256")
    with pytest.raises(ManifestError, match="deepfake-nb data lock dfdc-faces"):
        verify_dataset("dfdc-faces", crops, lock=True)
    (crops / "x.sha256").write_text("not a hash  file\n")
    with pytest.raises(ManifestError, match="line 1"):
        verify_dataset("dfdc-faces", crops, lock=crops / "x.sha256")


# Commands


def test_exit_statuses(crops, tmp_path, capsys):
    assert list_command() == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in NAMES)
    assert (
        verify_command("dfdc-faces", crops) == 3
        and verify_command("dfdc-faces", crops, part=True) == 0
    )
    assert lock_command("dfdc-faces", crops) == 0
    (crops / "faces_224" / "b.jpg").write_bytes(b"")
    capsys.readouterr()
    assert verify_command("dfdc-faces", crops, deep=True) == 1
    assert "corrupt: faces_224/b.jpg (empty file)" in capsys.readouterr().out
    assert [
        verify_command("uadfv", tmp_path),
        lock_command("uadfv", tmp_path),
        describe_command("nope"),
        verify_command("nope"),
    ] == [2] * 4
    assert "Looked in" in capsys.readouterr().err
    plant(
        tmp_path / "u",
        *(f"{k}/{i:04d}{s}.mp4" for i in range(49) for k, s in (("real", ""), ("fake", "_fake"))),
    )
    assert verify_command("uadfv", tmp_path / "u") == 0


@pytest.mark.parametrize("name", NAMES)
def test_description_says_what_a_user_needs(name, capsys):
    assert describe_command(name) == 0
    text, manifest = " ".join(capsys.readouterr().out.split()), load_manifest(name)
    for part in (
        manifest.title,
        manifest.terms["licence"],
        manifest.obtain["how"],
        *manifest.obtain["commands"],
        *manifest.caveats,
        manifest.citation,
    ):
        assert " ".join(part.split()) in text


def test_import_is_light():
    heavy = ("tensorflow", "keras", "torch", "matplotlib", "sklearn", "cv2", "av", "fastcore")
    code = f"import sys, deepfake_nb.manifests; print([n for n in {heavy} if n in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
