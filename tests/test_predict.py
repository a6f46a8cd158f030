"Detectors and predictions: fed as in training, refused when anything is changed, the same bytes every time, every fault of a file said and counted, on either backend."

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from deepfake_nb.detectors.calibration import Calibration
from deepfake_nb.detectors.card import detector_numbers, probability_meaning
from deepfake_nb.detectors.page import page_jpegs
from deepfake_nb.detectors.prediction import _in_order, predict_command
from deepfake_nb.faces.extraction import extract_video
from deepfake_nb.models.classifiers import build_convnet, compile_model
from deepfake_nb.cli import main
from deepfake_nb.core.errors import DetectorError
from deepfake_nb.detectors.preprocessing import Preprocessing, model_inputs, prepare_images
from deepfake_nb.detectors.storage import load_detector, save_detector, score_samples
from deepfake_nb.detectors.training import train_detector
from deepfake_nb.core.images import read_image
from deepfake_nb.training.loaders import ImageBatches, in_table_order
from deepfake_nb.core.files import file_hash
from deepfake_nb.data.datasets import load_samples
from deepfake_nb.detectors.page import write_page
from deepfake_nb.detectors.prediction import predict_files, score_file
from deepfake_nb.data.samples import split_samples

pytestmark = (
    pytest.mark.slow
)  # nearly all share a detector that is trained, and faces that are rendered
PARTS = {"train": 0.5, "validation": 0.25, "test": 0.25}


@pytest.fixture(scope="module")
def faces() -> pd.DataFrame:
    return split_samples(
        load_samples("synthetic-faces-crude", identities=16, videos=1, frames=2), PARTS
    )[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    "A detector, trained in seconds."
    place = tmp_path_factory.mktemp("detector") / "convnet"
    train_detector(place, "synthetic-faces-crude", "convnet", "smoke", faces="haar", progress=False)
    return place


@pytest.fixture(scope="module")
def inbox(tmp_path_factory, faces) -> Path:
    "Pictures and a video that can be scored."
    place = tmp_path_factory.mktemp("inbox")
    films = load_samples("synthetic-dfdc", identities=4, frames=10, fps=2, quality="crude")
    shutil.copy(films["path"].iloc[0], place / "film.mp4")
    (place / "sub").mkdir()
    shutil.copy(faces["path"].iloc[0], place / "sub" / "face.jpg")
    Image.open(faces["path"].iloc[1]).save(place / "face.webp")
    return place


def rehash(folder: Path) -> None:
    "Make SHA256SUMS agree with what is there."
    names = [line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()]
    (folder / "SHA256SUMS").write_text(
        "".join(f"{file_hash(folder / name)}  {name}\n" for name in names)
    )


def tampered(folder: Path, tmp_path: Path, **changes) -> Path:
    "A copy with other settings and hashes that agree."
    copy = shutil.copytree(folder, tmp_path / "copy")
    settings = json.loads((copy / "detector.json").read_text())
    (copy / "detector.json").write_text(json.dumps(settings | changes))
    rehash(copy)
    return copy


# What goes in.


@pytest.mark.parametrize("scaling", ["unit", "tf", "caffe", "torch", "none"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "area"])
def test_a_model_is_fed_as_in_training(faces, scaling, interpolation):
    how = Preprocessing(
        size=(50, 70), scaling=scaling, interpolation=interpolation, detector="frame"
    )
    fed = model_inputs(prepare_images([read_image(p) for p in faces["path"][:6]], how), how)
    np.testing.assert_array_equal(
        fed,
        in_table_order(
            ImageBatches(faces[:6], None, (50, 70), 6, interpolation=interpolation, scaling=scaling)
        )[0][0],
    )


def test_a_lying_picture_is_scored_as_it_was_trained_on(tmp_path):
    "A JPEG of 80×40 that is to be turned: the same pixels from the loader, from the views, and in what `predict` scores."
    from deepfake_nb.core.images import read_image

    exif, file, seen = Image.Exif(), tmp_path / "phone.jpg", []
    exif[0x0112] = 6
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)).save(
        file, exif=exif
    )

    class FaceDetector:
        preprocessing, kind, min_points = (
            Preprocessing(size=(80, 40), detector="frame"),
            "classifier",
            0,
        )

        def score_with_maps(self, pictures, _):
            seen.append(pictures)
            return np.array([0.5]), None

        def calibration(self, score):
            return score

        def side(self, probability):
            return np.full(np.shape(probability), "above") if np.ndim(probability) else "above"

    assert score_file(file, FaceDetector()).state == "scored"
    assert seen[0].shape == (1, 80, 40, 3)
    np.testing.assert_array_equal(seen[0][0], read_image(file))
    np.testing.assert_array_equal(seen[0][0], read_image(str(file), 0))


