"""Manifests: what they must say, what they must not do, and where a dataset is found."""

import re
import shutil
import subprocess
import sys

import pytest
from planted import isolated, plant  # noqa: F401

from deepfake_nb.core.errors import DatasetNotFoundError, ManifestError
from deepfake_nb.core.paths import manifests_dir
from deepfake_nb.data.datasets import ADAPTERS, is_embedded, load_samples
from deepfake_nb.data.manifests import list_datasets, load_manifest, locate, read_manifest

NAMES = list_datasets()
UADFV = (manifests_dir() / "uadfv.toml").read_text(encoding="utf-8")


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
        "fake-or-real",
        "synthetic-faces",
        "synthetic-faces-crude",
        "synthetic-faces-hard",
        "synthetic-dfdc",
        "synthetic-faceforensics",
        "synthetic-celeb-df",
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_is_complete(name):
    manifest = load_manifest(name)
    assert manifest.name == name
    assert manifest.kind in ("image", "video", "sound", "arrays")
    assert manifest.homepage.startswith("https://")
    assert manifest.terms["url"].startswith("http")
    assert re.match(r"\s*@\w+\{\w+,", manifest.citation)
    assert manifest.citation.count("{") == manifest.citation.count("}")
    assert manifest.reports
    assert set(manifest.reports) <= {"denholtz", "forbush", "kaminskyi", "torlapati", "kun"}
    assert len(manifest.use) > 20
    assert manifest.adapter in ADAPTERS or manifest.kind == "arrays"
    assert all(manifest.terms[key] for key in ("licence", "agreement"))
    assert all(manifest.obtain[key] for key in ("how", "commands", "size"))
    assert all(e.count is not None or e.reason for e in manifest.expected)
    assert any(e.role == "sample" for e in manifest.expected)
    for text in (manifest.terms["licence"], manifest.obtain["size"]):
        assert text.strip().lower() != "unknown", "unknown needs a reason"
    assert len(manifest.caveats) >= 2
    if manifest.stand_in:
        assert load_manifest(manifest.stand_in).embedded
    else:
        assert manifest.stand_in_reason


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_names_no_code(name):
    embedded = load_manifest(name).embedded
    assert bool(embedded) == name.startswith("synthetic-")
    assert set(embedded or ()) <= {"layout", "parameters"}


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_names_no_place_of_one_machine(name):
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
def test_a_manifest_without_a_field_is_refused(field, tmp_path):
    lines, skipping = [], False
    for line in UADFV.splitlines(keepends=True):
        top = re.match(r"(\w+) = |\[+(\w+)", line)
        if top:
            within_table = skipping and line[0] != "[" and top[1] is not None
            in_field = within_table and field in ("terms", "obtain", "expected")
            skipping = (top[1] or top[2]) == field or in_field
        if not skipping:
            lines.append(line)
    (tmp_path / "uadfv.toml").write_text("".join(lines))
    with pytest.raises(ManifestError, match=field):
        read_manifest(tmp_path / "uadfv.toml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "uadfv"', 'name = "other"', "expected 'uadfv', as the file"),
        ('reports = ["kun"]', 'reports = "kun"', "'reports' is 'kun'; expected a list"),
        ("count = 49", 'count = "many"', "has count 'many'"),
        ('stand_in = "synthetic-faces-crude"', 'stand_in = ""', "without a 'stand_in_reason'"),
        ("[terms]\nlicence", "[terms]\nlicense", "'terms.licence' is missing"),
        ("globs = [", "files = [", "lacks 'globs'"),
    ],
)
def test_a_manifest_with_a_wrong_field_is_refused(old, new, message, tmp_path):
    assert old in UADFV
    (tmp_path / "uadfv.toml").write_text(UADFV.replace(old, new, 1))
    with pytest.raises(ManifestError, match=re.escape(message)):
        read_manifest(tmp_path / "uadfv.toml")


@pytest.fixture
def foreign(tmp_path, monkeypatch):
    """Return a function that writes a custom manifest: UADFV's with a change and an addition."""

    def write(old: str = "", new: str = "", more: str = ""):
        text = UADFV.replace('name = "uadfv"', 'name = "foreign"')
        assert old in text
        content = text.replace(old, new, 1) + more
        plant(tmp_path / "data", files={"manifests/foreign.toml": content})
        monkeypatch.setenv("DEEPFAKE_NB_DATA", str(tmp_path / "data"))

    return write


