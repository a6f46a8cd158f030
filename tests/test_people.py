"""What users bring to `predict` and `train`: several people, odd names, full disks, wrong words.

Every face is scored or counted, every file is accounted for, and no score is lost.
"""

import errno
import io
import json
import os
import re
import subprocess
import sys
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import av
import cv2
import keras
import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from deepfake_nb.cli import main
from deepfake_nb.core.errors import DetectorError, ParameterError, SampleError
from deepfake_nb.data.samples import make_samples
from deepfake_nb.detectors import commands, prediction
from deepfake_nb.detectors.calibration import Calibration
from deepfake_nb.detectors.card import (
    INTENDED_USE,
    OUT_OF_SCOPE,
    card_warnings,
    detector_numbers,
    package_versions,
)
from deepfake_nb.detectors.commands import predict_command
from deepfake_nb.detectors.detector import DeepfakeDetector
from deepfake_nb.detectors.journal import Journal
from deepfake_nb.detectors.page import ADVICE, error_rates, write_page
from deepfake_nb.detectors.prediction import predict_files
from deepfake_nb.detectors.preprocessing import Preprocessing, prepare_images
from deepfake_nb.detectors.results import SIDE_TEXTS, TABLE_COLUMNS
from deepfake_nb.detectors.scoring import CalibratedModel
from deepfake_nb.detectors.storage import load_detector, write_detector
from deepfake_nb.detectors.training import train_detector
from deepfake_nb.faces.dataset import extract_faces
from deepfake_nb.faces.extraction import Extraction
from deepfake_nb.models.weights import Weights
from deepfake_nb.synthetic.people import make_identity, trajectory
from deepfake_nb.synthetic.rendering import render_frame
from deepfake_nb.training.loaders import ImageBatches

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "nbs" / "book"))
import browser  # noqa: E402

pytestmark = pytest.mark.slow  # all share an untrained detector


def portrait(number: int, frame: int = 12) -> np.ndarray:
    return render_frame(make_identity(number), trajectory(number, 30)[frame], 256).image


