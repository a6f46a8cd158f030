"""JSON and TOML of others: one schema each, and errors that name file and key."""

import dataclasses
import json
import re

import pytest
from planted import isolated, plant  # noqa: F401

from deepfake_nb.core.errors import ManifestError
from deepfake_nb.core.files import file_hash
from deepfake_nb.core.paths import custom_manifests_dir, manifests_dir
from deepfake_nb.data.commands import list_command
from deepfake_nb.data.datasets import load_samples
from deepfake_nb.data.manifests import list_datasets, load_manifest, read_manifest

UADFV = (manifests_dir() / "uadfv.toml").read_text(encoding="utf-8")


# Manifests


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('folders = ["uadfv", "UADFV"]', "folders = [1]", "field 'folders[0]' is 1; expected text"),
        (
            'kind = "video"',
            'kind = "film"',
            "field 'kind' is 'film'; expected one of arrays, image",
        ),
        ("count = 49", "count = -1", "field 'expected[0].count' is -1; expected a whole number"),
        ("count = 49", "count = 4.5", "field 'expected[0].count' is 4.5; expected a whole number"),
        ('role = "sample"', 'role = "x"', "field 'expected[0].role' is 'x'; expected one of list"),
        ("optional = true", "optional = 1", "'expected[2].optional' is 1; expected true or false"),
        ("[terms]", "[[terms]]", "field 'terms' is [{"),
        ('size = "unknown', 'size = 3 # "', "field 'obtain.size' is 3; expected text"),
        ('folders = ["uadfv"', 'folders = ["../uadfv"', "pattern '../uadfv' leads out of"),
    ],
)
def test_a_manifest_with_a_wrong_value_names_file_and_field(old, new, message, tmp_path):
    assert old in UADFV
    (tmp_path / "uadfv.toml").write_text(UADFV.replace(old, new, 1))
    with pytest.raises(ManifestError, match=re.escape(message)) as raised:
        read_manifest(tmp_path / "uadfv.toml")
    assert str(tmp_path / "uadfv.toml") in str(raised.value)


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", b"[" * 5000, b"name = 'broken'"])
def test_a_faulty_custom_manifest_is_in_nobody_elses_way(content, capsys):
    plant(custom_manifests_dir().parent)
    custom_manifests_dir().mkdir(parents=True)
    (custom_manifests_dir() / "broken.toml").write_bytes(content)
    assert load_manifest("uadfv").name == "uadfv"
    assert list_command() == 0
    line = next(text for text in capsys.readouterr().out.splitlines() if "broken" in text)
    assert "faulty" in line
    assert str(custom_manifests_dir() / "broken.toml") in line
    with pytest.raises(ManifestError, match="broken.toml: "):
        load_manifest("broken")


def test_a_custom_manifest_of_a_known_name_is_in_nobody_elses_way():
    plant(custom_manifests_dir(), files={"uadfv.toml": UADFV})
    assert list_datasets().count("uadfv") == 1
    assert load_manifest("celeba").name == "celeba"
    with pytest.raises(ManifestError, match="uadfv.toml has the name of a dataset of the library"):
        load_manifest("uadfv")


def test_a_faulty_custom_manifest_does_not_stop_runs(tmp_path):
    from deepfake_nb.runs.plan import _further_data

    plant(custom_manifests_dir(), files={"broken.toml": "name = "})
    assert _further_data({"data_root": "", "title": "mine"}, {}) == {}


def test_the_current_folder_is_not_trusted(tmp_path, monkeypatch):
    """A manifest that lies in ./data/manifests, of a cloned repository say, is not read."""
    foreign = UADFV.replace('name = "uadfv"', 'name = "foreign"')
    plant(tmp_path, files={"data/manifests/foreign.toml": foreign})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DEEPFAKE_NB_DATA")
    assert "foreign" not in list_datasets()
    monkeypatch.setenv("DEEPFAKE_NB_DATA", "data")
    assert "foreign" in list_datasets()


def test_without_a_data_folder_datasets_are_registered_for_the_user(tmp_path, monkeypatch):
    import pandas as pd

    from deepfake_nb.data.custom import register_dataset

    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DEEPFAKE_NB_DATA")
    monkeypatch.chdir(tmp_path)
    plant(tmp_path, "a.png", "elsewhere/here")
    register_dataset("mine", pd.DataFrame([{"path": "a.png", "kind": "image", "label": 0}]))
    assert not (tmp_path / "data").exists()
    monkeypatch.chdir(tmp_path / "elsewhere")
    plant(
        tmp_path / "elsewhere", files={"data/mine/samples.csv": "path,kind,label\nb.png,image,1\n"}
    )
    assert load_samples("mine")["path"].tolist() == [str(tmp_path / "a.png")]


# Splits of FaceForensics++


@pytest.mark.parametrize("content", ["{}", '["000"]', "[[1, 2]]", "null"])
def test_a_wrong_split_of_faceforensics_is_refused(content, tmp_path):
    video = "original_sequences/youtube/c23/videos/000.mp4"
    plant(tmp_path, video, files={"splits/train.json": content})
    with pytest.raises(ManifestError, match=r"train.json: (holds|field '\[0\])"):
        load_samples("faceforensics", tmp_path)


# Detectors

GOOD = {
    "format": 1,
    "model": "model.keras",
    "preprocessing": {},
    "calibration": {
        "kind": "platt",
        "logit": False,
        "slope": 1.0,
        "intercept": 0.0,
        "scores": [],
        "shares": [],
        "fakes": 0.5,
        "n": 10,
    },
    "threshold": 0.5,
    "band": [0.4, 0.6],
    "min_points": 100.0,
    "probe": [0.1],
    "versions": {"keras": "3"},
}
SHOWN = ("AUC", "abstains", "reals above the band", "fakes below the band")
CARD = {
    "name": "a",
    "description": "",
    "intended_use": "",
    "out_of_scope": [],
    "data": {"datasets": [], "files": 0, "sha256": "", "research_only": True},
    "split": "",
    "decision": {"rule": "", "calibration": "", "band_rule": ""},
    "meaning": {"images": ""},
    "numbers": {
        "images": [
            {"metric": name, "value": 0.5, "low": None, "high": None, "n": 9} for name in SHOWN
        ]
    },
    "training": {},
    "versions": {},
}
NAN = float("nan")


def stored(tmp_path, settings, card=CARD):
    """Write a folder whose hashes agree, but whose model is none."""
    content = {"detector.json": json.dumps(settings), "card.json": json.dumps(card)}
    plant(tmp_path, "model.keras", files=content)
    names = ("model.keras", *content)
    sums = "".join(f"{file_hash(tmp_path / name)}  {name}\n" for name in names)
    (tmp_path / "SHA256SUMS").write_text(sums)
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"band": [0.6, 0.4]},
            r"'band' is \[0.6, 0.4\]; expected two numbers around the threshold",
        ),
        ({"band": [0.6, 0.7]}, "'band' is .*; expected two numbers around the threshold 0.5"),
        ({"band": [0.4]}, "'band' is .*; expected two numbers"),
        ({"band": [0.4, "1"]}, r"'band\[1\]' is '1'; expected a number from 0 to 1"),
        ({"band": [0.4, NAN]}, r"'band\[1\]' is nan; expected a number from 0 to 1"),
        ({"threshold": 2}, "'threshold' is 2; expected a number from 0 to 1"),
        ({"threshold": None}, "'threshold' is None; expected a number from 0 to 1"),
        ({"threshold": True}, "'threshold' is True; expected a number from 0 to 1"),
        ({"calibration": {"slope": NAN}}, "'calibration.slope' is nan; expected a number, at"),
        (
            {"calibration": {"slope": -1}},
            "'calibration.slope' is -1; expected a number, at least 0",
        ),
        (
            {"calibration": {"kind": "beta"}},
            "'calibration.kind' is 'beta'; expected one of isotoni",
        ),
        ({"calibration": {"kind": "isotonic"}}, "'calibration' is .*; expected a rising curve"),
        ({"calibration": {"scores": [1, 0], "shares": [0, 1]}}, "expected a rising curve"),
        ({"calibration": {"scores": [1]}}, "'calibration' is .*; expected a rising curve"),
        ({"calibration": {"temperature": 1}}, "'calibration' is .*; expected a rising curve with"),
        ({"preprocessing": {"sizes": [8, 8]}}, "'preprocessing' is .*; expected fields of `Prep"),
        ({"preprocessing": []}, r"'preprocessing' is \[\]; expected a table"),
        ({"preprocessing": {"size": None}}, "'preprocessing.size' is None; expected a list"),
        ({"preprocessing": {"size": [8, "8"]}}, r"'preprocessing.size\[1\]' is '8'; expected a wh"),
        ({"preprocessing": {"scaling": []}}, r"'preprocessing.scaling' is \[\]; expected text"),
        ({"preprocessing": {"margin": "a"}}, "'preprocessing.margin' is 'a'; expected a number"),
        ({"preprocessing": {"jpeg": [9]}}, r"'preprocessing.jpeg' is \[9\]; expected a whole num"),
        ({"preprocessing": {"mirror": 1}}, "'preprocessing.mirror' is 1; expected true or false"),
        ({"probe": ["a"]}, r"'probe\[0\]' is 'a'; expected a number"),
        ({"versions": {"keras": 3}}, "'versions.keras' is 3; expected text"),
        ({"min_points": -1}, "'min_points' is -1; expected a number, at least 0"),
    ],
)
def test_a_wrong_detector_is_refused_with_file_and_key(change, message, tmp_path):
    from deepfake_nb.core.errors import DetectorError
    from deepfake_nb.detectors.storage import load_detector

    settings = json.loads(json.dumps(GOOD))
    for name, value in change.items():
        merged = isinstance(value, dict) and name != "preprocessing"
        settings[name] = settings[name] | value if merged else value
    with pytest.raises(
        DetectorError, match=f"detector.json: field {message}|detector.json.*{message}"
    ):
        load_detector(stored(tmp_path, settings))


