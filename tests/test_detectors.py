"""Detectors: fed as in training, refused after any change, with the same bytes every time.

Every fault of a file is reported and counted, on either backend.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from deepfake_nb.cli import main
from deepfake_nb.core.errors import DetectorError
from deepfake_nb.core.files import file_hash
from deepfake_nb.core.images import read_image
from deepfake_nb.core.parallel import map_ahead
from deepfake_nb.data.datasets import load_samples
from deepfake_nb.data.splits import split_samples
from deepfake_nb.detectors import localiser, training
from deepfake_nb.detectors.calibration import Calibration
from deepfake_nb.detectors.card import (
    OUT_OF_SCOPE,
    card_markdown,
    detector_numbers,
    probability_meaning,
)
from deepfake_nb.detectors.checks import SHIPPED
from deepfake_nb.detectors.commands import predict_command
from deepfake_nb.detectors.detector import DeepfakeDetector
from deepfake_nb.detectors.export import export_detector, export_network, run_exported
from deepfake_nb.detectors.page import write_page
from deepfake_nb.detectors.prediction import predict_files, score_file
from deepfake_nb.detectors.preprocessing import Preprocessing, model_inputs, prepare_images
from deepfake_nb.detectors.saving import save_detector, score_samples
from deepfake_nb.detectors.scoring import CalibratedModel
from deepfake_nb.detectors.storage import load_detector
from deepfake_nb.detectors.thumbnails import page_jpegs
from deepfake_nb.detectors.training import train_detector
from deepfake_nb.faces.extraction import Track, extract_people
from deepfake_nb.forensics.view_datasets import view_samples
from deepfake_nb.models.classifiers import build_convnet, compile_model
from deepfake_nb.models.weights import resolve_weights
from deepfake_nb.training.loaders import ImageBatches, in_table_order

pytestmark = pytest.mark.slow  # nearly all share a trained detector and rendered faces
FRACTIONS = {"train": 0.5, "validation": 0.25, "test": 0.25}
WHOLE_IMAGES = Preprocessing(size=(32, 32), face_detector="frame")


@pytest.fixture(scope="module")
def faces() -> pd.DataFrame:
    samples = load_samples("synthetic-faces-crude", identities=16, videos=1, frames=2)
    return split_samples(samples, FRACTIONS)[0]


def train(folder: Path, head: str, **options) -> DeepfakeDetector:
    dataset = "synthetic-faces-crude"
    return train_detector(
        folder, dataset, head, "smoke", face_detector="haar", progress=False, **options
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A detector, trained in seconds."""
    place = tmp_path_factory.mktemp("detector") / "convnet"
    train(place, "convnet")
    return place


@pytest.fixture(scope="module")
def inbox(tmp_path_factory, faces) -> Path:
    """Images and a video that can be scored."""
    place = tmp_path_factory.mktemp("inbox")
    videos = load_samples("synthetic-dfdc", identities=4, frames=10, fps=2, quality="crude")
    shutil.copy(videos["path"].iloc[0], place / "video.mp4")
    (place / "sub").mkdir()
    shutil.copy(faces["path"].iloc[0], place / "sub" / "face.jpg")
    Image.open(faces["path"].iloc[1]).save(place / "face.webp")
    return place


def flat_model() -> keras.Model:
    layers = [keras.layers.Flatten(), keras.layers.Dense(1, activation="sigmoid")]
    return keras.Sequential([keras.layers.Input((32, 32, 3)), *layers])


def save_quickly(folder: Path, model: object, samples: pd.DataFrame) -> DeepfakeDetector:
    return save_detector(folder, model, WHOLE_IMAGES, samples, n_resamples=0, progress=False)