def crowd(*numbers: int, far: int = 0, frame: int = 12) -> np.ndarray:
    """People side by side, and others whose faces have 30 pixels, two above each other."""
    shown = [portrait(number, frame) for number in numbers]
    small = cv2.resize(portrait(0, frame), (80, 80), interpolation=cv2.INTER_AREA)
    for column in range((far + 1) // 2):
        place = np.full((256, 95, 3), 90, np.uint8)
        for top in (30, 150)[: far - 2 * column]:
            place[top : top + 80, 8:88] = small
        shown.append(place)
    return np.hstack(shown)


def film(path: Path, *frames: np.ndarray) -> Path:
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5, options={"qscale": "2"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def detector() -> DeepfakeDetector:
    """Not trained, but calibrated and with a card."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    network = keras.Sequential(
        [
            layers.Input((32, 32, 3)),
            layers.Conv2D(4, 3, 2, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    y_true, p = np.repeat([0, 1], 100), np.r_[np.linspace(0, 0.72, 100), np.linspace(0.3, 1, 100)]
    card = {
        "name": "not trained",
        "description": "",
        "made": "today",
        "intended_use": INTENDED_USE,
        "out_of_scope": OUT_OF_SCOPE,
        "data": {
            "datasets": ["none"],
            "files": 0,
            "sha256": "",
            "research_only": True,
            "counts": {},
            "terms": {},
        },
        "split": "none",
        "decision": {
            "rule": "",
            "calibration": "",
            "band_rule": "",
            "threshold": 0.5,
            "band": [0.3, 0.7],
        },
        "meaning": {"images": "Nothing."},
        "numbers": {"images": detector_numbers(y_true, p, 0.5, (0.3, 0.7), n_resamples=0)},
        "groups": [],
        "preprocessing": {},
        "training": {},
        "versions": package_versions(),
    }
    preprocessing = Preprocessing(size=(32, 32), face_detector="haar")
    curve = Calibration("platt", logit=True, slope=9.0)
    return DeepfakeDetector(network, preprocessing, curve, 0.5, (0.3, 0.7), card=card)


@pytest.fixture(scope="module")
def folder(detector, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("detector") / "untrained"
    write_detector(place, detector, detector.card)
    return place


def predict(folder: Path, out: Path, *words: str | Path) -> int:
    return main(["predict", *map(str, words), "--model", str(folder), "--out", str(out)])


# People.


def test_every_face_is_scored_or_counted(detector, tmp_path):
    Image.fromarray(crowd(0, far=6)).save(tmp_path / "seven.png")
    Image.fromarray(crowd(0)).save(tmp_path / "one.png")
    seven, one = (detector.predict(tmp_path / name) for name in ("seven.png", "one.png"))
    assert seven.note == "1 of 7 faces scored, 6 too small"
    assert (one.note, len(one.people)) == ("", 1)
    rows = seven.frames
    assert rows["person"].notna().sum() == 1 and len(rows) == 7
    assert rows["reason"].str.startswith("too small: 2").sum() == 6
    assert rows["left"].notna().all()


def test_each_person_gets_the_score_they_would_have_alone(detector):
    both, left, right = (detector.predict(crowd(*numbers)) for numbers in ((0, 1), (0,), (1,)))
    by_place = sorted(both.people, key=lambda person: person.rows[0]["left"])
    for person, alone in zip(by_place, (left, right)):
        assert person.score == pytest.approx(alone.score, abs=2e-3)  # the border shows through
    assert by_place[0].score != by_place[1].score
    assert both.probability == max(person.probability for person in both.people)


def test_a_limit_on_people_is_stated(detector):
    result = detector.predict(crowd(0, 1, 2), people=2)
    assert len(result.people) == 2
    assert result.note == "2 of 3 faces scored, 1 left out (too many; --people scores more)"
    with pytest.raises(ParameterError, match="people=0: expected at least 1"):
        detector.predict(crowd(0), people=0)


def test_people_are_followed_through_a_video(detector, folder, tmp_path):
    frames = [crowd(0, 1, frame=frame) for frame in range(10)]
    frames[4] = np.full_like(frames[4], 90)
    path = film(tmp_path / "two.mp4", *frames)
    result = detector.predict(path)
    assert [len(person.rows) for person in result.people] == [9, 9]
    for person in result.people:
        centres = [row["left"] + row["right"] for row in person.rows]
        assert np.ptp(centres) < 100  # one side of the picture
    assert result.n_frames == 10 and (result.frames["reason"] == "no face found").sum() == 1
    assert predict(folder, tmp_path / "out", path) == 0
    table = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert table["person"].tolist() == [1, 2]
    assert table["frames_with_a_face"].tolist() == [9, 9]
    frames = pd.read_csv(tmp_path / "out" / "frames.csv")
    mean = frames.groupby("person")["probability"].mean()
    np.testing.assert_allclose(table["probability"], mean, atol=1e-12)


def test_a_face_that_flashes_up_does_not_speak_for_a_video(detector):
    result = detector.predict(crowd(0, 1))
    result.people[0].rows *= 10
    result.people[0].probability, result.people[1].probability = 0.2, 0.9
    assert result.probability == 0.2


def test_stress_abstains_where_the_side_flips(detector, tmp_path):
    image = crowd(0)
    plain, stressed = detector.predict(image), detector.predict(image, stress=True)
    assert stressed.score == plain.score
    low, high = stressed.person.span
    assert low < high
    between = replace(detector, band=((low + high) / 2,) * 2)
    assert between.predict(image).side in ("above", "below")
    flipped = between.predict(image, stress=True)
    assert flipped.side == "abstains" and flipped.person.flips
    assert flipped.table["reason"][0].startswith("the result changes if ")
    text = write_page(tmp_path / "page.html", [flipped], between).read_text()
    assert text.count("ndecided</strong>, the result changes if ") == 1
    assert "What was found:</strong> one face, undecided, the result changes if " in text


def test_a_side_too_long_for_jpeg_costs_one_row(detector):
    result = detector.predict(np.zeros((8, 70_000, 3), np.uint8), crops=True, stress=True)
    assert result.state == "unreadable" and result.reason.startswith("cannot be prepared: ")


def test_an_unforeseen_fault_of_preparation_costs_one_row(folder, four, tmp_path, monkeypatch):
    Image.fromarray(crowd(0, 1)).save(four / "both.png")

    def fragile(images, preprocessing):
        if len(images) == 2:
            raise RuntimeError("no such colour")
        return prepare_images(images, preprocessing)

    monkeypatch.setattr("deepfake_nb.detectors.prediction.prepare_images", fragile)
    assert predict(folder, tmp_path / "out", four) == 1
    table = pd.read_csv(tmp_path / "out" / "scores.csv").set_index("state")
    assert table.loc["unreadable", "reason"] == "cannot be prepared: RuntimeError: no such colour"
    assert len(table.loc["scored"]) == 4 and table["pixels_sha256"].notna().all()


def test_a_remark_is_said_with_every_person(folder, tmp_path, capsys):
    """In each row of the tables; once for the file in the terminal and on the page."""
    shown, file = crowd(0, 1), tmp_path / "in" / "two.png"
    file.parent.mkdir()
    alpha = np.full((*shown.shape[:2], 1), 255, np.uint8)
    alpha[:4, :4] = 0
    Image.fromarray(np.concatenate([shown, alpha], 2)).save(file)
    remark = "transparent pixels composited on white"
    assert predict(folder, tmp_path / "out", file.parent) == 0
    assert capsys.readouterr().out.count(f" [{remark}]") == 1
    table = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert table["person"].tolist() == [1, 2] and table["remark"].tolist() == [remark] * 2
    assert (tmp_path / "out" / "index.html").read_text().count(f"{remark[1:]}.") == 1
    assert predict(folder, tmp_path / "out", file.parent, "--json") == 0
    rows = json.loads(capsys.readouterr().out)["files"]
    assert [row["remark"] for row in rows] == [remark] * 2


# The page.

needs_browser = pytest.mark.skipif(browser.find_browser() is None, reason="no Chromium")


@pytest.fixture(scope="module")
def page(detector, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("page")
    long_name = place / f"{'a_long_name_' * 8}.png"
    Image.fromarray(crowd(0, 1, far=1)).save(long_name)
    film(place / "film.mp4", *[crowd(2, frame=frame) for frame in range(5)])
    Image.new("RGB", (200, 100)).save(place / "wall.png")
    return write_page(place / "index.html", detector.predict(place, maps=4), detector)


def test_the_page_answers_first(page, detector):
    text = page.read_text()
    head = text[text.index("<h1>") : text.index('<h2 id="table">')]
    looked, found, worth = (
        head.index(f"What {what}:") for what in ("was looked at", "was found", "that is worth")
    )
    assert looked < found < worth
    assert "2 images and 1 video. 2 of 3 files scored; 1 without a detected face." in head
    assert "3 faces: " in head
    assert "Of a video it is the mean over the frames, and no more than a rating." in text
    assert "of 100 real images it wrongly flags about 3, of 100 fake ones it misses about 0" in head
    assert "A real file with 2 faces is flagged in up to 6 of 100 cases" in head
    assert text.index("<details") > text.index('id="files"')
    assert all(head.index(line) > worth for line in OUT_OF_SCOPE)
    assert error_rates({}) == "nobody has tested it"


def test_the_page_needs_no_statistics_to_be_read(page):
    """The terms are in the parts that can be unfolded, where every metric has its own."""
    text = page.read_text()
    body = re.sub('data:image[^"]*', "", text[text.index("<body>") : text.index("<script>")])
    folded = re.findall("<details.*?</details>", body, re.S)
    said = re.sub("<details.*?</details>", "", body, flags=re.S)
    said = re.sub(r'<[^>]*?((?:aria-label|alt)="[^"]*")?[^>]*>', r" \1 ", said).lower()
    jargon = (
        "calibrat conformal band auc eer brier fpr tpr threshold validation classifier distance"
    )
    for term in [*jargon.split(), "false positive", "confidence", "group", "occlusion", "backbone"]:
        assert not re.search(rf"\b{term}", said), term
    for term in ("calibration", "band", "threshold", "AUC", "EER", "TPR at 1 % FPR", "Brier score"):
        assert sum(part.count(f"({term})") for part in folded) == 1, term


@pytest.mark.parametrize("side", SIDE_TEXTS)
def test_the_page_says_what_to_do(detector, tmp_path, side):
    """For each result that occurs, and for no other; in the words of the terminal."""
    result = detector.predict(crowd(0))
    result.person.side = side
    text = write_page(tmp_path / "page.html", [result], detector).read_text()
    passed_on = ["passed on by mail or messenger"] * (side != "abstains")
    told = [words for words, advice in ADVICE.items() if advice in text]
    assert told == [SIDE_TEXTS[side], *passed_on]
    assert f"{SIDE_TEXTS[side].capitalize()}:</strong> {ADVICE[SIDE_TEXTS[side]]}" in text
    assert f"<strong>{SIDE_TEXTS[side].capitalize()}</strong>: probability" in text
    assert f", {SIDE_TEXTS[side]}" in commands._lines(result, detector.band)[0]
    assert str(result).endswith(f", {SIDE_TEXTS[side]} ({result.warning})")
    missed = detector.predict(np.zeros((100, 200, 3), np.uint8))
    both = write_page(tmp_path / "page.html", [result, missed], detector).read_text()
    asked = [words for words, advice in ADVICE.items() if advice in both]
    assert asked == [SIDE_TEXTS[side], "not scored", *passed_on]
    result.person.stressed = {"JPEG": [result.probability]}
    tried = write_page(tmp_path / "page.html", [result], detector).read_text()
    assert ADVICE["passed on by mail or messenger"] not in tried
    about = detector.card["data"] | {"rendered": True}
    rendered = replace(detector, card=detector.card | {"data": about})
    other = write_page(tmp_path / "page.html", [result], rendered).read_text()
    assert "ignore every result below" in other and not any(a in other for a in ADVICE.values())
    assert both.index('id="limits"') < both.index("<table") and "<table id" not in text


def test_the_page_states_the_rates_of_the_kinds_it_shows():
    names = "AUC", "reals above the band", "fakes below the band", "abstains"

    def rows(*values):
        return [{"metric": m, "value": v, "n": 9} for m, v in zip(names, values, strict=True)]

    numbers = {"images": rows(0.9, 0.05, 0.04, 0.4), "videos": rows(0.9, 0.02, 0.01, 0.97)}
    card = {"numbers": numbers, "data": {}}
    images, both = (error_rates(card, kinds=k) for k in (("image",), ("image", "video")))
    assert "100 real images" in images and "videos" not in images and "almost" not in images
    assert "100 real images" in both and "100 real videos it wrongly flags about 2" in both
    assert "decides almost nothing" in both


def test_a_phone_shows_the_side(page):
    text = page.read_text()
    head = text[text.index("<thead>") : text.index("</thead>")]
    assert '<th><button type="button">result' in head
    assert '<th class="number"><button type="button">person' in head  # a file has two people


def test_several_results_print_a_line_each(detector):
    results = detector.predict([crowd(0), crowd(1)])
    assert str(results).splitlines() == [str(result) for result in results]


def test_the_page_boxes_every_face(page):
    text = page.read_text()
    pictures = text.split('<figure class="picture">')[1:]
    assert [picture.count('<rect class="under"') for picture in pictures] == [3, 1]
    assert pictures[0].count("stroke-dasharray") == 1  # the one that is too small
    assert "2 of 3 faces scored, 1 too small" in text


def test_a_map_that_contradicts_the_score_is_named(detector, tmp_path):
    result = detector.predict(crowd(0))
    result.person.side, result.person.changed_share = "above", 0.0
    words = "t flags the face, but marks less than 1% of it as changed"
    text = write_page(tmp_path / "page.html", [result], detector).read_text()
    assert "On 1 face the detector contradicts itself." in text
    twice = write_page(tmp_path / "page.html", [result, result], detector).read_text()
    assert twice.count("flagged; contradicts itself</td>") == 2
    assert f"I{words}. At least one of the two is wrong." in text
    assert words in result.table["reason"][0]
    assert words in commands._lines(result, detector.band)[0]


def test_a_map_without_effect_says_so(detector, tmp_path):
    flat = keras.models.clone_model(detector.model)
    weights = detector.model.get_weights()
    flat.set_weights([*weights[:2], weights[2] / 1000, weights[3]])
    result = replace(detector, model=flat).predict(crowd(0), maps=1)
    text = write_page(tmp_path / "page.html", [result], detector).read_text()
    assert "What the result rests on: no single part." in text


@needs_browser
def test_the_page_holds_up_in_a_browser(page):
    with browser.Browser() as b:
        for width, dark in ((1280, False), (390, False), (1280, True)):
            b.open(page.as_uri(), width, 900, dark)
            assert b.faults() == []
            clipped = (
                "[...document.querySelectorAll('main *')]"
                ".filter(e => e.getBoundingClientRect().right > innerWidth + 1).length"
            )
            assert b.run(clipped) == 0, width
        sort = (
            "(() => {document.querySelectorAll('#rows th button')[2].click();"
            "return [...document.querySelectorAll('#rows tbody tr')]"
            ".map(row => row.cells[2]?.textContent.trim() ?? '')})()"
        )
        down, up = b.run(sort), b.run(sort)
        assert down[-1] == up[-1] == ""  # what was not scored stays at the end
        assert down[:-1] == sorted(down[:-1], reverse=True) and up[:-1] == down[:-1][::-1]
        opened = "dispatchEvent(new Event('beforeprint')), document.querySelector('details').open"
        assert b.run(opened) is True


# Names, tables and outputs.


def test_every_file_given_is_in_the_table(folder, tmp_path):
    inbox, elsewhere = tmp_path / "inbox", tmp_path / "elsewhere"
    inbox.mkdir()
    elsewhere.mkdir()
    Image.fromarray(crowd(0)).save(elsewhere / "face.png")
    (inbox / "linked").symlink_to(elsewhere)
    (inbox / "linked" / "circle").symlink_to(inbox)
    (inbox / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (inbox / "notes.txt").write_text("no image")
    (inbox / "again.png").symlink_to(elsewhere / "face.png")
    os.mkfifo(inbox / "pipe.png")
    assert predict(folder, tmp_path / "out", inbox) == 1  # the link to nothing was not scored
    table = pd.read_csv(tmp_path / "out" / "scores.csv").set_index("file")
    found = {Path(file).name: (row["state"], row["reason"]) for file, row in table.iterrows()}
    assert found["gone.jpg"] == ("unreadable", "a link to nothing")
    assert found["notes.txt"] == ("other", "neither an image nor a video, by its name")
    assert found["pipe.png"] == ("other", "neither a file nor a folder")
    assert sorted(state for state, _ in found.values()).count("scored") == 1
    assert {"face.png", "again.png"} <= set(found)  # one scored, the other the same file
    assert len(table) == 5


def test_a_folder_that_cannot_be_read_is_no_success(folder, tmp_path, monkeypatch):
    inbox, real = tmp_path / "inbox", os.scandir
    (inbox / "locked").mkdir(parents=True)
    Image.fromarray(crowd(0)).save(inbox / "face.png")

    def scandir(path="."):
        if Path(path).name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert predict(folder, tmp_path / "out", inbox) == 1
    table = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert table["reason"].tolist()[1] == "the folder cannot be read"


NAMES = [
    b"\xe9t\xe9.png",
    "👩‍🚀.png".encode(),
    b"carriage\rreturn.png",
    b"line\nfeed.png",
    b"=cmd|'calc'!A0.png",
    b"-1+1.png",
    b"@SUM(A1).png",
    "a\u202egpj.png".encode(),
    b"\x1b[31mred.png",
]


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_no_name_loses_a_prediction(folder, tmp_path, encoding):
    """Run in a folder, so that the names begin the paths."""
    inbox = tmp_path / "in"
    inbox.mkdir()
    Image.fromarray(crowd(0)).save(tmp_path / "face.png")
    for name in NAMES:
        (inbox / os.fsdecode(name)).write_bytes((tmp_path / "face.png").read_bytes())
    words = [os.fsdecode(name) for name in NAMES]
    code = "import sys; from deepfake_nb.cli import main; sys.exit(main())"
    options = ["--model", str(folder), "--out", str(tmp_path / "out"), "--maps", "0"]
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", *options, "--", *words],
        cwd=inbox,
        env=os.environ | {"PYTHONIOENCODING": encoding, "PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert b"9 of 9 files scored" in done.stdout
    assert b"\x1b" not in done.stdout and b"\r" not in done.stdout
    lines = (tmp_path / "out" / "scores.csv").read_bytes().decode().split("\n")
    assert len(lines) == 9 + 2 and not any("\r" in line for line in lines)
    assert not any(line.startswith(("=", "-", "+", "@", '"=')) for line in lines)
    table = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert table["file"].tolist()[4] == "./=cmd|'calc'!A0.png"
    assert table["file"].tolist()[0] == r"\xe9t\xe9.png"
    assert (table["state"] == "scored").all()
    assert r"\xe9t\xe9.png" in (tmp_path / "out" / "index.html").read_text()


def test_no_name_spoils_the_failures_of_an_extraction(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["=cmd|'calc'!A0.mp4", "carriage\rreturn.mp4"]
    for name in names:
        Path(name).write_text("no video")
    rows = [{"path": name, "video": name, "label": 0, "kind": "video"} for name in names]
    samples = make_samples([row | {"dataset": "mine"} for row in rows])
    settings = Extraction(face_detector="haar", n=1)
    extract_faces(samples, tmp_path / "out", settings, workers=0, progress=False)
    content = (tmp_path / "out" / "failures.csv").read_bytes().decode()
    assert len(content.split("\n")) == 4 and "\r" not in content
    failures = pd.read_csv(io.StringIO(content)).sort_values("video")
    assert failures["video"].tolist() == ["'=cmd|'calc'!A0.mp4", r"carriage\rreturn.mp4"]
    assert failures["source_path"].tolist() == ["./=cmd|'calc'!A0.mp4", r"carriage\rreturn.mp4"]


@pytest.mark.parametrize("name", ["index.html", "scores.csv", "frames.csv"])
def test_what_others_wrote_is_not_replaced(folder, tmp_path, name, capsys):
    Image.fromarray(crowd(0)).save(tmp_path / "face.png")
    site = tmp_path / "site"
    site.mkdir()
    (site / name).write_text("<h1>My site</h1>")
    assert predict(folder, site, tmp_path / "face.png") == 2
    assert f"{name} is not of a prediction" in capsys.readouterr().err
    assert [path.name for path in site.iterdir()] == [name]
    assert (site / name).read_text() == "<h1>My site</h1>"
    for _ in range(2):  # our own are replaced
        assert predict(folder, tmp_path / "out", tmp_path / "face.png") == 0


@pytest.fixture
def four(tmp_path) -> Path:
    inbox = tmp_path / "four"
    inbox.mkdir()
    for number in range(4):
        Image.fromarray(crowd(number)).save(inbox / f"{number}.png")
    return inbox


def test_of_many_files_the_most_suspect_are_shown_one_by_one(detector, four, tmp_path, monkeypatch):
    monkeypatch.setattr("deepfake_nb.detectors.page._MOST_DETAILED", 2)
    results = detector.predict(four)
    for result, (p, side) in zip(
        results, [(0.9, "abstains"), (0.2, "below"), (0.7, "above"), (0.3, "below")]
    ):
        for person in result.people:
            person.probability, person.side = p, side
    text = write_page(tmp_path / "page.html", results, detector).read_text()
    shown = re.findall(r'<article id="file-(\d)">', text)
    assert shown == ["1", "3"] == re.findall(r'href="#file-(\d)"', text)[:: len(results[0].people)]
    assert "2 of 4 files: those that are flagged, then" in text
    rows = text[text.index("<tbody>") : text.index("</tbody>")]
    assert rows.count("<tr>") == sum(len(result.people) for result in results)


def test_a_full_disk_loses_no_score(folder, four, tmp_path, monkeypatch, capsys):
    real, written = pd.DataFrame.to_csv, []

    def to_csv(table, file, **options):
        if str(file).endswith("scores.partial.csv"):
            written.append(len(table))
            if sum(written) == 3:
                raise OSError(errno.ENOSPC, "No space left on device", str(file))
        return real(table, file, **options)

    monkeypatch.setattr(pd.DataFrame, "to_csv", to_csv)
    monkeypatch.setattr("deepfake_nb.detectors.commands._EVERY", 0)
    assert predict(folder, tmp_path / "out", four) == 2
    said = capsys.readouterr()
    assert "no space left on device; 3 of 4 files are scored" in said.err
    assert "free some space" in said.err and "bug" not in said.err
    assert len(pd.read_csv(tmp_path / "out" / "scores.partial.csv")) == 2
    assert (
        said.out.count(": probability of a fake ") == 3
    )  # what the table could not take is printed
    monkeypatch.setattr(pd.DataFrame, "to_csv", real)
    assert predict(folder, tmp_path / "out", four) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "frames.csv",
        "index.html",
        "scores.csv",
    ]


def test_an_unforeseen_error_loses_no_score_either(folder, four, tmp_path, monkeypatch, capsys):
    """It comes with the second batch, and within the second in which the table is not written."""
    real, calls = CalibratedModel.look, []

    def look(*arguments):
        calls.append(1)
        if len(calls) == 3:  # the first scores the probe of the detector
            raise RuntimeError("unforeseen")
        return real(*arguments)

    for number in range(40):
        Image.fromarray(crowd(0)).save(four / f"a{number}.png")
    monkeypatch.setattr(CalibratedModel, "look", look)
    assert predict(folder, tmp_path / "out", four, "--crops") == 2
    assert len(pd.read_csv(tmp_path / "out" / "scores.partial.csv")) == 32
    said = capsys.readouterr().err
    assert "this is a bug" in said and "32 of 44 files are scored" in said


def test_a_page_that_cannot_be_written_leaves_the_tables(
    folder, four, tmp_path, monkeypatch, capsys
):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("deepfake_nb.detectors.commands.write_page", fail)
    assert predict(folder, tmp_path / "out", four) == 2
    assert "no space left on device; all scores are in" in capsys.readouterr().err
    assert len(pd.read_csv(tmp_path / "out" / "scores.csv")) == 4


def test_a_stopped_prediction_says_what_is_kept(folder, four, tmp_path, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("deepfake_nb.detectors.commands.add_occlusion", stop)
    assert predict(folder, tmp_path / "out", four) == 130
    monkeypatch.setattr("deepfake_nb.detectors.prediction.page_jpegs", stop)
    assert predict(folder, tmp_path / "other", four) == 130
    assert "scores.partial.csv" in capsys.readouterr().err


def test_a_killed_prediction_goes_on_where_it_stopped(folder, four, tmp_path, monkeypatch, capsys):
    """Killed while the fourth result is written; then one file that was scored changes."""
    film(four / "a.mp4", *[crowd(0, 1, frame=frame) for frame in range(4)])
    Image.new("RGB", (64, 64)).save(four / "b.png")
    (four / "c.png").write_bytes(b"no image")
    code = (
        "import os, sys\n"
        "from deepfake_nb.cli import main\n"
        "from deepfake_nb.detectors.journal import Journal\n"
        "real, added = Journal.add, []\n"
        "def add(journal, result):\n"
        "    added.append(result)\n"
        "    real(journal, result)\n"
        "    if len(added) == 4:\n"
        "        os.truncate(journal.file, os.path.getsize(journal.file) - 9)\n"
        "        os.kill(os.getpid(), 9)\n"
        "Journal.add = add\n"
        "main(sys.argv[1:])\n"
    )
    words = [four, "--model", folder, "--stress", "--maps", "2", "--out"]
    words = ["predict", *map(str, words)]
    command = [sys.executable, "-c", code, *words, str(tmp_path / "killed")]
    assert subprocess.run(command, capture_output=True).returncode == -9
    Image.fromarray(crowd(5)).save(four / "1.png")

    read, looked = prediction._read_file, []

    def read_file(source, *arguments):
        looked.append(source.name)
        return read(source, *arguments)

    monkeypatch.setattr(prediction, "_read_file", read_file)
    assert main([*words, str(tmp_path / "killed")]) == 1
    assert sorted(looked) == ["1.png", "3.png", "a.mp4", "b.png", "c.png"]
    assert "3 of 7 files were scored before" in capsys.readouterr().err
    assert main([*words, str(tmp_path / "whole")]) == 1
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "killed").iterdir()} == whole
    assert sorted(whole) == ["frames.csv", "index.html", "scores.csv"]


@pytest.mark.slow
def test_a_cluster_that_loses_its_worker_gives_the_same(folder, four, tmp_path, monkeypatch):
    """Paths are relative, and mean the same files on a worker that started elsewhere."""
    distributed = pytest.importorskip("distributed")
    film(four / "a.mp4", *[crowd(0, 1, frame=frame) for frame in range(4)])
    (four / "c.png").write_bytes(b"no image")
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster:
        first = cluster.workers[0].pid

        def kill(journal, result, add=Journal.add):
            if psutil.pid_exists(first):
                os.kill(first, 9)
            add(journal, result)

        monkeypatch.chdir(four)
        monkeypatch.setattr(Journal, "add", kill)
        scheduler = ["--scheduler", cluster.scheduler_address]
        assert predict(folder, tmp_path / "there", ".", "--stress", *scheduler) == 1
        assert not psutil.pid_exists(first)
    monkeypatch.undo()
    monkeypatch.chdir(four)
    assert predict(folder, tmp_path / "here", ".", "--stress") == 1
    here = {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "there").iterdir()} == here


class _Cluster:
    """A client of a cluster, each of whose workers dies of what it reads."""

    def __init__(self, versions: dict[str, str]):
        self.versions = versions

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self, _):
        return {"tcp://worker": self.versions}

    def nthreads(self):
        return {"tcp://worker": 1}

    def submit(self, *_, **__):
        from distributed import KilledWorker

        future = Future()
        future.set_exception(KilledWorker("read", None, 3))
        return future


def test_a_file_that_kills_workers_costs_one_row(folder, four, tmp_path, monkeypatch, capsys):
    pytest.importorskip("distributed")
    for module in (prediction, commands):
        monkeypatch.setattr(module, "connect_cluster", lambda _: _Cluster(package_versions()))
    assert predict(folder, tmp_path / "out", four / "1.png", "--scheduler", "tcp://x:1") == 1
    assert "the workers that read it died, one after the other" in capsys.readouterr().out


def test_a_worker_with_other_versions_is_refused(folder, four, tmp_path, monkeypatch, capsys):
    pytest.importorskip("distributed")
    other = package_versions() | {"av": "0.1"}
    for module in (prediction, commands):
        monkeypatch.setattr(module, "connect_cluster", lambda _: _Cluster(other))
    assert predict(folder, tmp_path / "out", four / "1.png", "--scheduler", "tcp://x:1") == 2
    assert "worker tcp://worker has other versions (av 0.1 there, " in capsys.readouterr().err


@pytest.mark.parametrize("place", ["a file", "below a file", "full"])
def test_the_output_is_tried_first(folder, four, tmp_path, place, monkeypatch, capsys):
    (tmp_path / "file").touch()
    out = tmp_path / {"a file": "file", "below a file": "file/out", "full": "out"}[place]
    if place == "full":
        full = OSError(errno.ENOSPC, "No space left on device")
        monkeypatch.setattr("tempfile.TemporaryFile", lambda **_: (_ for _ in ()).throw(full))
    monkeypatch.setattr("deepfake_nb.detectors.commands.stream_scores", lambda *_, **__: 1 / 0)
    with pytest.raises(DetectorError, match="cannot write to .*choose another folder"):
        predict_command([four], folder, out)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EMFILE, errno.EIO])
def test_an_error_of_the_system_is_no_bug(folder, four, tmp_path, code, monkeypatch, capsys):
    """One without a file's name, as of a temporary file, too."""

    def fail():
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("deepfake_nb.detectors.prediction.DiskStore", fail)
    assert predict(folder, tmp_path / "out", four) == 2
    said = capsys.readouterr().err
    assert os.strerror(code).lower() in said
    assert "bug" not in said and "Traceback" not in said


def test_one_name_for_each_number(detector, folder, four, tmp_path, capsys):
    (four / "notes.txt").write_text("no image")
    assert predict(folder, tmp_path / "out", four, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert [*document["files"][0]] == list(TABLE_COLUMNS)
    of_python = json.loads(detector.predict(four).to_json())
    for row in of_python["files"]:  # it is not saved, and so has no hash
        row["detector_sha256"] = document["files"][0]["detector_sha256"]
    assert of_python | {"page": document["page"]} == document
    assert predict(folder, tmp_path / "out", four) == 0
    assert capsys.readouterr().out.count(": probability of a fake 0.") == 4
    page = (tmp_path / "out" / "index.html").read_text()
    assert ">probability</button>" in page and page.count("; score 0.") == 4
    assert page.count(": probability of a fake 0.") == 4
    assert "probability of fake" not in page.lower()


def test_large_images_are_not_kept(detector, tmp_path):
    Image.fromarray(cv2.resize(crowd(0), (3000, 2000))).save(tmp_path / "large.jpg")
    (result,) = predict_files([tmp_path / "large.jpg"], detector, crops=True, progress=False)
    assert max(result.person.face.shape) == 448 and result.person.face.base is None
    assert result.person.aspect == 1.5
    page = write_page(tmp_path / "page.html", [result], detector).read_text()
    assert "aspect-ratio: 1.5000" in page


# Python.


def test_paths_arrays_and_images_of_pillow_get_one_score(detector, tmp_path):
    pixels = crowd(0)
    Image.fromarray(pixels).save(tmp_path / "face.png")
    sources = [tmp_path / "face.png", str(tmp_path / "face.png"), pixels, Image.fromarray(pixels)]
    results = [detector.predict(source) for source in sources]
    assert len({result.score for result in results}) == 1
    assert len({result.pixels_sha256 for result in results}) == 1
    together = detector.predict(sources[1:])
    assert [result.score for result in together] == pytest.approx([results[0].score] * 3, abs=1e-6)
    assert len(together.table) == 3 and "<h1>Results for 3 files" in together.to_html()
    assert json.loads(results[2].to_json())["files"][0]["file"] == "image 1"
    assert "srcdoc" in results[2]._repr_html_()


def test_an_image_of_pillow_is_seen_as_it_is_shown(detector, tmp_path):
    """Its EXIF data say that it lies on its side; it may be grey or transparent."""
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.rot90(crowd(0))).save(file, "PNG", exif=exif)
    assert detector.predict(Image.open(file)).score == detector.predict(crowd(0)).score
    for mode in ("L", "LA", "RGBA"):  # as an array, a file and an image of Pillow
        image = Image.fromarray(crowd(0)).convert(mode)
        if mode != "L":
            image.putalpha(99)
        image.save(tmp_path / "image.png")
        sources = [np.asarray(image), image, tmp_path / "image.png"]
        assert len({detector.predict(source).pixels_sha256 for source in sources}) == 1
    grey = Image.fromarray(np.full((64, 64), 65535, np.uint16))
    assert detector.predict(grey).remark == "scaled from 0–65535 to 8 bits"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "the source is of type NoneType: expected a path, an image, or several"),
        (5, "of type int"),
        ([5], "source 1 is of type int: expected a path or an image"),
        (np.zeros((8, 8, 3)), "array of float64 and shape .* scale fractions by 255"),
        (np.full((8, 8, 3), 200), "RGB; round its levels, and convert"),
        (np.full((8, 8, 3), 999.0), "scale its levels to 0 to 255 first"),
        (b"\xff\xd8", "the source is bytes"),
        (np.zeros((8, 8, 5), np.uint8), r"shape \(8, 8, 5\): expected uint8 of shape"),
        (np.zeros((2, 8, 8, 5), np.uint8), r"shape \(8, 8, 5\)"),
        ([], "the source is empty"),
        (
            Image.fromarray(np.ones((8, 8), np.float32) * 99),
            "image 1 cannot be decoded .its values",
        ),
    ],
)
def test_a_wrong_source_is_named(detector, source, message):
    with pytest.raises(ParameterError, match=message):
        detector.predict(source)