@pytest.mark.parametrize("key", GOOD)
def test_a_detector_without_a_key_is_refused(key, tmp_path):
    from deepfake_nb.core.errors import DetectorError
    from deepfake_nb.detectors.storage import load_detector

    settings = {name: value for name, value in GOOD.items() if name != key}
    with pytest.raises(DetectorError, match=f"detector.json: field '{key}' is missing"):
        load_detector(stored(tmp_path / "settings", settings))
    with pytest.raises(DetectorError, match="card.json: field 'numbers' is missing"):
        card = {name: value for name, value in CARD.items() if name != "numbers"}
        load_detector(stored(tmp_path / "card", GOOD, card))
    with pytest.raises(DetectorError, match=r"detector.json: holds \[\]; expected a table"):
        load_detector(stored(tmp_path / "list", []))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": None}, "field 'split' is None; expected text"),
        ({"training": []}, r"field 'training' is \[\]; expected a table"),
        ({"meaning": {"videos": ""}}, "field 'meaning.images' is missing"),
        ({"data": {"datasets": [3]}}, r"field 'data.datasets\[0\]' is 3; expected text"),
        ({"decision": {"rule": "", "calibration": ""}}, "field 'decision.band_rule' is missing"),
        ({"numbers": {"images": [[]]}}, r"field 'numbers.images\[0\]' is \[\]; expected a table"),
        ({"numbers": CARD["numbers"] | {"videos": []}}, "'numbers.videos' has no value of 'AUC'"),
    ],
)
def test_a_wrong_card_is_refused_with_file_and_key(change, message, tmp_path):
    from deepfake_nb.core.errors import DetectorError
    from deepfake_nb.detectors.storage import load_detector

    with pytest.raises(DetectorError, match=f"card.json: .*{message}"):
        load_detector(stored(tmp_path, GOOD, CARD | change))