def rehash(folder: Path) -> None:
    """Make SHA256SUMS agree with the files."""
    names = [line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()]
    lines = [f"{file_hash(folder / name)}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines))


def tampered(folder: Path, tmp_path: Path, **changes) -> Path:
    """A copy with other settings, and hashes that agree with them."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    settings = json.loads((copy / "detector.json").read_text())
    (copy / "detector.json").write_text(json.dumps(settings | changes))
    rehash(copy)
    return copy


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


# What goes in.


@pytest.mark.parametrize("scaling", ["unit", "tf", "caffe", "torch", "none"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "area"])
def test_a_model_is_fed_as_in_training(faces, scaling, interpolation):
    preprocessing = Preprocessing(
        size=(50, 70), scaling=scaling, interpolation=interpolation, face_detector="frame"
    )
    images = [read_image(path) for path in faces["path"][:6]]
    found = model_inputs(prepare_images(images, preprocessing), preprocessing)
    batches = ImageBatches(
        faces[:6], None, (50, 70), 6, interpolation=interpolation, scaling=scaling
    )
    np.testing.assert_array_equal(found, in_table_order(batches)[0][0])


def test_an_image_stored_on_its_side_is_scored_as_it_was_trained_on(tmp_path):
    """The loader and `predict` see the same pixels of a JPEG of 80×40 that has to be rotated."""
    exif, file, seen = Image.Exif(), tmp_path / "phone.jpg", []
    exif[0x0112] = 6
    noise = np.random.default_rng(0).integers(0, 256, (40, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, exif=exif)

    class Model:
        preprocessing = Preprocessing(size=(80, 40), face_detector="frame")
        sha256 = warning = ""

        def look(self, images, _):
            seen.append(images)
            return np.array([0.5]), None, None

        def calibration(self, score):
            return score

        def side(self, probability):
            return np.full(np.shape(probability), "above")

    assert score_file(file, Model()).state == "scored"
    assert seen[0].shape == (1, 80, 40, 3)
    np.testing.assert_array_equal(seen[0][0], read_image(file))


def test_views_are_computed_before_resizing(faces):
    preprocessing = Preprocessing(
        size=(40, 40), view="ela", view_options={"quality": 70}, face_detector="frame"
    )
    viewed = view_samples(faces[:4], preprocessing.shown_by, progress=False).samples
    images = [read_image(path) for path in faces["path"][:4]]
    found = model_inputs(prepare_images(images, preprocessing), preprocessing)
    batches = ImageBatches(viewed, None, (40, 40), 4, interpolation="bilinear")
    np.testing.assert_array_equal(found, in_table_order(batches)[0][0])


def test_crops_are_scored_as_the_training_data_was(folder, faces):
    detector = load_detector(folder)
    scores = [score_file(path, detector, crops=True).score for path in faces["path"][:3]]
    expected = score_samples(detector, faces[:3], progress=False)
    np.testing.assert_allclose(scores, expected, atol=1e-6)


def test_cropped_faces_get_the_jpeg_quality_of_the_training_data(folder, inbox):
    detector = load_detector(folder)
    assert detector.preprocessing.jpeg == 90  # measured from the files
    without = replace(detector, preprocessing=replace(detector.preprocessing, jpeg=None))
    scores = [score_file(inbox / "face.webp", each).score for each in (detector, without)]
    assert scores[0] != scores[1]


def test_batches_of_any_size_give_the_same_scores(folder, faces):
    detector = load_detector(folder)
    images = [read_image(path) for path in faces["path"][:11]]
    images = prepare_images(images, detector.preprocessing)
    for size in (1, 3, 32):
        np.testing.assert_allclose(detector.score(images, size), detector.score(images), atol=1e-6)
    assert detector.score(images[:0]).shape == (0,)


# What is kept.


@pytest.mark.parametrize("name", ["model.keras", "detector.json", "card.json", "card.md"])
def test_a_changed_byte_is_noticed(folder, tmp_path, name):
    copy = shutil.copytree(folder, tmp_path / "copy")
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(DetectorError, match=f"{name} is not the file that was saved"):
        load_detector(copy)
    (copy / name).unlink()
    with pytest.raises(DetectorError, match=f"{name} is missing"):
        load_detector(copy)


def test_the_hashes_are_those_of_other_tools(folder):
    command = ["sha256sum", "-c", "SHA256SUMS"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count(": OK") == 5


def test_a_wrong_hash_is_refused(folder):
    with pytest.raises(DetectorError, match="it is another detector"):
        load_detector(folder, "0" * 64)
    assert load_detector(folder, load_detector(folder).sha256).sha256


@pytest.mark.parametrize(
    "line", ["", "abc", f"{'0' * 64}  ../../outside", f"{'0' * 64}  /etc/hostname"]
)
def test_damaged_hashes_are_refused(folder, tmp_path, line):
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


def test_a_model_outside_the_folder_is_refused(folder, tmp_path):
    copy = tampered(folder, tmp_path, model="../model.keras")
    shutil.copy(copy / "model.keras", tmp_path / "model.keras")
    with pytest.raises(DetectorError, match="'../model.keras' is not in it"):
        load_detector(copy)


def test_a_damaged_model_is_refused_even_if_its_hash_agrees(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "model.keras").write_bytes((copy / "model.keras").read_bytes()[:5000])
    rehash(copy)
    with pytest.raises(DetectorError, match="Keras cannot read it safely"):
        load_detector(copy)


def test_a_model_whose_scores_do_not_reproduce_is_refused(folder, tmp_path):
    settings = json.loads((folder / "detector.json").read_text())
    probe = [score + 0.01 for score in settings["probe"]]
    versions = settings["versions"] | {"keras": "2.15.0"}
    copy = tampered(folder, tmp_path, probe=probe, versions=versions)
    with pytest.raises(DetectorError, match=r"do not reproduce.*keras 2\.15\.0 then"):
        load_detector(copy)


def test_another_preprocessing_is_noticed_by_the_scores(folder, tmp_path):
    settings = json.loads((folder / "detector.json").read_text())
    preprocessing = settings["preprocessing"] | {"scaling": "none"}
    with pytest.raises(DetectorError, match="do not reproduce"):
        load_detector(tampered(folder, tmp_path, preprocessing=preprocessing))


def test_another_layout_is_refused(folder, tmp_path):
    with pytest.raises(DetectorError, match="its layout is version 99"):
        load_detector(tampered(folder, tmp_path, format=99))


def test_no_code_is_saved(faces, tmp_path):
    model = keras.Sequential(
        [keras.layers.Input((32, 32, 3)), keras.layers.Lambda(lambda x: x / 2), flat_model()]
    )
    with pytest.raises(DetectorError, match="Lambda layers"):
        save_quickly(tmp_path / "lambda", model, faces)
    assert not names(tmp_path)


def test_a_detector_is_replaced_completely_or_not_at_all(folder, faces, tmp_path, monkeypatch):
    copy = shutil.copytree(folder, tmp_path / "copy")
    before, model = load_detector(copy), flat_model()
    with monkeypatch.context() as patch:
        patch.setattr("deepfake_nb.detectors.storage.card_markdown", lambda card: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            save_quickly(copy, model, faces)
    assert load_detector(copy).sha256 == before.sha256
    assert names(tmp_path) == ["copy"]

    real_replace = os.replace

    def fail_between(source, target):  # the old folder is moved away, the new one not yet in place
        return 1 / 0 if str(source).endswith(".partial") else real_replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("deepfake_nb.detectors.storage.os.replace", fail_between)
        with pytest.raises(ZeroDivisionError):
            save_quickly(copy, model, faces)
    assert load_detector(copy).sha256 == before.sha256
    assert names(tmp_path) == ["copy"]
    assert save_quickly(copy, model, faces).sha256 != before.sha256
    assert names(tmp_path) == ["copy"]


def test_a_split_without_a_class_is_refused(faces, tmp_path):
    samples = faces[(faces["split"] != "test") | (faces["label"] == 0)]
    with pytest.raises(DetectorError, match="the test split has .* 0 fakes"):
        save_quickly(tmp_path / "x", build_convnet((32, 32, 3), filters=(4,)), samples)


def test_the_optimizer_is_not_saved(faces, tmp_path):
    model = compile_model(build_convnet((32, 32, 3), filters=(4,), seed=0))
    model.optimizer.build(model.trainable_variables)  # as after a training
    saved = save_quickly(tmp_path / "x", model, faces)
    assert not saved.model.compiled
    np.testing.assert_array_equal(saved.model.get_weights()[0], model.get_weights()[0])


def test_the_card_says_what_is_needed(folder):
    card, text = json.loads((folder / "card.json").read_text()), (folder / "card.md").read_text()
    assert set(card) >= {
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
    }
    assert set(card["numbers"]) == {"images", "videos"}
    assert {row["metric"] for row in card["numbers"]["images"]} >= {
        "TPR at 1 % FPR",
        "Brier score",
        "expected calibration error",
        "AUC",
        "abstains",
    }
    assert {row["by"] for row in card["groups"]} >= {"manipulation", "lighting"}
    assert card["data"]["sha256"] in text and "Research only" not in text
    for heading in ("Intended use", "Out of scope", "Data", "Numbers"):
        assert re.search(rf"^## {heading}$", text, re.M), heading


@pytest.mark.parametrize("head", ["mobilenet", "unet", "localiser", "spectrum"])
def test_other_heads(head, faces, inbox, tmp_path):
    has_maps = head in ("unet", "localiser")
    detector = train(tmp_path / head, head, epochs=1)
    scores = score_samples(detector, faces[:4], progress=False)
    loaded = load_detector(tmp_path / head)
    np.testing.assert_array_equal(score_samples(loaded, faces[:4], progress=False), scores)
    result = predict_files([inbox / "sub"], detector, progress=False)[0]
    assert result.state == "scored"
    assert (result.person.changed is not None) == has_maps
    assert ("changed" in result.person.stored) == has_maps
    person = result.person
    for values in (person.occlusion, *([person.changed] if has_maps else [])):
        assert values.shape == detector.preprocessing.size and np.isfinite(values).all()
    page = write_page(tmp_path / "page.html", [result], detector).read_text()
    assert "What the result rests on" in page
    assert ("believes it was changed" in page) == has_maps


class Stop(keras.callbacks.Callback):
    """Interrupt a training in its third epoch."""

    epoch = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 2:
            raise KeyboardInterrupt


def small_unet(backbone, weights, input_shape, seed):
    """A network with the outputs of a localiser that is compiled in a second."""
    keras.utils.set_random_seed(seed)
    image = keras.layers.Input(input_shape)
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    x = keras.layers.BatchNormalization()(x)
    outputs = {"changed": keras.layers.Conv2D(1, 1, activation="sigmoid", name="changed")(x)}
    x = keras.layers.Dropout(0.3)(keras.layers.GlobalAveragePooling2D()(x))
    outputs["fake"] = keras.layers.Dense(1, activation="sigmoid", name="fake")(x)
    return keras.Model(image, outputs), resolve_weights("MobileNetV2-0.35", "none")


def check_resumed(resumed: DeepfakeDetector, whole: DeepfakeDetector, place: Path) -> None:
    for mine, expected in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-5)
    assert resumed.card["training"]["epochs"] == 4
    assert {*names(place)} <= {"whole", "killed"}  # nothing but the detectors is left


def test_a_killed_training_resumes(folder, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(training._Plan, "callbacks", (Stop(),))
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "killed", "convnet")
    kept = [path.name for path in tmp_path.glob(".killed.training/epoch-*")]
    assert kept == ["epoch-0002"]
    check_resumed(train(tmp_path / "killed", "convnet"), load_detector(folder), tmp_path)


def test_a_killed_training_with_a_budget_keeps_its_plan(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(localiser, "build_pretrained_unet", small_unet)
    monkeypatch.setattr(localiser, "MOST_EPOCHS", 4)
    whole = train(tmp_path / "whole", "localiser")
    killed = tmp_path / "killed", "synthetic-faces-crude", "localiser", "smoke"
    budget = {"minutes": 5, "size": 32, "face_detector": "haar"}
    with monkeypatch.context() as patch:
        patch.setattr(training._Plan, "callbacks", (Stop(),))
        with pytest.raises(KeyboardInterrupt):
            train_detector(*killed, **budget, progress=False)
    plan = tmp_path / ".killed.training" / "plan.json"
    assert json.loads(plan.read_text()) == [32, 4]
    monkeypatch.setattr(localiser, "plan_budget", None)  # not called again
    check_resumed(train_detector(*killed, **budget), whole, tmp_path)
    said = capsys.readouterr().err
    assert "budget of 5 minutes: 4 epochs at 32 pixels" in said
    assert "resuming after epoch 2" in said
    assert re.search(r"epoch +loss +val loss +val AUC +ends", said)
    assert re.search(r"4/4 +[\d.]+ +[\d.]+ +[\d.]+ +\d\d:\d\d", said)


# The detector in the package.


def test_the_detector_in_the_package_says_that_it_knows_rendered_fakes_only(
    inbox, tmp_path, capsys
):
    out = tmp_path / "out"
    face = inbox / "sub" / "face.jpg"
    assert main(["predict", str(face), "--crops", "--json", "--out", str(out)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert 0 <= document["files"][0]["probability"] <= 1
    assert document["files"][0]["warning"] == "Rendered fakes only."
    assert document["warnings"][0].startswith("Rendered fakes only. It was trained on rendered")
    for name in ("scores.csv", "frames.csv", "index.html"):
        assert "Rendered fakes only." in (out / name).read_text()
    page = (out / "index.html").read_text()
    assert page.index('<div class="box warn">') < page.index("What was looked at:")
    assert sum(file.stat().st_size for file in SHIPPED.iterdir()) < 3e6
    kinds = ["face-swap", "generated", "mouth"]
    assert document["manipulations"] == kinds
    for text in (page, (SHIPPED / "card.md").read_text()):
        assert f"trained on fakes of these kinds: {', '.join(kinds)}." in text
    card = json.loads((SHIPPED / "card.json").read_text())
    assert (SHIPPED / "card.md").read_text() == card_markdown(card)
    assert {*card["elsewhere"]} == {"dfdc-faces", "uadfv", "faceforensics"}
    assert card["numbers"]["images"][0]["low"] > 0.5


# Other programs.


@pytest.mark.parametrize("form", ["onnx", "saved-model", "litert"])
def test_an_export_answers_as_the_detector(form, folder, tmp_path, capsys, monkeypatch):
    if form == "onnx":
        for package in ("onnx", "onnxruntime", "tf2onnx"):
            pytest.importorskip(package)
    out = tmp_path / "out"
    assert main(["export", str(folder), "--to", form, "--out", str(out), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record == json.loads((out / "export.json").read_text())
    detector = load_detector(folder)
    pixels = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    found = run_exported(out / record["file"], form, pixels.astype("float32"))
    scores = detector.score(pixels)
    np.testing.assert_allclose(found["score"], scores, atol=1e-4)
    np.testing.assert_allclose(found["probability"], detector.calibration(scores), atol=1e-4)
    assert all(file_hash(out / name) == digest for name, digest in record["sha256"].items())
    card = (out / "card.md").read_text()
    assert "find the face with haar" in card and "## Out of scope" in card
    assert "BORDER_REFLECT" in card and "outputs by name" in card
    assert ("lacks one rule" in card) == (detector.distance is not None)
    monkeypatch.chdir(out)
    exec(re.search(r"```python\n(.*?)```", card, re.S)[1], {})  # it scores the example without us
    value, expected = capsys.readouterr().out.split(" expected: ")
    assert float(value) == pytest.approx(float(expected), abs=1e-4)
    if form == "litert":
        answer = detector.predict(["example.png"])[0]
        assert float(expected) == pytest.approx(answer.probability, abs=1e-4)
    assert names(tmp_path) == ["out"]


def test_an_exported_localiser_has_its_map_and_the_mean_with_the_mirror_image():
    network, _ = small_unet("any", "none", (32, 32, 3), seed=1)
    rng = np.random.default_rng(0)
    declared = replace(WHOLE_IMAGES, scaling="tf", mirror=True)
    model = CalibratedModel(network, declared, Calibration("none"), 0.5, (0.5, 0.5))
    pixels = rng.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    found = export_network(model).predict(pixels.astype("float32"), verbose=0)
    looked = model.look(pixels)
    assert looked.maps.std() > 0
    np.testing.assert_allclose(found["score"], looked.scores, atol=1e-5)
    np.testing.assert_allclose(found["changed"], looked.maps, atol=1e-5)


def test_an_export_that_answers_otherwise_is_not_written(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "deepfake_nb.detectors.export.run_exported",
        lambda *_: {"score": np.ones(4), "probability": np.ones(4)},
    )
    with pytest.raises(DetectorError, match="answers differ from the detector's by"):
        export_detector(folder, tmp_path / "out", "saved-model")
    assert names(tmp_path) == []


def test_a_format_whose_packages_are_missing_is_refused(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["export", str(folder), "--to", "onnx", "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert "`pip install onnx onnxruntime tf2onnx`" in said and names(tmp_path) == []


# Unlike the training data.


def test_an_image_unlike_the_training_data_is_abstained_from(folder, inbox, tmp_path):
    detector = load_detector(folder)
    rows = {row["metric"]: row for row in detector.card["numbers"]["images"]}
    assert 0 <= rows["unlike the training data"]["value"] <= rows["abstains"]["value"]
    assert "unlike the training data" in (folder / "card.md").read_text()
    for limit, unlike in ((1e-6, True), (1e6, False)):
        distance = replace(detector.distance, limit=limit)
        result = predict_files(
            [inbox / "sub"], replace(detector, distance=distance), progress=False
        )[0]
        assert ("unlike the images it learnt from" in result.person.note) == unlike
        assert not unlike or result.side == "abstains"
        assert ("unlike the images it learnt from (" in result.table["reason"][0]) == unlike
        page = write_page(tmp_path / "page.html", [result], detector).read_text()
        assert ("times the limit): probability of a fake" in page) == unlike
        assert ("<strong>Undecided</strong>, unlike the images" in page) == unlike


def test_a_damaged_distance_is_refused(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "distance.npz").write_bytes(b"nothing")
    rehash(copy)
    with pytest.raises(DetectorError, match="distance.npz: not a distance"):
        load_detector(copy)


def test_numbers_count_what_is_unlike_the_training_data_as_abstained():
    y_true, p = np.array([0, 0, 1, 1]), np.array([0.9, 0.1, 0.1, 0.9])
    aside = np.array([True, False, True, False])
    numbers = detector_numbers(y_true, p, 0.5, (0.4, 0.6), n_resamples=0, unfamiliar=aside)
    found = {row["metric"]: row["value"] for row in numbers}
    assert found["abstains"] == found["unlike the training data"] == 0.5
    assert found["reals above the band"] == found["fakes below the band"] == 0


def test_a_localiser_needs_pairs(faces, tmp_path, monkeypatch):
    without_originals = faces.assign(original=pd.NA)
    monkeypatch.setattr(
        "deepfake_nb.detectors.training.load_samples", lambda *_, **__: without_originals
    )
    with pytest.raises(DetectorError, match="has its original .*choose another head"):
        train(tmp_path / "made", "localiser", epochs=1)
    assert not (tmp_path / "made").exists()


# What comes out.


def test_calibration_is_applied(folder, inbox):
    detector = load_detector(folder)
    for result in predict_files([inbox], detector, maps=0, progress=False):
        rows = pd.DataFrame(result.person.rows)
        expected = detector.calibration(rows["score"].astype(float))
        np.testing.assert_allclose(rows["probability"], expected)
        assert result.probability == pytest.approx(rows["probability"].mean())
        assert result.side == str(detector.side(result.probability))


def test_calibrated_numbers_can_be_computed_by_hand(folder, inbox, tmp_path):
    curve = {"kind": "platt", "logit": True, "slope": 2.0, "intercept": -1.0}
    curve |= {"scores": [], "shares": [], "fakes": 0.5, "n": 10}
    copy = tampered(folder, tmp_path, calibration=curve, band=[0.2, 0.3], threshold=0.25)
    result = score_file(inbox / "face.webp", load_detector(copy))
    odds = np.log(result.score / (1 - result.score))
    assert result.probability == pytest.approx(1 / (1 + np.exp(1 - 2 * odds)))
    side = "below" if result.probability < 0.2 else "abstains"
    assert result.side == ("above" if result.probability > 0.3 else side)


def test_a_file_is_scored_in_two_lines(folder, inbox):
    detector = load_detector(folder)
    result = detector.predict(inbox / "face.webp")
    assert (result.state, result.kind, result.person.occlusion) == ("scored", "image", None)
    assert detector.predict(str(inbox / "face.webp"), maps=1).person.occlusion is not None
    both = detector.predict([inbox / "face.webp", inbox / "video.mp4"])
    assert [each.kind for each in both] == ["image", "video"]
    assert both[0].score == pytest.approx(result.score, abs=1e-6)
    assert len(detector.predict(inbox)) == 3


def spoil(place: Path, fault: str, faces: pd.DataFrame, video: Path) -> Path:
    """A file that cannot be scored."""
    place.mkdir()
    if fault == "cut off":
        (place / "x.jpg").write_bytes(Path(faces["path"][0]).read_bytes()[:700])
    if fault == "empty":
        (place / "x.png").write_bytes(b"")
    if fault == "text":
        (place / "x.jpg").write_text("no image")
    if fault == "no face":
        Image.fromarray(np.full((120, 160, 3), 77, np.uint8)).save(place / "x.png")
    if fault == "unknown codec":
        (place / "x.mp4").write_bytes(video.read_bytes().replace(b"avc1", b"zzz1"))
    if fault == "broken video":
        (place / "x.mp4").write_bytes(video.read_bytes()[:300])
    return next(place.iterdir())


@pytest.mark.parametrize(
    "fault", ["cut off", "empty", "text", "no face", "broken video", "unknown codec"]
)
def test_what_cannot_be_scored_is_reported(fault, folder, faces, inbox, tmp_path, capsys):
    bad, out = spoil(tmp_path / "in", fault, faces, inbox / "video.mp4"), tmp_path / "out"
    words = ["predict", bad, inbox / "sub", "--model", folder, "--out", out]
    assert main([*map(str, words)]) == 1
    printed = capsys.readouterr().out
    state = "no face" if fault == "no face" else "unreadable"
    told = "no face found" if fault == "no face" else "unreadable: "
    assert f"{bad}: not scored, {told}" in printed
    assert "1 of 2 files scored; 1 " in printed
    table = pd.read_csv(out / "scores.csv").set_index("file")
    row, other = table.loc[str(bad)], table.loc[str(inbox / "sub" / "face.jpg")]
    assert len(table) == 2
    assert other["state"] == "scored" and 0 <= other["probability"] <= 1
    assert row["state"] == state and isinstance(row["reason"], str)
    assert pd.isna(row["probability"]) and row["sha256"] == file_hash(bad)
    page = (out / "index.html").read_text()
    assert f"not scored, {told}" in page and "1 of 2 files scored" in page


def test_an_unforeseen_fault_costs_one_row(folder, inbox, monkeypatch, caplog):
    """A decoder may fail in a way of its own; a fault of the model itself ends everything."""
    detector = load_detector(folder)

    def fragile(path, *args):
        if path.suffix == ".webp":
            raise AttributeError("'NoneType' object has no attribute 'thread_count'")
        return extract_people(path, *args)

    monkeypatch.setattr("deepfake_nb.detectors.prediction.extract_people", fragile)
    found = predict_files([inbox], detector, maps=0, progress=False)
    results = {result.path.name: result for result in found}
    assert results["face.jpg"].state == results["video.mp4"].state == "scored"
    assert results["face.webp"].state == "unreadable"
    assert results["face.webp"].reason.startswith("cannot be read: AttributeError: 'NoneType'")
    assert "Traceback" in caplog.text  # logged, for it may be a bug of ours
    monkeypatch.setattr(
        "deepfake_nb.detectors.scoring.fake_score", lambda outputs: outputs.no_such_thing
    )
    with pytest.raises(AttributeError, match="no_such_thing"):
        predict_files([inbox], detector, progress=False)


def test_files_are_scored_together_as_each_alone(folder, faces, inbox):
    """Batches reach from one file into the next; the page's images of most files wait on disk."""
    detector = load_detector(folder)
    paths = [*faces["path"][:40], inbox / "video.mp4", *faces["path"][40:44]]
    together = predict_files(paths, detector, crops=True, maps=2, progress=False)
    assert [result.path for result in together] == [Path(path) for path in paths]
    for i in (0, 31, 32, 40, 44):  # the ends of batches, and the video, which two batches share
        result, alone = together[i], score_file(paths[i], detector, crops=True)
        pd.testing.assert_frame_equal(result.frames, alone.frames, atol=1e-6)
        assert (result.sha256, result.side) == (alone.sha256, alone.side)
        of_alone = page_jpegs(alone.person, detector.preprocessing)
        assert result.person.stored["face"]() == of_alone["face"]
    best = sorted(together, key=lambda result: -result.probability)[:2]
    kept = [result for result in together if result.person.face is not None]
    assert kept == [result for result in together if result in best]
    assert all(result.person.occlusion is not None for result in best)


def test_no_more_than_a_few_files_are_read_ahead():
    begun = []
    with ThreadPoolExecutor(2) as pool:
        items = (begun.append(i) or i for i in range(100))
        stream = map_ahead(str, items, ahead=5, pool=pool)
        assert [next(stream) for _ in range(3)] == ["0", "1", "2"] and len(begun) == 8
        assert list(stream) == [str(i) for i in range(3, 100)]


def test_exit_statuses(folder, inbox, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("x")
    out = ["--out", str(tmp_path / "out")]
    assert main(["predict", str(inbox), "--model", str(folder), *out]) == 0
    for words, message in (
        ([tmp_path / "empty", "--model", folder], "no images or videos"),
        ([tmp_path / "notes", "--model", folder], "files of other kinds: 1"),
        ([tmp_path / "nowhere.jpg", "--model", folder], "no such file or folder"),
        ([inbox, "--model", inbox], "no detector here"),
    ):
        capsys.readouterr()
        assert main(["predict", *map(str, words), "--out", str(tmp_path / "none")]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_detector_that_cannot_rank_says_so(faces, tmp_path):
    """Its network answers the same to every image."""
    model = flat_model()
    model.set_weights([np.zeros_like(weights) for weights in model.get_weights()])
    detector = save_quickly(tmp_path / "flat", model, faces)
    assert detector.calibration.slope == 0
    for text in (
        (tmp_path / "flat" / "card.md").read_text(),
        write_page(tmp_path / "page.html", [], detector).read_text(),
    ):
        assert "Cannot rank." in text and "cannot tell fakes from real images" in text
        assert "which is always" in text


def test_a_video_is_scored_over_time(folder, inbox):
    video = score_file(inbox / "video.mp4", load_detector(folder), frames=6)
    times = video.frames["timestamp"]
    assert video.kind == "video" and video.n_frames == 6
    assert times.is_monotonic_increasing and times.iloc[-1] > 3  # seconds: spread over all of it
    assert video.person.best_frame in video.frames["frame"].tolist()


def test_frames_without_a_face_are_left_out_of_the_mean(folder, inbox, monkeypatch):
    def lose_two(*args):
        rows, (track,), pictures = extract_people(*args)
        for i in (0, 3):
            rows[i]["reason"] = "no face found"
        boxes, crops = ({i: d[i] for i in d if i not in (0, 3)} for d in (track.boxes, track.crops))
        return rows, [Track(boxes, crops)], pictures

    monkeypatch.setattr("deepfake_nb.detectors.prediction.extract_people", lose_two)
    video = score_file(inbox / "video.mp4", load_detector(folder))
    assert video.frames["score"].isna().sum() == 2
    assert video.probability == pytest.approx(video.frames["probability"].dropna().mean())


def test_files_are_found_once(folder, inbox):
    paths = [inbox / "sub", inbox, inbox / "video.mp4"]
    results = predict_files(paths, load_detector(folder), maps=0, progress=False)
    found = sorted(result.path.name for result in results)
    assert found == ["face.jpg", "face.webp", "video.mp4"]


def test_the_same_files_give_the_same_bytes(folder, inbox, forks, tmp_path):
    """In this process, whose networks have run before, and in a new one."""
    words = ["predict", str(inbox), "--model", str(folder), "--out"]
    assert main([*words, str(tmp_path / "a")]) == 0
    code = "import sys; from deepfake_nb.cli import main; sys.exit(main())"
    assert forks.script(code, *words, tmp_path / "b", log=tmp_path / "log") == 0
    assert set(names(tmp_path / "a")) == {"scores.csv", "frames.csv", "index.html"}
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_the_page_needs_no_other_file(folder, inbox, tmp_path):
    file = tmp_path / "<script>alert(1)<" / "a&b.jpg"
    file.parent.mkdir()
    shutil.copy(inbox / "sub" / "face.jpg", file)
    out = tmp_path / "out"
    main(["predict", str(inbox), str(file), "--model", str(folder), "--out", str(out)])
    page = (out / "index.html").read_text()
    assert page.count("<script") == 1 and "&lt;script&gt;" in page  # our own, which sorts rows
    assert "@import" not in page and "url(" not in page
    links = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert all(link.startswith(("data:", "#")) for link in links)
    anchors = set(re.findall(r'href="#([^"]*)"', page))
    assert anchors <= set(re.findall(r'id="([^"]*)"', page))
    images = re.findall(r"<img [^>]*>", page)
    assert len(images) == 8 and all(re.search(r'alt="[^"]{10,}"', image) for image in images)
    assert all("aria-label" in svg for svg in re.findall(r"<svg [^>]*>", page))
    for words in (
        "color-scheme: light dark",
        "(TPR without a false positive among ",
        "not calibrated, and is no fraction of fakes",
        "Brier score",
        "expected calibration error",
        "abstains",
        "There is no verdict",
        load_detector(folder).sha256,
        file_hash(file),
        "versions now",
        *OUT_OF_SCOPE,
    ):
        assert words in page, words


@pytest.mark.parametrize(
    ("n", "words"),
    [
        (99, "with none of its 99 reals called fake"),
        (100, "with at most 1 % of reals called fake"),
    ],
)
def test_the_card_states_a_rate_only_if_there_are_enough_reals(n, words):
    y_true = np.r_[np.zeros(n), np.ones(50)]
    probability = np.r_[np.linspace(0, 0.6, n), np.linspace(0.4, 1, 50)]
    numbers = detector_numbers(y_true, probability, 0.5, (0.4, 0.6), n_resamples=0)
    text = probability_meaning("images", numbers, Calibration("none", fakes=0.25))
    assert words in text
    base_rate = ((y_true - 0.25) ** 2).mean()
    assert f"predicting 25% for all of them gets {base_rate:.3f}" in text


def test_interrupted_writing_leaves_no_partial_page(folder, inbox, tmp_path, monkeypatch):
    monkeypatch.setattr("deepfake_nb.detectors.page.page_images", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict_command([inbox / "sub"], folder, tmp_path / "out", progress=False)
    left = {"scores.csv", "frames.csv", "predict.partial.jsonl"}  # the next call goes on from it
    assert set(names(tmp_path / "out")) == left


# The other backend.

JAX = """
import sys, keras, numpy as np
from deepfake_nb.cli import main
from deepfake_nb.detectors.saving import score_samples
from deepfake_nb.detectors.scoring import CalibratedModel
from deepfake_nb.detectors.storage import load_detector
from deepfake_nb.data.datasets import load_samples
folder, out, inbox = sys.argv[1:]
assert keras.backend.backend() == "jax"
faces = load_samples("synthetic-faces-crude", identities=16, videos=1, frames=2)
np.save(out + "/scores.npy", score_samples(load_detector(folder), faces[:9], progress=False))
assert main(["predict", inbox, "--model", folder, "--out", out]) == 0
assert "tensorflow" not in sys.modules
"""


def test_jax_loads_and_scores_what_tensorflow_saved(folder, inbox, tmp_path):
    command = [sys.executable, "-c", JAX, str(folder), str(tmp_path), str(inbox)]
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    faces = load_samples("synthetic-faces-crude", identities=16, videos=1, frames=2)
    expected = score_samples(load_detector(folder), faces[:9], progress=False)
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), expected, atol=1e-4)


def test_a_face_detector_that_needs_tensorflow_says_so(folder, inbox, tmp_path, monkeypatch):
    settings = json.loads((folder / "detector.json").read_text())
    preprocessing = settings["preprocessing"] | {"face_detector": "mtcnn", "confidence": None}
    detector = load_detector(tampered(folder, tmp_path, preprocessing=preprocessing))
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(DetectorError, match="KERAS_BACKEND=tensorflow"):
        score_file(inbox / "sub" / "face.jpg", detector)