def test_a_custom_manifest_runs_no_code(foreign, tmp_path, monkeypatch):
    """A first version imported and called the function that the key `generator` named."""
    trace = tmp_path / "trace"
    module = f"""
from pathlib import Path

Path({str(trace)!r}).touch()


def leave(**parameters):
    Path({str(trace)!r}).touch()
"""
    plant(tmp_path / "modules", files={"leaves_a_trace.py": module})
    monkeypatch.syspath_prepend(tmp_path / "modules")
    foreign(
        more="""
[embedded]
generator = "leaves_a_trace:leave"
layout = "faces"

[embedded.parameters]
quality = "crude"
"""
    )
    message = "foreign.toml: table 'embedded' is reserved to the library's own manifests; remove it"
    for read in (load_manifest, locate, load_samples, is_embedded):
        with pytest.raises(ManifestError, match=message):
            read("foreign")
    assert not trace.exists()
    assert "leaves_a_trace" not in sys.modules


@pytest.mark.parametrize("pattern", ["../*.mp4", "real/../../x", "/etc/*", "..\\\\*", "C:/x/*"])
@pytest.mark.parametrize("old", ["fake/*.mp4", "real/*.mp4"])
def test_patterns_stay_within_the_folder(old, pattern, foreign):
    foreign(old, pattern)
    message = "foreign.toml: pattern .* leads out of the dataset's folder"
    with pytest.raises(ManifestError, match=message):
        load_manifest("foreign")


def test_an_unknown_adapter_is_named(foreign):
    foreign('adapter = "uadfv"', 'adapter = "os.system"')
    with pytest.raises(ManifestError, match="unknown adapter 'os.system'; known: .*uadfv"):
        load_samples("foreign")


def test_packaged_manifests_come_first(tmp_path, monkeypatch):
    import deepfake_nb

    package = tmp_path / "site" / "deepfake_nb"
    (package / "_data" / "manifests").mkdir(parents=True)
    monkeypatch.setattr(deepfake_nb, "__file__", str(package / "__init__.py"))
    assert manifests_dir() == package / "_data" / "manifests"
    shutil.rmtree(package / "_data")
    with pytest.raises(ManifestError, match="holds no manifests; install deepfake_nb again"):
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
    "fake-or-real": ["training/real/a.flac", "training/fake/a.wav"],
}


def test_layouts_are_tried_for_every_real_dataset():
    assert set(LAYOUTS) == {name for name in NAMES if not load_manifest(name).embedded}


@pytest.mark.parametrize(
    ("name", "file"), [(name, file) for name, files in LAYOUTS.items() for file in files]
)
def test_locate_finds_every_documented_folder(name, file, tmp_path, monkeypatch):
    manifest = load_manifest(name)
    folders = [folder for folder in manifest.folders if not folder.startswith("~")]
    for i, folder in enumerate(folders):
        base = tmp_path / str(i)
        plant(base / folder, file)
        monkeypatch.setenv("DEEPFAKE_NB_DATA", str(base))
        for found in (locate(name, base), locate(name, base / folder), locate(name)):
            assert found.is_relative_to(base / folder)
            assert any(list(found.glob(marker)) for marker in manifest.markers)


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "mnist"])
def test_an_absent_dataset_says_where_how_and_what_instead(name, tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPFAKE_NB_DATA", str(tmp_path))
    manifest = load_manifest(name)
    with pytest.raises(DatasetNotFoundError) as raised:
        load_samples(name)
    message = str(raised.value)
    assert str(tmp_path / manifest.folders[0]) in message
    assert manifest.obtain["commands"][0] in message
    assert manifest.stand_in in message
    assert isinstance(raised.value, FileNotFoundError)


def test_an_unknown_name_suggests_the_nearest_known_one():
    message = r"'celeb-df-2'; did you mean 'celeb-df-v2' or .*\? \(deepfake-nb data list\)"
    with pytest.raises(ManifestError, match=message):
        load_manifest("celeb-df-2")


def test_import_is_light():
    heavy = ("tensorflow", "keras", "torch", "matplotlib", "sklearn", "cv2", "av", "fastcore")
    code = f"""
import sys

import deepfake_nb.data.commands
import deepfake_nb.data.custom

print([name for name in {heavy} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