def test_swapped_arguments_are_named(detector):
    with pytest.raises(ParameterError, match="the paths come first, the detector second"):
        predict_files(detector, ["photo.jpg"])


def test_a_folder_is_no_sample_table():
    with pytest.raises(SampleError, match="'folder' is no table; expected a sample table"):
        ImageBatches("folder", "train")


# Commands and training.

EARLY = """
import sys
from deepfake_nb.cli import main
face, folder, out, site = sys.argv[1:]
for words in (
    ["train", "--out", out, "--head", "mobilnet"],
    ["train", "--out", out, "--profile", "quik"],
    ["train", "--out", out, "--face-detector", "mtcn"],
    ["train", "--out", out, "--dataset", "synthetic-face"],
    ["train", "--out", site],
    ["predict", face, "--model", out],
    ["predict", out, "--model", folder],
    ["predict", face, "--model", folder, "--out", site],
    ["predict", face, "--model", folder, "--out", face],
):
    assert main(words) == 2, words
    assert not {"tensorflow", "jax", "torch"} & set(sys.modules), words
"""


def test_a_wrong_word_is_refused_before_tensorflow_is_imported(folder, tmp_path):
    Image.fromarray(crowd(0)).save(tmp_path / "face.png")
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("<h1>My site</h1>")
    words = [tmp_path / "face.png", folder, tmp_path / "none", site]
    done = subprocess.run(
        [sys.executable, "-c", EARLY, *map(str, words)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "did you mean 'mobilenet'?" in done.stderr and "did you mean 'mtcnn'?" in done.stderr
    assert len(done.stderr.splitlines()) == 9  # a line each, and no chatter


@pytest.mark.parametrize("head", ["mobilenet", "localiser"])
def test_a_random_backbone_is_refused_unless_asked_for(tmp_path, monkeypatch, head):
    nothing = Weights("MobileNetV2-0.35", "none", note="auto: no server answers")
    monkeypatch.setattr("deepfake_nb.detectors.training.resolve_weights", lambda *_: nothing)
    train = {"dataset": "synthetic-faces-crude", "profile": "smoke", "progress": False}
    with pytest.raises(DetectorError, match="random weights, .*no server.*--random-backbone"):
        train_detector(tmp_path / "a", head=head, **train)
    assert not (tmp_path / "a").exists()
    monkeypatch.setattr("deepfake_nb.detectors.training.load_samples", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):  # it goes on
        train_detector(tmp_path / "a", head=head, random_backbone=True, **train)
    monkeypatch.undo()  # the weights that the package brings
    monkeypatch.setattr("deepfake_nb.detectors.training.load_samples", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_detector(tmp_path / "a", head=head, **train)


def test_a_card_says_why_scores_mean_nothing(detector):
    def titles(**changes) -> list[str]:
        return [title for title, _ in card_warnings(detector.card | changes)]

    assert titles() == ["Research only."]
    assert "Random backbone." in titles(training={"head": "mobilenet", "kind": "none"})
    assert "Random backbone." not in titles(training={"head": "mobilenet", "kind": "imagenet"})
    row = next(row for row in detector.card["numbers"]["images"] if row["metric"] == "AUC")
    for low, chance in ((0.49, True), (0.51, False), (None, False)):
        numbers = {"images": [row | {"low": low, "high": 0.9}]}
        assert ("No better than chance." in titles(numbers=numbers)) == chance


@pytest.mark.parametrize("head", ["spectrum", "convnet"])
def test_one_class_is_refused_before_training(head, tmp_path, monkeypatch):
    rows = []
    for number in range(12):
        path, split = tmp_path / f"{number}.png", ("train", "validation", "test")[number % 3]
        Image.fromarray(crowd(number)).save(path)
        row = {"path": path, "label": 0, "split": split, "identity": str(number)}
        rows.append(row | {"dataset": "mine", "kind": "image"})
    samples = make_samples(rows)
    monkeypatch.setattr("deepfake_nb.detectors.training.load_samples", lambda *_, **__: samples)
    options = {"face_detector": "haar", "profile": "smoke", "progress": False}
    with pytest.raises(DetectorError, match="the train split .* has 4 real and 0 fake images"):
        train_detector(tmp_path / "x", "synthetic-faces-crude", head, **options)


def test_a_detector_survives_a_training_that_is_killed_between_two_renames(folder, tmp_path):
    place = tmp_path / "mine"
    before = load_detector(folder)
    write_detector(place, before, before.card)
    sha256 = load_detector(place).sha256
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from deepfake_nb.detectors import storage\n"
        "d = storage.load_detector(sys.argv[1])\n"
        "real = os.replace\n"
        "def die(source, target):\n"
        "    if str(source).endswith('.partial'): os._exit(9)\n"
        "    real(source, target)\n"
        "storage.os.replace = die\n"
        "storage.write_detector(Path(sys.argv[1]), d, d.card)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(place)], capture_output=True)
    assert done.returncode == 9 and not place.exists()
    assert load_detector(place).sha256 == sha256
