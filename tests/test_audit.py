"""An audit finds each planted leak, and none in sound data; datasets are added from outside."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from planted import isolated, plant  # noqa: F401

from deepfake_nb.cli.commands import main
from deepfake_nb.data.datasets import load_samples
from deepfake_nb.data.manifests import list_datasets
from deepfake_nb.data.samples import make_samples
from deepfake_nb.data.splits import split_samples
from deepfake_nb.studies.audit_report import Audit, audit_dataset, write_audit


def failed(audit: Audit) -> dict:
    return {finding.check: finding for finding in audit.findings if finding.verdict == "fail"}


# Planted causes of embedded data; seeds are not those that the margins were tried on


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("embedded")


@pytest.fixture
def embedded(cache, monkeypatch):
    """Return a function that renders faces with a planted cause, once a module."""
    monkeypatch.setenv("DEEPFAKE_NB_CACHE", str(cache))

    def render(planted: str | None) -> pd.DataFrame:
        options = {"identities": 24, "videos": 1 + (planted == "lighting"), "frames": 3, "seed": 5}
        return load_samples("synthetic-faces", planted=planted, progress=False, **options)

    return render


PLANTED = {
    "identity": "people are shown real and fake",
    "lighting": "side_light does not tell the classes apart",
    "few-frames": "every fake differs from its original",
    "resized": "border_energy does not tell the classes apart",
    "re-encoded": "border_energy does not tell the classes apart",
}


@pytest.mark.slow
@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_cause_is_found(planted, embedded):
    finding = failed(audit_dataset(embedded(planted)))[PLANTED[planted]]
    assert finding.effect.low <= finding.effect.value <= finding.effect.high
    assert finding.effect.low > 0.5 or finding.effect.high < 0.5 or planted == "few-frames"
    assert len(finding.rows) > 20


@pytest.mark.slow
def test_sound_embedded_data_pass(embedded):
    samples, _ = split_samples(embedded(None), {"train": 0.6, "test": 0.4})
    audit = audit_dataset(samples)
    assert failed(audit) == {}
    assert (audit.table["verdict"] == "pass").sum() >= 13


def _move(samples: pd.DataFrame, folder: Path) -> pd.DataFrame:
    "Put one fake into the other split, away from its person and its original."
    first = samples.index[(samples["split"] == "test") & (samples["label"] == 1)][0]
    return samples.assign(split=samples["split"].mask(samples.index == first, "train"))


def _copy(samples: pd.DataFrame, folder: Path) -> pd.DataFrame:
    "Let validation be the test images once more."
    again = samples[samples["split"] == "test"].copy()
    names = [f"{number}{Path(path).suffix}" for number, path in enumerate(again["path"])]
    again["path"] = [
        str(shutil.copy(path, folder / name)) for path, name in zip(again["path"], names)
    ]
    both = [samples, again.assign(split="validation")]
    return make_samples(pd.concat(both, ignore_index=True))


def _save(samples: pd.DataFrame, folder: Path, change) -> pd.DataFrame:
    "Write each image anew; `change` sees the fakes."
    samples = samples.copy()
    for row, path in samples["path"].items():
        image = Image.open(path).convert("RGB")
        image = change(image) if samples.loc[row, "label"] else image
        samples.loc[row, "path"] = str(folder / f"{row}.png")
        image.save(samples.loc[row, "path"])
    return samples


LEAKS = {
    "person": (_move, "no person, in either part, in two splits"),
    "original": (_move, "no original, in two splits"),
    "test is validation": (_copy, "no file is in two splits"),
    "one source": (
        lambda s, f: s.assign(source=s["source"].mask(s["label"] == 1, "id99")),
        "fakes show the faces of many people",
    ),
    "class absent": (
        lambda s, f: s[(s["split"] == "train") | (s["label"] == 1)].reset_index(drop=True),
        "both classes in each split",
    ),
    "dimensions": (
        lambda s, f: _save(s, f, lambda image: image.resize((112, 128))),
        "width does not tell the classes apart",
    ),
    "colour": (
        lambda s, f: _save(s, f, lambda image: image.point(lambda value: value // 2)),
        "mean_red does not tell the classes apart",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_planted_in_embedded_data_is_found(leak, embedded, tmp_path):
    samples, _ = split_samples(embedded(None), {"train": 0.6, "test": 0.4})
    plant_leak, check = LEAKS[leak]
    planted = plant_leak(samples, tmp_path)
    assert check not in failed(audit_dataset(samples))
    assert len(failed(audit_dataset(planted))[check].rows) > 0


# What is planted by hand, in small made images


@pytest.fixture
def made(tmp_path):
    """Return a sound table of 24 people with a real image and two fakes each, split by people."""
    rng, rows = np.random.default_rng(1), []
    for person in range(24):
        image = rng.integers(40, 216, (4, 4, 3)).astype(np.uint8)
        image = np.asarray(Image.fromarray(image).resize((80, 80), Image.Resampling.BICUBIC))
        for number in range(3):
            face = image.copy()
            if number:
                y = 24 if number == 1 else 44
                face[y : y + 12, 28:52] = rng.integers(0, 256, 3)
            path = tmp_path / f"{person:02d}_{number}.bmp"
            Image.fromarray(face).save(path)
            row = {"path": str(path), "kind": "image", "label": int(number > 0), "dataset": "made"}
            row |= {"identity": f"p{person:02d}", "original": f"v{person:02d}", "frame": 0}
            row["video"] = f"v{person:02d}/{number}"
            if number:
                row["source"] = f"p{(person // 4 * 4 + (person + number) % 4):02d}"
            row["split"] = "test" if person >= 16 else "train"
            rows.append(row)
    return make_samples(rows)


def test_sound_data_pass(made):
    assert failed(audit_dataset(made)) == {}


def test_people_in_two_splits_are_found_as_targets_and_as_sources(made):
    made.loc[made["identity"] == "p23", "split"] = "train"
    found = failed(audit_dataset(made))
    assert "no person, as source of a swap, in two splits" in found
    finding = found["no person, in either part, in two splits"]
    assert finding.effect.value == 3 / 8  # p23, and the sources p20 and p21 of its fakes
    made.loc[made["video"] == "v00/1", "split"] = "test"
    finding = failed(audit_dataset(made))["no original, in two splits"]
    assert made.loc[list(finding.rows), "original"].unique().tolist() == ["v00"]


def test_one_source_of_all_fakes_is_found(made):
    made.loc[made["label"] == 1, "source"] = "p99"
    finding = failed(audit_dataset(made))["fakes show the faces of many people"]
    assert finding.effect.value == 1
    assert len(finding.rows) == 48


def test_a_copy_in_another_split_is_found_and_test_that_is_validation(made, tmp_path):
    tests = made[made["split"] == "test"].copy()
    for row, path in tests["path"].items():
        tests.loc[row, "path"] = str(shutil.copy(path, tmp_path / f"copy_{Path(path).name}"))
    both = pd.concat([made, tests.assign(split="validation")], ignore_index=True)
    found = failed(audit_dataset(make_samples(both)))
    finding = found["no file is in two splits"]
    assert len(finding.rows) == 48
    assert "; test is validation" in finding.said
    assert "hardly any near-duplicates in two splits" in found


def test_a_near_duplicate_in_another_split_is_found(made, tmp_path):
    for person in (0, 1, 2):
        image = Image.open(tmp_path / f"{person:02d}_0.bmp").resize((64, 64))
        image.save(tmp_path / f"{person + 20:02d}_0.bmp")
    finding = failed(audit_dataset(made))["hardly any near-duplicates in two splits"]
    assert {Path(path).stem for path in made.loc[list(finding.rows), "path"]} >= {"00_0", "20_0"}


def test_exchanged_labels_are_found(made):
    for person in (3, 9, 17):
        rows = made.index[made["original"] == f"v{person:02d}"][:2]
        made.loc[rows, "label"] = np.array([1, 0], "int8")
        made.loc[rows, "source"] = [made.loc[rows[1], "source"], pd.NA]
    name = "no real image is further from its fakes than they are from one another"
    finding = failed(audit_dataset(made))[name]
    assert made.loc[list(finding.rows), "original"].tolist() == ["v03", "v09", "v17"]


@pytest.mark.parametrize(
    ("feature", "save"),
    [
        ("subsampling", lambda image, fake: {"quality": 90, "subsampling": 2 * fake}),
        ("quantisation_table", lambda image, fake: {"quality": 90 - fake, "subsampling": 0}),
        ("progressive", lambda image, fake: {"quality": 90, "progressive": bool(fake)}),
    ],
)
def test_a_property_of_jpeg_files_is_found(feature, save, made):
    for row, path in made["path"].items():
        image, file = Image.open(path), Path(path).with_suffix(".jpg")
        image.save(file, **save(image, int(made.loc[row, "label"])))
        made.loc[row, "path"] = str(file)
    finding = failed(audit_dataset(made))[f"{feature} does not tell the classes apart"]
    assert max(finding.effect.value, 1 - finding.effect.value) == 1
    assert len(finding.rows) == len(made)


@pytest.mark.parametrize(
    ("feature", "change"),
    [
        ("width", lambda image: image.resize((72, 80))),
        ("height", lambda image: image.resize((80, 88))),
        ("mean_red", lambda image: Image.merge("RGB", (image.getchannel(1), *image.split()[1:]))),
        ("file_size", lambda image: image.convert("L")),
    ],
)
def test_size_dimensions_and_colour_are_found(feature, change, made):
    for row, path in made["path"].items():
        pixels = np.asarray(Image.open(path)).copy()
        pixels[..., 0] = 40 + pixels[..., 0] // 4
        image = Image.fromarray(pixels)
        image = change(image) if made.loc[row, "label"] else image
        image.save(path)
    finding = failed(audit_dataset(made))[f"{feature} does not tell the classes apart"]
    effect = finding.effect
    assert effect.low <= effect.value <= effect.high
    assert effect.high < 0.3 or effect.low > 0.7
    assert len(finding.rows) > 0.7 * len(made)


def test_the_software_that_wrote_fakes_is_found(made):
    from PIL.PngImagePlugin import PngInfo

    mark = PngInfo()
    mark.add_text("Software", "FaceMaker 3")
    for row, path in made["path"].items():
        file = Path(path).with_suffix(".png")
        Image.open(path).save(file, pnginfo=mark if made.loc[row, "label"] else None)
        made.loc[row, "path"] = str(file)
    assert "software does not tell the classes apart" in failed(audit_dataset(made))


def test_a_background_of_each_class_is_found(made):
    rng = np.random.default_rng(2)
    pattern = rng.choice([-14, 14], (80, 80, 3))
    for row, path in made["path"].items():
        pixels = np.asarray(Image.open(path)).astype(int)
        sign = 1 if made.loc[row, "label"] else -1
        coarse = np.kron(pattern[::10, ::10], np.ones((10, 10, 1), int))
        Image.fromarray(np.clip(pixels + sign * coarse, 0, 255).astype(np.uint8)).save(path)
    finding = failed(audit_dataset(made))["the background does not tell the classes apart"]
    assert finding.effect.low > 0.55


def test_sound_encoder_and_duration_of_videos_are_found(tmp_path):
    import av

    rows = []
    for person in range(10):
        for label in (0, 1):
            path = tmp_path / f"{person}_{label}.mp4"
            options = {"fflags": "+bitexact"} if label else {}  # names no encoder
            with av.open(str(path), "w", options=options) as container:
                stream = container.add_stream("mpeg4", rate=10)
                stream.width = stream.height = 64
                sound = container.add_stream("aac", rate=16000) if label == 0 else None
                pixels = np.full((64, 64, 3), 40 + 15 * person, np.uint8)
                for _ in range(10 + 5 * label):
                    container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
                container.mux(stream.encode())
                if sound is not None:
                    samples = np.zeros((1, 16000), np.float32)
                    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                    frame.rate = 16000
                    container.mux(sound.encode(frame))
                    container.mux(sound.encode())
            row = {"path": str(path), "kind": "video", "label": label, "dataset": "made"}
            rows.append(row | {"identity": f"p{person}", "original": f"v{person}"})
    found = failed(audit_dataset(make_samples(rows)))
    for feature in ("sound", "duration", "encoder"):
        assert f"{feature} does not tell the classes apart" in found, feature


def test_properties_of_sounds_are_found(tmp_path):
    """Fakes are shorter, stop at 4 kHz and are coded otherwise."""
    import av

    rng, rows = np.random.default_rng(0), []
    for person in range(16):
        for label in (0, 1):
            rate = 16000 // (1 + label)
            path = tmp_path / f"{person}_{label}.{'ogg' if label else 'wav'}"
            with av.open(str(path), "w") as container:
                codec = "libopus" if label else "pcm_s16le"
                stream = container.add_stream(codec, rate=rate, layout="mono")
                samples = rng.normal(0, 9000, (1, rate - 2000 * label + 50 * person))
                samples = samples.clip(-32000, 32000).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
                frame.rate = rate
                container.mux(stream.encode(frame))
                container.mux(stream.encode())
            row = {"path": str(path), "kind": "sound", "label": label, "dataset": "made"}
            rows.append(row | {"identity": f"p{person}"})
    audit = audit_dataset(make_samples(rows))
    found = failed(audit)
    for feature in ("duration", "file_size", "codec", "encoder", "cutoff"):
        assert f"{feature} does not tell the classes apart" in found, feature
    checks = audit.table.set_index("check")
    assert checks.loc["every file can be read", "verdict"] == "pass"
    assert checks.loc["background", "found"] == "no images or videos"


def test_a_class_missing_from_a_split_or_of_another_kind_is_found(made):
    lacking = made[(made["split"] == "train") | (made["label"] == 1)].reset_index(drop=True)
    finding = failed(audit_dataset(lacking))["both classes in each split"]
    assert len(finding.rows) == 16
    assert "test: 0 real, 16 fake" in finding.said
    more = made.assign(identity=made["identity"].mask(made["label"] == 1))
    assert "the same is recorded of both classes" in failed(audit_dataset(more))


def test_a_damaged_file_is_a_finding_not_the_end(made):
    Path(made["path"][0]).write_bytes(b"no image")
    finding = failed(audit_dataset(made))["every file can be read"]
    assert finding.rows == (0,)
    assert "00_0.bmp" in finding.said or "identify" in finding.said


# The commands


def test_a_folder_is_added_and_audited(made, tmp_path, monkeypatch, capsys):
    for row in made.itertuples():
        target = tmp_path / "source" / ("fake" if row.label else "real") / Path(row.path).name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(row.path, target)
    source = str(tmp_path / "source")
    assert main(["data", "add", source, "--name", "mine", "--licence", "CC0"]) == 0
    printed = capsys.readouterr().out
    assert "mine: 72 files registered in" in printed
    assert "72 samples, " in printed
    assert "mine" in list_datasets()
    assert main(["data", "add", source, "--name", "mine"]) == 2
    assert "exists already" in capsys.readouterr().err
    status = main(["audit", "mine", "--json", "--page", str(tmp_path / "page.html")])
    content = json.loads(capsys.readouterr().out)
    assert (status, content["samples"]) == (int(not content["passed"]), 72)
    assert {"check", "verdict", "value", "low", "high", "files"} <= content["findings"][0].keys()
    assert "<h1>Audit of mine</h1>" in (tmp_path / "page.html").read_text()
    assert main(["audit", "mien"]) == 2
    assert "did you mean 'mine'" in capsys.readouterr().err


def test_lists_in_csv_and_json_are_added(made, tmp_path, capsys):
    made.drop(columns="dataset").to_csv(tmp_path / "list.csv", index=False)
    assert main(["data", "add", str(tmp_path / "list.csv"), "--name", "by-csv"]) == 0
    assert load_samples("by-csv")["identity"].tolist() == made["identity"].tolist()
    frames = {"real": ["00_0.bmp"], "fake": ["00_1.bmp", "00_2.bmp"]}
    bench = {k: {"test": {"0": {"label": k, "frames": v}}} for k, v in frames.items()}
    (tmp_path / "bench.json").write_text(json.dumps({"X": bench}))
    assert main(["data", "add", str(tmp_path / "bench.json"), "--name", "by-json"]) == 0
    assert load_samples("by-json")["label"].tolist() == [0, 1, 1]
    (tmp_path / "bench.yaml").touch()
    assert main(["data", "add", str(tmp_path / "bench.yaml"), "--name", "by-yaml"]) == 2
    assert "expected a folder, or a list" in capsys.readouterr().err


def test_names_of_files_are_escaped_in_the_page(made, tmp_path):
    made.loc[0, "path"] = str(Path(made["path"][0]).rename(tmp_path / "<script>.png"))
    made.loc[made["label"] == 1, "source"] = "<b>"
    page = write_audit(tmp_path / "page.html", audit_dataset(made)).read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;" in page


# Real data, as their README describes them


REAL_DATA = os.environ.get("DEEPFAKE_NB_DATA")


@pytest.fixture
def real_data():
    if not REAL_DATA or not Path(REAL_DATA).is_dir():
        pytest.skip("DEEPFAKE_NB_DATA names no folder with pieces of the real datasets")


@pytest.mark.slow
def test_uadfv_shows_one_source_in_all_fakes_and_smaller_fakes(real_data):
    found = failed(audit_dataset(load_samples("uadfv")))
    assert found["fakes show the faces of many people"].effect.value == 1
    assert "no person, as source of a swap, in two splits" in found
    size = found["file_size does not tell the classes apart"].effect
    assert size.low < 1 - 0.61 < size.high


@pytest.mark.slow
def test_nothing_but_content_tells_the_classes_of_real_and_fake_face_apart(real_data):
    audit = audit_dataset(load_samples("real-and-fake-face"))
    assert failed(audit) == {}


@pytest.mark.slow
def test_fake_sounds_are_shorter(real_data):
    audit = audit_dataset(load_samples("fake-or-real"))
    found = failed(audit)
    assert "every file can be read" not in found
    duration = found["duration does not tell the classes apart"]
    assert duration.effect.high < 0.45
    assert duration.said == "typical values: real 2.801, fake 1.812"