def test_preprocessing_that_does_not_fit_is_refused(tmp_path):
    from deepfake_nb.core.errors import DetectorError
    from deepfake_nb.detectors.preprocessing import Preprocessing
    from deepfake_nb.detectors.storage import _SCHEMA, _read_preprocessing

    known = {name.removesuffix("?") for name in _SCHEMA["preprocessing"]}
    assert known == {field.name for field in dataclasses.fields(Preprocessing)}
    for wrong in ({"view_options": {"a": 1}}, {"margin": -1}, {"confidence": 2}, {"crop": 0}):
        with pytest.raises(DetectorError, match="detector.json: field 'preprocessing': "):
            _read_preprocessing({"preprocessing": wrong}, tmp_path / "detector.json")


# What runs and extractions recorded


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_damaged_record_of_a_run_is_named(content, tmp_path):
    from deepfake_nb.core.errors import ReportError
    from deepfake_nb.runs.collect import _record
    from deepfake_nb.runs.progress import earlier_times

    file = "kun/synthetic-faces-smoke-0123456789/provenance.json"
    plant(tmp_path, files={file: content})
    with pytest.raises(
        ReportError, match="provenance.json: (cannot be|holds|field 'parameters' is)"
    ):
        _record(tmp_path / file, tmp_path)
    if content != "{}":
        with pytest.raises(ReportError, match="provenance.json: (cannot be read as JSON|holds)"):
            earlier_times(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("provenance.json", {"parameters": {}, "seed": "x"}, "'seed' is 'x'; expected a whole nu"),
        ("provenance.json", {"parameters": {}, "dataset": 3}, "'dataset' is 3; expected text"),
        ("metrics.json", [], r"holds \[\]; expected a table"),
        ("metrics.json", {"auc": 3}, "field 'auc' is 3; expected a table"),
        ("metrics.json", {"auc": {}}, "field 'auc.value' is missing"),
        ("metrics.json", {"auc": {"value": "x"}}, "field 'auc.value' is 'x'; expected a number"),
        ("tables/scores.csv", '"', "cannot be read as a table"),
    ],
)
def test_a_damaged_result_of_a_run_is_named(name, content, message, tmp_path):
    from deepfake_nb.core.errors import ReportError
    from deepfake_nb.runs.collect import collect_runs, run_numbers

    folder = tmp_path / "kun/synthetic-faces-smoke-0123456789"
    record = {"paper": "kun", "dataset": "synthetic-faces", "profile": "smoke", "seed": 0}
    metrics = {"auc": {"value": 0.5, "low": None}}
    files = {"provenance.json": record | {"parameters": {}}, "metrics.json": metrics}
    files |= {"tables/scores.csv": "model,AUC\nlinear,.5\n"}
    for given in (files, files | {name: content}):
        texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in given.items()}
        plant(folder, files=texts)
        if given is files:
            assert run_numbers(collect_runs(tmp_path))["value"].tolist() == [0.5]
    with pytest.raises(ReportError, match=f"{name}: .*{message}"):
        run_numbers(collect_runs(tmp_path))


def test_a_damaged_record_of_an_extraction_is_named(tmp_path):
    from deepfake_nb.core.errors import FaceError
    from deepfake_nb.faces.extraction import Extraction
    from deepfake_nb.faces.folder import ExtractionFolder

    plant(tmp_path, files={"extraction.json": "[]"})
    with pytest.raises(FaceError, match=r"extraction.json: holds \[\]; expected a table"):
        ExtractionFolder(tmp_path, Extraction()).prepare()