def test_views_are_shown_before_resizing(faces):
    from deepfake_nb.forensics.view_datasets import view_samples

    how = Preprocessing(size=(40, 40), view="ela", view_options={"quality": 70}, detector="frame")
    viewed = view_samples(faces[:4], how.shown_by, progress=False).samples
    fed = model_inputs(prepare_images([read_image(p) for p in faces["path"][:4]], how), how)
    np.testing.assert_array_equal(
        fed, in_table_order(ImageBatches(viewed, None, (40, 40), 4, interpolation="bilinear"))[0][0]
    )


def test_crops_are_scored_as_the_training_data_was(folder, faces):
    detector = load_detector(folder)
    whole = [score_file(path, detector, crops=True).score for path in faces["path"][:3]]
    np.testing.assert_allclose(whole, score_samples(detector, faces[:3], progress=False), atol=1e-6)


def test_cut_faces_get_the_jpeg_of_the_training_data(folder, inbox):
    from dataclasses import replace

    detector = load_detector(folder)
    assert detector.preprocessing.jpeg == 90  # measured from the files
    without = replace(detector, preprocessing=replace(detector.preprocessing, jpeg=None))
    assert (
        score_file(inbox / "face.webp", detector).score
        != score_file(inbox / "face.webp", without).score
    )


def test_batches_of_any_size_give_the_same_scores(folder, faces):
    detector = load_detector(folder)
    pictures = prepare_images([read_image(p) for p in faces["path"][:11]], detector.preprocessing)
    for size in (1, 3, 32):
        np.testing.assert_allclose(
            detector.score(pictures, size), detector.score(pictures), atol=1e-6
        )
    assert detector.score(pictures[:0]).shape == (0,)


# What is kept.


@pytest.mark.parametrize("name", ["model.keras", "detector.json", "card.json", "card.md"])
def test_a_changed_byte_is_found_out(folder, tmp_path, name):
    copy = shutil.copytree(folder, tmp_path / "copy")
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(DetectorError, match=f"{name} is not the file that was saved"):
        load_detector(copy)
    (copy / name).unlink()
    with pytest.raises(DetectorError, match=f"{name} is missing"):
        load_detector(copy)


def test_the_sums_are_those_of_other_tools(folder):
    done = subprocess.run(
        ["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.count(": OK") == 4


def test_a_wrong_hash_is_refused(folder):
    with pytest.raises(DetectorError, match="it is another detector"):
        load_detector(folder, "0" * 64)
    assert load_detector(folder, load_detector(folder).sha256).sha256


@pytest.mark.parametrize(
    "line", ["", "abc", f"{'0' * 64}  ../../outside", f"{'0' * 64}  /etc/hostname"]
)
def test_damaged_sums_are_refused(folder, tmp_path, line):
    copy = shutil.copytree(folder, tmp_path / "copy")
    with open(copy / "SHA256SUMS", "a") as file:
        file.write(line + "\n")
    with pytest.raises(DetectorError, match="SHA256SUMS is damaged"):
        load_detector(copy)


def test_a_model_without_a_hash_is_refused(folder, tmp_path):
    copy = tampered(folder, tmp_path, model="other.keras")
    shutil.copy(copy / "model.keras", copy / "other.keras")
    with pytest.raises(DetectorError, match="'other.keras' is not in it"):
        load_detector(copy)


def test_a_corrupt_model_is_refused_even_if_its_hash_agrees(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "model.keras").write_bytes((copy / "model.keras").read_bytes()[:5000])
    rehash(copy)
    with pytest.raises(DetectorError, match="Keras cannot read it safely"):
        load_detector(copy)


def test_a_model_that_answers_otherwise_is_refused(folder, tmp_path):
    settings = json.loads((folder / "detector.json").read_text())
    versions = settings["versions"] | {"keras": "2.15.0"}
    with pytest.raises(DetectorError, match=r"does not answer as it did.*keras 2\.15\.0 then"):
        load_detector(
            tampered(
                folder, tmp_path, probe=[p + 0.01 for p in settings["probe"]], versions=versions
            )
        )


def test_other_preprocessing_is_found_out_by_the_answers(folder, tmp_path):
    settings = json.loads((folder / "detector.json").read_text())
    with pytest.raises(DetectorError, match="does not answer as it did"):
        load_detector(
            tampered(
                folder, tmp_path, preprocessing=settings["preprocessing"] | {"scaling": "none"}
            )
        )


def test_another_layout_is_refused(folder, tmp_path):
    with pytest.raises(DetectorError, match="its layout is version 99"):
        load_detector(tampered(folder, tmp_path, format=99))


def test_no_code_is_saved(faces, tmp_path):
    model = keras.Sequential(
        [
            keras.layers.Input((32, 32, 3)),
            keras.layers.Lambda(lambda x: x / 2),
            keras.layers.Flatten(),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    with pytest.raises(DetectorError, match="Lambda layers"):
        save_detector(
            tmp_path / "lambda",
            model,
            Preprocessing(size=(32, 32), detector="frame"),
            faces,
            n_resamples=0,
            progress=False,
        )
    assert not list(tmp_path.iterdir())


def test_a_detector_is_replaced_whole_or_not_at_all(folder, faces, tmp_path, monkeypatch):
    copy = shutil.copytree(folder, tmp_path / "copy")
    before, model = (
        load_detector(copy),
        keras.Sequential(
            [
                keras.layers.Input((32, 32, 3)),
                keras.layers.Flatten(),
                keras.layers.Dense(1, activation="sigmoid"),
            ]
        ),
    )
    how = Preprocessing(size=(32, 32), detector="frame")
    with monkeypatch.context() as patch:
        patch.setattr(detectors, "card_markdown", lambda card: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            save_detector(copy, model, how, faces, n_resamples=0, progress=False)
    assert load_detector(copy).sha256 == before.sha256 and [p.name for p in tmp_path.iterdir()] == [
        "copy"
    ]
    real_replace = os.replace
    with monkeypatch.context() as patch:
        patch.setattr(
            detectors.os,
            "replace",
            lambda a, b: 1 / 0 if str(a).endswith(".partial") else real_replace(a, b),
        )  # the old one is out of the way, the new one not yet there
        with pytest.raises(ZeroDivisionError):
            save_detector(copy, model, how, faces, n_resamples=0, progress=False)
    assert load_detector(copy).sha256 == before.sha256 and [p.name for p in tmp_path.iterdir()] == [
        "copy"
    ]
    assert (
        save_detector(copy, model, how, faces, n_resamples=0, progress=False).sha256
        != before.sha256
    )
    assert [p.name for p in tmp_path.iterdir()] == ["copy"]


def test_a_part_without_a_class_is_refused(faces, tmp_path):
    how, model = (
        Preprocessing(size=(32, 32), detector="frame"),
        build_convnet((32, 32, 3), filters=(4,)),
    )
    with pytest.raises(DetectorError, match="the test part has .* 0 fakes"):
        save_detector(
            tmp_path / "x",
            model,
            how,
            faces[(faces["split"] != "test") | (faces["label"] == 0)],
            progress=False,
        )


def test_the_optimizer_stays_behind(faces, tmp_path):
    model = compile_model(build_convnet((32, 32, 3), filters=(4,), seed=0))
    model.optimizer.build(model.trainable_variables)  # as after a training
    saved = save_detector(
        tmp_path / "x",
        model,
        Preprocessing(size=(32, 32), detector="frame"),
        faces,
        n_resamples=0,
        progress=False,
    )
    assert not saved.model.compiled
    np.testing.assert_array_equal(saved.model.get_weights()[0], model.get_weights()[0])


def test_the_card_says_what_is_needed(folder):
    card, text = json.loads((folder / "card.json").read_text()), (folder / "card.md").read_text()
    assert {
        "intended_use",
        "out_of_scope",
        "data",
        "numbers",
        "groups",
        "training",
        "versions",
        "preprocessing",
        "decision",
        "meaning",
    } <= set(card)
    found = {row["metric"] for row in card["numbers"]["pictures"]}
    assert {
        "TPR at 1 % FPR",
        "Brier score",
        "expected calibration error",
        "AUC",
        "abstains",
    } <= found and set(card["numbers"]) == {"pictures", "videos"}
    assert {r["by"] for r in card["groups"]} >= {"manipulation", "lighting"}
    assert (
        card["data"]["sha256"] in text
        and "Research only" not in text
        and all(
            re.search(rf"^## {head}$", text, re.M)
            for head in ("Intended use", "Out of scope", "Data", "Numbers")
        )
    )


@pytest.mark.parametrize("head", ["mobilenet", "unet", "localiser", "spectrum"])
def test_other_heads(head, faces, inbox, tmp_path):
    shows_where = head in ("unet", "localiser")
    made = train_detector(
        tmp_path / head,
        "synthetic-faces-crude",
        head,
        "smoke",
        faces="haar",
        epochs=1,
        progress=False,
    )
    np.testing.assert_array_equal(
        score_samples(load_detector(tmp_path / head), faces[:4], progress=False),
        score_samples(made, faces[:4], progress=False),
    )
    result = predict_files([inbox / "sub"], made, progress=False)[0]
    assert (
        result.state == "scored"
        and (result.changed is not None) == ("changed" in result.stored) == shows_where
    )
    for shown in (result.occlusion, *([result.changed] if shows_where else [])):
        assert shown.shape == made.preprocessing.size and np.isfinite(shown).all()
    page = write_page(tmp_path / "page.html", [result], made).read_text()
    assert ("What the score rests on" in page) and ("takes it for changed" in page) == (shows_where)


def test_a_localiser_needs_pairs(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "deepfake_nb.detectors.load_samples", lambda *_, **__: faces.assign(original=pd.NA)
    )
    with pytest.raises(DetectorError, match="has its original among .* take another head"):
        train_detector(
            tmp_path / "made",
            "synthetic-faces-crude",
            "localiser",
            "smoke",
            faces="haar",
            epochs=1,
            progress=False,
        )
    assert not (tmp_path / "made").exists()


# What comes out.


def test_calibration_is_applied(folder, inbox):
    detector = load_detector(folder)
    for result in predict_files([inbox], detector, maps=0, progress=False):
        rows = result.frames.dropna(subset=["score"])
        np.testing.assert_allclose(
            rows["probability"], detector.calibration(rows["score"].astype(float))
        )
        assert result.probability == pytest.approx(
            rows["probability"].mean()
        ) and result.side == str(detector.side(result.probability))


def test_calibrated_numbers_can_be_worked_out_by_hand(folder, inbox, tmp_path):
    copy = tampered(
        folder,
        tmp_path,
        calibration={
            "kind": "platt",
            "logit": True,
            "slope": 2.0,
            "intercept": -1.0,
            "scores": [],
            "shares": [],
            "fakes": 0.5,
            "n": 10,
        },
        band=[0.2, 0.3],
    )
    result = score_file(inbox / "face.webp", load_detector(copy))
    odds = np.log(result.score / (1 - result.score))
    assert result.probability == pytest.approx(1 / (1 + np.exp(1 - 2 * odds)))
    assert result.side == (
        "below" if result.probability < 0.2 else "above" if result.probability > 0.3 else "abstains"
    )


def spoil(place: Path, how: str, faces: pd.DataFrame, film: Path) -> Path:
    "A file that cannot be scored."
    if how == "cut off":
        (place / "x.jpg").write_bytes(Path(faces["path"][0]).read_bytes()[:700])
    if how == "empty":
        (place / "x.png").write_bytes(b"")
    if how == "text":
        (place / "x.jpg").write_text("no picture")
    if how == "no face":
        Image.fromarray(np.full((120, 160, 3), 77, np.uint8)).save(place / "x.png")
    if how == "unknown codec":
        (place / "x.mp4").write_bytes(film.read_bytes().replace(b"avc1", b"zzz1"))
    if how == "broken video":
        (place / "x.mp4").write_bytes(film.read_bytes()[:300])
    return next(place.iterdir())


@pytest.mark.parametrize(
    "how", ["cut off", "empty", "text", "no face", "broken video", "unknown codec"]
)
def test_what_cannot_be_scored_is_said_and_counted(how, folder, faces, inbox, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    bad = spoil(tmp_path / "in", how, faces, inbox / "film.mp4")
    assert (
        main(
            [
                "predict",
                str(bad),
                str(inbox / "sub"),
                "--model",
                str(folder),
                "--out",
                str(tmp_path / "out"),
            ]
        )
        == 1
    )
    said = capsys.readouterr().out
    state = "no face" if how == "no face" else "unreadable"
    assert f"{bad}: not scored, {state}: " in said and "1 of 2 files scored; 1 " in said
    table = pd.read_csv(tmp_path / "out" / "scores.csv").set_index("file")
    row, other = table.loc[str(bad)], table.loc[str(inbox / "sub" / "face.jpg")]
    assert len(table) == 2 and other["state"] == "scored" and 0 <= other["probability"] <= 1
    assert (
        row["state"] == state
        and isinstance(row["reason"], str)
        and pd.isna(row["probability"])
        and row["sha256"] == file_hash(bad)
    )
    page = (tmp_path / "out" / "index.html").read_text()
    assert f"not scored, {state}" in page and "1 of 2 files scored" in page


def test_a_fault_that_nobody_foresaw_costs_one_row(folder, inbox, monkeypatch, caplog):
    "A decoder that fails in a way of its own; but what is wrong with the model itself ends everything."
    real, detector = extract_video, load_detector(folder)

    def fragile(path, *args):
        if path.suffix == ".webp":
            raise AttributeError("'NoneType' object has no attribute 'thread_count'")
        return real(path, *args)

    monkeypatch.setattr(predict, "extract_video", fragile)
    results = {r.path.name: r for r in predict_files([inbox], detector, maps=0, progress=False)}
    assert [results[name].state for name in ("face.jpg", "film.mp4", "face.webp")] == [
        "scored",
        "scored",
        "unreadable",
    ]
    assert results["face.webp"].reason.startswith("cannot be read: AttributeError: 'NoneType'")
    assert "Traceback" in caplog.text  # said, for it may be ours
    monkeypatch.setattr(detectors.models, "fake_score", lambda found: found.no_such_thing)
    with pytest.raises(AttributeError, match="no_such_thing"):
        predict_files([inbox], detector, progress=False)


def test_files_are_scored_together_as_each_alone(folder, faces, inbox):
    "Batches reach from one file into the next; what the page shows of most waits on disk."
    detector, paths = (
        load_detector(folder),
        [*faces["path"][:40], inbox / "film.mp4", *faces["path"][40:44]],
    )
    together = predict_files(paths, detector, crops=True, maps=2, progress=False)
    assert [r.path for r in together] == [Path(p) for p in paths]
    for i in (0, 31, 32, 40, 44):  # the ends of batches, and the film, which lies across two
        alone = score_file(paths[i], detector, crops=True)
        pd.testing.assert_frame_equal(together[i].frames, alone.frames, atol=1e-6)
        assert together[i].sha256 == alone.sha256 and together[i].side == alone.side
        assert together[i].stored["face"]() == page_jpegs(alone, detector)["face"]
    best = sorted(together, key=lambda r: -r.probability)[:2]
    assert [r for r in together if r.face is not None] == [r for r in together if r in best]
    assert all(r.occlusion is not None for r in best)


def test_no_more_than_a_few_files_are_read_ahead():
    from concurrent.futures import ThreadPoolExecutor

    begun = []
    with ThreadPoolExecutor(2) as pool:
        stream = _in_order(pool, str, (begun.append(i) or i for i in range(100)), 5)
        assert [next(stream) for _ in range(3)] == ["0", "1", "2"] and len(begun) == 8
        assert list(stream) == [str(i) for i in range(3, 100)]


def test_exit_statuses(folder, inbox, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    out = ["--out", str(tmp_path / "out")]
    assert main(["predict", str(inbox), "--model", str(folder), *out]) == 0
    for words, said in (
        ([tmp_path / "empty", "--model", folder], "no pictures and no videos"),
        ([tmp_path / "notes", "--model", folder], "1 files of other kinds"),
        ([tmp_path / "nowhere.jpg", "--model", folder], "no such file or folder"),
        ([inbox, "--model", inbox], "no detector here"),
    ):
        capsys.readouterr()
        assert main(["predict", *map(str, words), "--out", str(tmp_path / "none")]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_video_is_scored_over_time(folder, inbox):
    film = score_file(inbox / "film.mp4", load_detector(folder), frames=6)
    assert (
        film.kind == "video"
        and len(film.frames) == 6
        and film.frames["timestamp"].is_monotonic_increasing
    )
    assert (
        film.at in film.frames["frame"].tolist() and film.frames["timestamp"].iloc[-1] > 3
    )  # seconds: spread over all of it


def test_frames_without_a_face_are_left_out_of_the_mean(folder, inbox, monkeypatch):
    real = extract_video

    def some(*args):
        rows, found = real(*args)
        for i in (0, 3):
            rows[i], found[i] = (
                rows[i]
                | {"reason": "no face found"}
                | dict.fromkeys(("left", "top", "right", "bottom", "confidence")),
                None,
            )
        return rows, found

    monkeypatch.setattr(predict, "extract_video", some)
    film = score_file(inbox / "film.mp4", load_detector(folder))
    assert film.frames["score"].isna().sum() == 2 and film.probability == pytest.approx(
        film.frames["probability"].dropna().mean()
    )


def test_files_are_found_once(folder, inbox):
    results = predict_files(
        [inbox / "sub", inbox, inbox / "film.mp4"], load_detector(folder), maps=0, progress=False
    )
    assert sorted(r.path.name for r in results) == ["face.jpg", "face.webp", "film.mp4"]


def test_the_same_files_give_the_same_bytes(folder, inbox, tmp_path):
    "In this process, whose networks have run before, and in a new one."
    words = ["predict", str(inbox), "--model", str(folder), "--out"]
    assert main([*words, str(tmp_path / "a")]) == 0
    code = "import sys; from deepfake_nb.cli import main; sys.exit(main())"
    assert (
        subprocess.run(
            [sys.executable, "-c", code, *words, str(tmp_path / "b")], capture_output=True
        ).returncode
        == 0
    )
    assert {p.name for p in (tmp_path / "a").iterdir()} == {
        "scores.csv",
        "frames.csv",
        "index.html",
    }
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_the_page_needs_nothing_beside_it(folder, inbox, tmp_path):
    name = tmp_path / "<script>alert(1)<" / "a&b.jpg"
    name.parent.mkdir()
    shutil.copy(inbox / "sub" / "face.jpg", name)
    main(["predict", str(inbox), str(name), "--model", str(folder), "--out", str(tmp_path / "out")])
    page = (tmp_path / "out" / "index.html").read_text()
    assert (
        "<script" not in page
        and "&lt;script&gt;" in page
        and "@import" not in page
        and "url(" not in page
    )
    assert all(
        link.startswith(("data:", "#")) for link in re.findall(r'(?:src|href)="([^"]*)"', page)
    )
    assert set(re.findall(r'href="#([^"]*)"', page)) <= set(re.findall(r'id="([^"]*)"', page))
    images = re.findall(r"<img [^>]*>", page)
    assert len(images) == 8 and all(re.search(r'alt="[^"]{10,}"', image) for image in images)
    assert (
        all("aria-label" in svg for svg in re.findall(r"<svg [^>]*>", page))
        and "color-scheme: light dark" in page
    )
    for said in (
        "cannot show a rate of 1 %",
        "not calibrated, and no share of fakes",
        "Brier score",
        "expected calibration error",
        "abstains",
        "There is no verdict",
        load_detector(folder).sha256,
        file_hash(name),
        "versions now",
    ):
        assert said in page, said


def test_the_card_says_a_rate_only_where_there_are_enough_reals():
    for n, words in (
        (99, "with none of its 99 reals called fake"),
        (100, "with at most 1 % of reals called fake"),
    ):
        y, p = (
            np.r_[np.zeros(n), np.ones(50)],
            np.r_[np.linspace(0, 0.6, n), np.linspace(0.4, 1, 50)],
        )
        numbers = detector_numbers(y, p, 0.5, (0.4, 0.6), n_resamples=0)
        said = probability_meaning("pictures", numbers, Calibration("none", fakes=0.25))
        assert words in said
        assert f"{((y - 0.25) ** 2).mean():.3f} is what always answering 25% gets" in said


def test_interrupted_writing_leaves_no_half_page(folder, inbox, tmp_path, monkeypatch):
    monkeypatch.setattr(predict, "_images", lambda *a: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict_command([inbox / "sub"], folder, tmp_path / "out", progress=False)
    assert {p.name for p in (tmp_path / "out").iterdir()} <= {"scores.csv", "frames.csv"}


# The other backend.

JAX = """
import sys, keras, numpy as np
from deepfake_nb.cli import main
from deepfake_nb.detectors.storage import load_detector, score_samples
from deepfake_nb.data.datasets import load_samples
folder, out, inbox = sys.argv[1:]
assert keras.backend.backend() == "jax"
faces = load_samples("synthetic-faces-crude", identities=16, videos=1, frames=2)
np.save(out + "/scores.npy", score_samples(load_detector(folder), faces[:9], progress=False))
assert main(["predict", inbox, "--model", folder, "--out", out]) == 0
assert "tensorflow" not in sys.modules
"""


def test_jax_loads_and_scores_what_tensorflow_saved(folder, inbox, tmp_path):
    faces = load_samples("synthetic-faces-crude", identities=16, videos=1, frames=2)
    done = subprocess.run(
        [sys.executable, "-c", JAX, str(folder), str(tmp_path), str(inbox)],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    np.testing.assert_allclose(
        np.load(tmp_path / "scores.npy"),
        score_samples(load_detector(folder), faces[:9], progress=False),
        atol=1e-4,
    )


def test_a_detector_of_faces_that_needs_tensorflow_says_so(folder, inbox, tmp_path, monkeypatch):
    settings = json.loads((folder / "detector.json").read_text())
    copy = tampered(
        folder,
        tmp_path,
        preprocessing=settings["preprocessing"] | {"detector": "mtcnn", "confidence": None},
    )
    detector = load_detector(copy)
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(DetectorError, match="KERAS_BACKEND=tensorflow"):
        score_file(inbox / "sub" / "face.jpg", detector)
