"""Training: a killed run ends like one that was not, cached features train like the whole network.

The tests run on the backend that KERAS_BACKEND names.
"""

import json
import signal
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from forks import run_script
from keras import layers
from PIL import Image

from deepfake_nb.core.errors import CheckpointError
from deepfake_nb.data.samples import make_samples
from deepfake_nb.models.backbones import build_backbone
from deepfake_nb.models.classifiers import (
    build_classifier,
    build_convnet,
    compile_model,
    unfreeze_top,
)
from deepfake_nb.models.losses import ConditionalLoss
from deepfake_nb.models.registry import BACKBONES
from deepfake_nb.training import features
from deepfake_nb.training.augmentation import Augmentation
from deepfake_nb.training.checkpoints import read_history, save_checkpoint, set_precision
from deepfake_nb.training.features import compute_features, deep_features
from deepfake_nb.training.fit import (
    evaluate,
    fit,
    predict_scores,
    prepare_training,
    reset_training,
)
from deepfake_nb.training.frozen import cut_backbone, fit_frozen, split_backbone
from deepfake_nb.training.gan import generate_images, train_gan
from deepfake_nb.training.identity import training_folder
from deepfake_nb.training.loaders import ImageBatches, in_table_order, keras_generator
from deepfake_nb.training.pairs import PairedBatches
from deepfake_nb.training.scaling import scale_images

pytestmark = pytest.mark.backend

on_tensorflow = keras.backend.backend() == "tensorflow"
once = pytest.mark.skipif(
    not on_tensorflow, reason="on the other backend, a smaller test does the same"
)
files = pytest.mark.skipif(
    not on_tensorflow,
    reason="of files and orders, not of tensors: a resumed training covers the other backend",
)
tracing = pytest.mark.skipif(
    not on_tensorflow, reason="other backends do not make variables while they trace"
)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """90 images of 64×64; the fakes have a faint checkerboard."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    board = 12 * (np.indices((64, 64)).sum(0) % 2 * 2 - 1)[..., None]
    rows = []
    for i in range(90):
        image = np.kron(rng.uniform(60, 200, (8, 8, 3)), np.ones((8, 8, 1))) + i % 2 * board
        path = root / f"{i:02d}.png"
        Image.fromarray(image.clip(0, 255).astype("uint8")).save(path)
        row = {"path": str(path), "kind": "image", "label": i % 2, "dataset": "textures"}
        rows.append(row | {"split": "train" if i < 60 else "validation"})
    return make_samples(rows)


def batches(samples, cache, size, scaling="unit", class_mode="binary"):
    """Training and validation batches."""
    shared = dict(
        size=(size, size), batch_size=16, class_mode=class_mode, scaling=scaling, cache=cache
    )
    train = ImageBatches(samples, "train", seed=4, **shared)
    return train, ImageBatches(samples, "validation", shuffle=False, **shared)


def small(seed=0, **options):
    """A classifier on a frozen backbone of two convolutions."""
    keras.utils.set_random_seed(seed)
    backbone = keras.Sequential(
        [
            layers.Input((64, 64, 3)),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(32, 3, strides=2),
        ]
    )
    return compile_model(build_classifier(backbone, seed=seed, **options), learning_rate=3e-3)


def small_without_pooling():
    backbone = small().layers[0]
    model = keras.Sequential(
        [
            layers.Input((64, 64, 3)),
            backbone,
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(2, activation="softmax"),
        ]
    )
    return compile_model(model, learning_rate=1e-3)


def dense(units=None, rate=0.01, loss=None):
    """A classifier of six numbers."""
    hidden = [] if units is None else [layers.Dense(units)]
    model = keras.Sequential([layers.Input((6,)), *hidden, layers.Dense(1, activation="sigmoid")])
    return compile_model(model, rate, loss=loss)


def random_rows():
    x = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
    return x, (np.arange(40) % 2).astype("float32")


def weight_difference(a, b):
    return max(np.abs(x - y).max() for x, y in zip(a.get_weights(), b.get_weights()))


# ---- killed and resumed

RUN = """
import os
import signal
import sys

import keras
import numpy as np
from keras import layers

from deepfake_nb.models.classifiers import compile_model
from deepfake_nb.training.batches import ArrayBatches
from deepfake_nb.training.fit import fit

folder, out, kill_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
rng = np.random.default_rng(0)
x = rng.normal(size=(100, 12, 12, 3)).astype("float32")
y = (x.mean((1, 2, 3)) > 0).astype("float32")


class Kill(keras.callbacks.Callback):
    seen = 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


# a resumed run gets nothing from its own start
keras.utils.set_random_seed(os.getpid() if kill_at < 0 else 5)
model = keras.Sequential(
    [
        layers.Input((12, 12, 3)),
        layers.Conv2D(6, 3, activation="relu"),
        layers.BatchNormalization(),
        layers.Flatten(),
        layers.Dropout(0.4),
        layers.Dense(8, activation="relu"),
        layers.Dropout(0.2),
        layers.Dense(1, activation="sigmoid"),
    ]
)
compile_model(model, learning_rate=0.01)
batches = ArrayBatches(x, y, 16, seed=3)
options = dict(epochs=5, checkpoint=folder, callbacks=[Kill()], progress=False)
history = fit(model, batches, (x, y), **options)
slots = [keras.ops.convert_to_numpy(v) for v in model.optimizer.variables]
np.savez(out, *model.get_weights(), *slots)
history.to_csv(out + ".csv", index=False)
"""


@pytest.fixture(scope="module")
def undisturbed(forks, tmp_path_factory):
    """A training in its own process that nothing disturbs."""
    folder, log = tmp_path_factory.mktemp("undisturbed"), tmp_path_factory.mktemp("log") / "log"
    words = folder / "run", folder / "whole.npz", 0
    assert forks.script(RUN, *words, log=log) == 0, log.read_text()[-2000:]
    return folder


@pytest.mark.slow
@once
@pytest.mark.parametrize("kill_at", [3, 18, 28])
def test_killed_training_ends_like_one_never_killed(undisturbed, forks, tmp_path, kill_at):
    """Killed in the first epoch of 7 batches, in the third, and just at the end of the fourth."""
    folder, out, log = tmp_path / "killed", tmp_path / "killed.npz", tmp_path / "log"
    assert forks.script(RUN, folder, out, kill_at, log=log) == -signal.SIGKILL
    assert not out.exists()
    kept = read_history(folder)
    assert (0 if kept is None else len(kept)) == (kill_at - 1) // 7
    # before the first checkpoint nothing but the seed is known: the same start has to be given
    start = 0 if kept is None else -1
    assert forks.script(RUN, folder, out, start, log=log) == 0, log.read_text()[-2000:]
    with np.load(undisturbed / "whole.npz") as a, np.load(out) as b:
        assert max(np.abs(a[k].astype("float64") - b[k]).max() for k in a) <= 1e-6
    a = pd.read_csv(undisturbed / "whole.npz.csv")
    b = pd.read_csv(tmp_path / "killed.npz.csv")
    assert a["epoch"].tolist() == b["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert np.abs(a["val_loss"] - b["val_loss"]).max() <= 1e-6
    assert a["val_loss"].nunique() == 5


@pytest.mark.slow
@files
def test_resume_with_the_keras_loader(samples, tmp_path):
    """The order of ImageDataGenerator is in the checkpoint too."""

    def run(folder, epochs):
        keras.utils.set_random_seed(2)
        model = keras.Sequential(
            [
                layers.Input((32, 32, 3)),
                layers.Conv2D(4, 3),
                layers.GlobalAveragePooling2D(),
                layers.Dropout(0.2),
                layers.Dense(2, activation="softmax"),
            ]
        )
        compile_model(model, 0.01)
        train = keras_generator(samples, "train", (32, 32), 16, validation_split=None, seed=9)
        return fit(model, train, epochs=epochs, checkpoint=folder, progress=False), model

    expected, a = run(tmp_path / "whole", 4)
    run(tmp_path / "part", 2)
    resumed, b = run(tmp_path / "part", 4)
    assert np.abs(expected["loss"] - resumed["loss"]).max() <= 1e-6
    assert weight_difference(a, b) <= 1e-6


def paired_faces(root: Path, n: int = 14) -> pd.DataFrame:
    """Textures with a changed square, their masks, and their originals."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(n):
        real = np.kron(rng.uniform(60, 200, (4, 4, 3)), np.ones((8, 8, 1))).astype("uint8")
        mask = np.zeros((32, 32), "uint8")
        mask[8 + i % 4 : 24, 8:22] = 255
        fake = np.where(mask[..., None] > 0, real[::-1], real)
        for name, image in (("real", real), ("fake", fake), ("mask", mask)):
            Image.fromarray(image).save(root / f"{name}{i}.png")
        for label, name in enumerate(("real", "fake")):
            rows.append(
                {
                    "path": str(root / f"{name}{i}.png"),
                    "kind": "image",
                    "label": label,
                    "dataset": "d",
                    "video": f"{name}{i}",
                    "original": f"real{i}",
                    "frame": 0,
                    "mask_path": str(root / f"mask{i}.png") if label else None,
                }
            )
    return make_samples(rows)


class RecordedPairs(PairedBatches):
    """Note epoch and sums of every batch."""

    def load_batch(self, rows):
        x, y = super().load_batch(rows)
        self.seen.add((self.epoch, x.sum(dtype="float64"), y.sum()))
        return x, y


class StopInThirdEpoch(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.slow
@files
def test_training_on_augmented_pairs_resumes(tmp_path):
    """Augmentation and self-blended fakes of an epoch are those of a training never stopped."""
    samples = paired_faces(tmp_path)
    usual = dict(size=(32, 32), pairs=4, seed=3, cache=None, progress=False)

    def run(seen, folder, callbacks=()):
        keras.utils.set_random_seed(2)
        model = keras.Sequential(
            [
                layers.Input((32, 32, 3)),
                layers.Conv2D(4, 3, padding="same", activation="relu"),
                layers.Dropout(0.2),
                layers.Conv2D(1, 3, padding="same", activation="sigmoid"),
            ]
        )
        compile_model(model, 0.01)
        train = RecordedPairs(samples, augment=Augmentation(), self_blend=0.4, **usual)
        train.seen = seen
        options = dict(epochs=4, checkpoint=folder, callbacks=callbacks, progress=False)
        return fit(model, train, **options), model

    seen, seen_later = set(), set()
    expected, a = run(seen, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(set(), tmp_path / "part", [StopInThirdEpoch()])
    resumed, b = run(seen_later, tmp_path / "part")
    assert np.abs(expected["loss"] - resumed["loss"]).max() <= 1e-6
    assert weight_difference(a, b) <= 1e-6
    for epoch in (2, 3):
        of_epoch = {row for row in seen if row[0] == epoch}
        assert len(of_epoch) == 4
        assert of_epoch == {row for row in seen_later if row[0] == epoch}
    assert len({row[1:] for row in seen}) >= 16  # no batch twice
    with pytest.raises(CheckpointError, match="data"):  # other augmentation, another training
        plain = PairedBatches(samples, **usual)
        fit(b, plain, epochs=4, checkpoint=tmp_path / "part", progress=False)


@pytest.mark.slow
def test_frozen_training_resumes(samples, tmp_path):
    def run(folder, epochs):
        model = small()
        options = dict(checkpoint=folder, cache_dir=tmp_path / "features", progress=False)
        data = batches(samples, tmp_path, 64)
        return fit_frozen(model, *data, epochs=epochs, **options), model

    _, a = run(tmp_path / "whole", 5)
    run(tmp_path / "part", 3)
    resumed, b = run(tmp_path / "part", 5)
    assert len(resumed) == 5
    assert weight_difference(a, b) <= 1e-6


def test_checkpoint_is_complete_or_absent(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError("disk full")

    model = compile_model(keras.Sequential([layers.Input((2,)), layers.Dense(1)]))
    save_checkpoint(tmp_path, model, pd.DataFrame({"epoch": [1]}))
    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(tmp_path, model, pd.DataFrame({"epoch": [1, 2]}))
    assert len(read_history(tmp_path)) == 1


# ---- one training or another


@files
@pytest.mark.slow
def test_checkpoint_of_another_training_is_refused(tmp_path):
    x, y = random_rows()

    def run(model, x=x, epochs=3, **options):
        return fit(model, (x, y), epochs=epochs, checkpoint=tmp_path, progress=False, **options)

    run(dense(4), epochs=2)
    for changed, what in (
        (lambda: run(dense(4, rate=0.02)), "learning_rate"),
        (lambda: run(dense(4), seed=1), "seed"),
        (lambda: run(dense(4), x + 1), "data"),
        (lambda: run(dense(4), batch_size=8), "batch_size"),
        (lambda: run(dense(4), class_weight={0: 1.0, 1: 2.0}), "class_weight"),
        (lambda: run(dense(5)), "do not fit"),
        (lambda: run(dense(4), epochs=1), "2 epochs"),
    ):
        with pytest.raises(CheckpointError, match=what):
            changed()
    assert len(run(dense(4))) == 3


@files
@pytest.mark.parametrize("loader", [ImageBatches, keras_generator])
def test_other_labels_make_another_training(samples, tmp_path, loader):
    options = dict(size=(32, 32), batch_size=16, class_mode="binary", validation_split=None)
    if loader is ImageBatches:
        options["cache"] = tmp_path

    def run(table, folder):
        model = compile_model(build_convnet((32, 32, 3), filters=(4,), seed=1))
        name = training_folder(model, loader(table, "train", **options))
        train = loader(table, "train", **options)
        return name, fit(model, train, epochs=1, checkpoint=folder, progress=False)

    swapped = samples.assign(label=1 - samples["label"])
    first, history = run(samples, tmp_path / "run")
    again, restored = run(samples, tmp_path / "run")
    assert again == first
    assert restored.equals(history)
    with pytest.raises(CheckpointError, match="data"):
        run(swapped, tmp_path / "run")
    assert run(swapped, tmp_path / "other")[0] != first


@files
@pytest.mark.slow
def test_losses_of_one_name_are_told_apart_by_their_settings(tmp_path):
    def run(loss, folder="run", epochs=1):
        options = dict(epochs=epochs, checkpoint=tmp_path / folder, progress=False)
        return fit(dense(rate=0.001, loss=loss), random_rows(), **options)

    run(ConditionalLoss(0.1))
    assert len(run(ConditionalLoss(0.1), epochs=2)) == 2
    for other, what in (
        (ConditionalLoss(0.2), "loss.tau: 0.1 there, 0.2 now"),
        (ConditionalLoss(0.1, sign="penalty"), "loss.sign: printed there"),
        (ConditionalLoss(0.1, symmetric=True), "loss.symmetric"),
        (None, "loss: conditional_loss there, binary_crossentropy now"),
        (keras.losses.Hinge(name="conditional_loss"), "loss.tau"),
    ):
        with pytest.raises(CheckpointError, match=what):
            run(other, epochs=3)
    run(keras.losses.BinaryCrossentropy(), "keras")
    with pytest.raises(CheckpointError, match="loss.label_smoothing"):
        run(keras.losses.BinaryCrossentropy(label_smoothing=0.1), "keras", 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "name"),
    [
        ("mean_squared_error", "mean_squared_error"),
        (None, "binary_crossentropy"),
        (keras.losses.binary_crossentropy, "binary_crossentropy"),
    ],
    ids=["name", "default", "function"],
)
def test_plain_losses_are_described_by_their_name_alone(tmp_path, loss, name):
    """So checkpoints that were made before losses had settings can be continued."""
    fit(dense(loss=loss), random_rows(), epochs=1, checkpoint=tmp_path, progress=False)
    (file,) = tmp_path.glob("epoch-*/training.json")
    settings = json.loads(file.read_text())["settings"]
    assert {k: v for k, v in settings.items() if k.startswith("loss")} == {"loss": name}


# ---- cached features


def compare(make, samples, tmp_path, size, scaling):
    """Train seven epochs through the backbone and on features."""
    a, b = make(), make()
    for mine, expected in zip(a.get_weights(), b.get_weights()):
        assert np.array_equal(mine, expected)
    options = dict(epochs=7, progress=False)
    through = fit(a, *batches(samples, tmp_path, size, scaling), **options)
    data = batches(samples, tmp_path, size, scaling)
    cached = fit_frozen(b, *data, cache_dir=tmp_path / "features", **options)
    moved = through["val_loss"].max() - through["val_loss"].min()
    assert moved > 0.01, "a loss that does not move proves nothing"
    assert np.abs(through["val_loss"] - cached["val_loss"]).max() < 1e-3
    assert np.abs(through["loss"] - cached["loss"]).max() < 1e-3
    train, _ = batches(samples, tmp_path, size, scaling)
    assert np.abs(predict_scores(a, train) - predict_scores(b, train)).max() < 2e-3


@pytest.mark.slow
@pytest.mark.parametrize("scaling", [pytest.param("unit", marks=once), "tf"])
def test_features_train_like_the_whole_network(samples, tmp_path, scaling):
    compare(small, samples, tmp_path, 64, scaling)


@pytest.mark.slow
@once
@pytest.mark.parametrize("unfrozen", [0, 10])
def test_features_train_like_the_whole_network_on_pretrained_mobilenet(unfrozen, samples, tmp_path):
    def make():
        backbone, weights = build_backbone("MobileNetV2-0.35", "imagenet", (96, 96, 3))
        assert weights.kind == "imagenet"
        model = unfreeze_top(build_classifier(backbone, seed=1), unfrozen)
        return compile_model(model, learning_rate=1e-4 if unfrozen else 1e-3)

    compare(make, samples, tmp_path, 96, "tf")


@pytest.mark.slow
@once
def test_features_without_pooling_and_two_outputs(samples, tmp_path):
    def data():
        return batches(samples, tmp_path, 64, class_mode="categorical")

    options = dict(epochs=4, progress=False)
    through = fit(small_without_pooling(), *data(), **options)
    folder = tmp_path / "features"
    cached = fit_frozen(small_without_pooling(), *data(), cache_dir=folder, **options)
    assert np.abs(through["val_loss"] - cached["val_loss"]).max() < 1e-3
    assert through["val_loss"].nunique() == 4
    shapes = [np.load(file, mmap_mode="r").shape[1:] for file in folder.glob("*.npy")]
    assert shapes == [(15, 15, 32)] * 2


@pytest.mark.slow
@once
def test_frozen_training_takes_a_conditional_loss(samples, tmp_path):
    """The head is trained with the model's own loss object, settings included."""

    def make():
        return compile_model(small(), loss=ConditionalLoss(1 / 16, 2, "penalty"))

    options = dict(epochs=2, progress=False)
    data = batches(samples, tmp_path, 64)
    frozen = fit_frozen(make(), *data, cache_dir=tmp_path / "features", **options)
    expected = fit(make(), *batches(samples, tmp_path, 64), **options)
    np.testing.assert_allclose(frozen["loss"], expected["loss"], atol=1e-3)


LARGE = ("DenseNet121", "Xception", "ResNet50", "MobileNetV2-0.35", "MobileNet-0.25")


def four_convolutions():
    first = x = keras.Input((72, 72, 3))
    for filters in (4, 8, 8, 16):
        x = layers.Conv2D(filters, 3, strides=2)(x)
        x = layers.BatchNormalization()(x)
    return keras.Model(first, x)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [*(pytest.param(name, marks=once) for name in LARGE), "four convolutions"]
)
def test_trunk_and_top_make_the_backbone(name):
    small = name == "four convolutions"
    backbone = four_convolutions() if small else build_backbone(name, "none", (72, 72, 3))[0]
    model = unfreeze_top(build_classifier(backbone, seed=0), 2 if small else 10)
    trunk, top = cut_backbone(backbone)
    x = np.random.default_rng(0).random((2, 72, 72, 3), "float32")
    expected = keras.ops.convert_to_numpy(backbone(x, training=False))
    parts = keras.ops.convert_to_numpy(top(trunk(x, training=False), training=False))
    assert np.abs(expected - parts).max() < 1e-5
    assert not trunk.trainable_variables
    trainable = {v.path for v in backbone.trainable_variables}
    assert {v.path for v in top.trainable_variables} == trainable
    assert len(trunk.layers) > 5 * len(top.layers) or name != "DenseNet121"
    assert cut_backbone(backbone)[0] is trunk
    assert split_backbone(model)[1][0] is top


def test_backbones_that_are_no_fixed_function_are_refused():
    model = small()
    model.layers[0].trainable = True
    with pytest.raises(ValueError, match="nothing below it is fixed"):
        split_backbone(model)
    stack = [layers.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Dropout(0.2)]
    backbone = keras.Sequential(stack)
    backbone.trainable = False
    with pytest.raises(ValueError, match="dropout of its own"):
        split_backbone(keras.Sequential([backbone, layers.Flatten()]))
    with pytest.raises(ValueError, match="does not begin with a backbone"):
        split_backbone(dense())


def test_killed_features_resume(tmp_path, monkeypatch):
    backbone = small().layers[0]
    images = np.random.default_rng(0).integers(0, 256, (200, 64, 64, 3), dtype=np.uint8)
    options = dict(batch_size=4, progress=False)
    expected = compute_features(backbone, images, cache_dir=tmp_path / "whole", **options)
    predict = features._predict_padded
    calls = []

    def die(*args):
        calls.append(1)
        if len(calls) == 40:
            raise KeyboardInterrupt
        return predict(*args)

    monkeypatch.setattr(features, "_predict_padded", die)
    folder = tmp_path / "part"
    with pytest.raises(KeyboardInterrupt):
        compute_features(backbone, images, cache_dir=folder, **options)
    assert not [path for path in folder.glob("*.npy") if ".partial" not in path.name]
    resumed = compute_features(backbone, images, cache_dir=folder, **options)
    assert len(calls) == 40 + 50 - 32  # 32 of the 50 batches were marked
    assert np.array_equal(resumed, expected)
    assert [path.suffix for path in folder.iterdir()] == [".npy"]


FEATURES = """
import sys
import time
from pathlib import Path

import keras
import numpy as np
from keras import layers

from deepfake_nb.training import features

keras.utils.set_random_seed(3)
backbone = keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(4, 3)], name="backbone")
images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
folder = Path(sys.argv[-1])
predict = features._predict_padded


def wait_for(name, seconds=120):
    end = time.monotonic() + seconds
    while not (folder / name).exists() and time.monotonic() < end:
        time.sleep(0.02)
    return (folder / name).exists()


def compute(cache="features"):
    options = dict(cache_dir=folder / cache, batch_size=4, progress=False)
    return features.compute_features(backbone, images, **options)
"""
SECOND = (
    FEATURES
    + """

def late(*args):
    (folder / "second computes").touch()
    wait_for("first is done")
    return predict(*args)


features._predict_padded = late
(folder / "second starts").touch()
np.save(folder / "second.npy", compute())
"""
)


@pytest.mark.slow
@files
def test_a_second_process_waits_for_the_features_of_the_first(forks, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(tmp_path)])
    first, calls, processes = {}, [], []
    exec(FEATURES, first)
    expected = np.array(first["compute"]("alone"))

    def begin(*args):
        calls.append(1)
        if len(calls) == 4:
            log = tmp_path / "log"
            processes.append(forks.start(log, run_script, SECOND, [str(tmp_path)]))
            assert first["wait_for"]("second starts")
            first["wait_for"]("second computes", 1)
        return first["predict"](*args)

    monkeypatch.setattr(features, "_predict_padded", begin)
    try:
        published = np.array(first["compute"]())
    finally:
        (tmp_path / "first is done").touch()
    processes[0].join(60)
    assert processes[0].exitcode == 0
    assert np.array_equal(published, expected)
    assert np.array_equal(np.load(tmp_path / "second.npy"), expected)
    assert not (tmp_path / "second computes").exists()
    assert [path.suffix for path in (tmp_path / "features").iterdir()] == [".npy"]


def test_features_are_stored_apart(samples, tmp_path):
    train, _ = batches(samples, tmp_path, 64)
    scaled, _ = batches(samples, tmp_path, 64, "tf")
    folder = tmp_path / "features"
    for seed in (0, 1):
        backbone = small(seed).layers[0]
        for data in (train, scaled, in_table_order(train)):  # the third has the rows of the first
            compute_features(backbone, data, cache_dir=folder, progress=False)
    assert len(list(folder.glob("*.npy"))) == 4


@pytest.mark.slow
@once
def test_deep_features_of_a_backbone_by_name(samples, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    options = dict(size=(64, 64), weights="none", cache_dir=tmp_path, progress=False)
    for name, channels in (("ResNet50", 2048), ("MobileNetV2-0.35", 1280)):
        found, loaded = deep_features(images, name, **options)
        assert found.shape == (5, channels)
        assert loaded.kind == "none"
        backbone, _ = build_backbone(name, "none", (64, 64, 3), seed=0)
        scaled = scale_images(images, BACKBONES[name].scaling)
        expected = keras.ops.convert_to_numpy(backbone(scaled, training=False)).mean((1, 2))
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    table, _ = deep_features(samples.iloc[:6], "MobileNetV2-0.35", **options)
    backwards, _ = deep_features(samples.iloc[:6][::-1], "MobileNetV2-0.35", **options)
    assert table.shape == (6, 1280)
    np.testing.assert_allclose(table, backwards[::-1], rtol=1e-3, atol=1e-4)
    found, _ = deep_features(images, "MobileNetV3Small", **options)  # not in `BACKBONES`
    assert found.shape == (5, 576)
    with pytest.raises(ValueError, match="ResNet34"):
        deep_features(images, "ResNet34", (64, 64))


@once
@pytest.mark.slow
def test_deep_features_of_pretrained_mobilenet(samples, tmp_path):
    found, loaded = deep_features(
        samples.iloc[:8], "MobileNetV2-0.35", (96, 96), cache_dir=tmp_path, progress=False
    )
    assert loaded.kind == "imagenet"
    assert found.shape == (8, 1280)
    assert np.isfinite(found).all()
    assert found.std(0).max() > 0.1


# ---- switches, without dropout, since XLA and 16-bit layers draw other masks from the same state


@pytest.mark.slow
@once
@pytest.mark.parametrize("jit_compile", [True, False])
def test_xla_is_a_switch(samples, tmp_path, jit_compile):
    model = small(dropout=0)
    options = dict(epochs=2, progress=False)
    data = batches(samples, tmp_path, 64)
    history = fit(model, *data, jit_compile=jit_compile, **options)
    reference = fit(small(dropout=0), *batches(samples, tmp_path, 64), **options)
    assert model.jit_compile == jit_compile
    assert np.abs(history["loss"] - reference["loss"]).max() < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", pytest.param("mixed_float16", marks=once)])
def test_mixed_precision_is_a_switch(samples, tmp_path, policy):
    def run(model, **options):
        return fit(model, *batches(samples, tmp_path, 64), epochs=2, progress=False, **options)

    mixed = dict(precision=policy, checkpoint=tmp_path / "run")
    model = small(dropout=0)
    history = run(model, **mixed)
    reference = run(small(dropout=0))
    difference = np.abs(history["loss"] - reference["loss"]).max()
    assert 0 < difference < 0.05
    assert np.isfinite(history.to_numpy()).all()
    assert {str(w.dtype) for w in model.weights} == {"float32"}
    assert model.layers[-1].compute_dtype == "float32"
    again = run(small(dropout=0), **mixed)
    assert again["loss"].tolist() == history["loss"].tolist()


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy",
    [
        "float32",
        pytest.param("mixed_float16", marks=once),
        pytest.param("mixed_bfloat16", marks=once),
    ],
)
def test_a_reset_model_trains_as_a_new_one_in_any_precision(policy):
    x = np.random.default_rng(0).random((8, 16, 16, 3)).astype("float32")
    y = np.array([[0], [1]] * 4, "float32")

    def new():
        model = compile_model(build_convnet((16, 16, 3), filters=(4,), seed=1))
        return set_precision(model, policy)

    def losses(model):
        return fit(model, (x, y), epochs=1, batch_size=4, progress=False)["loss"].tolist()

    expected = losses(new())
    model = new()
    weights = model.get_weights()
    for _ in range(3):
        assert losses(reset_training(model, weights)) == expected


# ---- scores


@pytest.mark.slow
@once
def test_scores_are_of_fake_and_in_the_order_of_the_table(samples, tmp_path):
    train, _ = batches(samples, tmp_path, 64)
    model = small(3)
    fit(model, train, epochs=1, progress=False)
    scores = predict_scores(model, train)
    options = dict(size=(64, 64), cache=tmp_path, shuffle=False, class_mode="binary")
    ordered = predict_scores(model, ImageBatches(samples, "train", **options))
    assert np.allclose(scores, ordered, atol=1e-6)
    shuffled = model.predict(train, verbose=0)[:, 0]
    assert not np.allclose(scores, shuffled, atol=1e-6)
    assert np.allclose(np.sort(scores), np.sort(shuffled), atol=1e-6)
    logits = keras.Sequential([layers.Input((1,)), layers.Dense(1, kernel_initializer="ones")])
    with pytest.raises(ValueError, match="no probabilities"):
        predict_scores(compile_model(logits), np.array([[4.0], [-3.0]], "float32"))


@pytest.mark.slow
def test_evaluate_agrees_with_the_history(samples, tmp_path):
    train, validation = batches(samples, tmp_path, 64)
    model = small()
    history = fit(model, train, validation, epochs=2, progress=False)
    expected = history["val_loss"].iloc[-1]
    assert evaluate(model, validation)["loss"] == pytest.approx(expected, abs=1e-5)
    assert history.columns[0] == "epoch"
    assert history.columns[-1] == "seconds"
    assert (history["seconds"] > 0).all()


# ---- preparing a training step


@pytest.fixture
def traced(monkeypatch):
    """The models whose training step is traced, once for each time."""
    models = []
    step = keras.Model.train_step

    def counted(self, *data):
        models.append(self)
        return step(self, *data)

    monkeypatch.setattr(keras.Model, "train_step", counted)
    return models


class TwoTargets(keras.utils.PyDataset):
    """Three batches whose y is a dictionary."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return 3

    def __getitem__(self, i):
        rows = slice(4 * i, 4 * i + 4)
        return self.x[rows], {"fake": self.y[rows], "changed": self.x[rows, ..., :1]}


@tracing
@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_with_several_outputs_is_traced_once(weighted, traced):
    """With all that makes variables: slots, averages, loss trackers, metrics, class weights."""
    x = np.random.default_rng(0).random((10, 8, 8, 3)).astype("float32")
    y = np.array([[0], [1]] * 5, "float32")
    inner = keras.Input((8, 8, 3))
    fake = layers.Dense(1, activation="sigmoid")(layers.Flatten()(inner))
    if weighted:
        model = keras.Model(inner, fake)
        optimizer = keras.optimizers.SGD(0.1, momentum=0.9)
        metrics = dict(metrics=["accuracy"], weighted_metrics=["auc"])
        model.compile(optimizer, "binary_crossentropy", **metrics)
        options = dict(batch_size=4, class_weight={0: 1.0, 1: 3.0})
        fit(model, (x, y), (x, y), epochs=2, progress=False, **options)
    else:
        changed = layers.Conv2D(1, 1, activation="sigmoid")(inner)
        model = keras.Model(inner, {"fake": fake, "changed": changed})
        model.compile(
            keras.optimizers.AdamW(1e-3, use_ema=True),
            {"fake": "binary_crossentropy", "changed": "mse"},
            metrics={"fake": [keras.metrics.AUC(), "accuracy"], "changed": "mae"},
        )
        fit(model, TwoTargets(x, y), epochs=2, progress=False)
    assert traced == [model]


@pytest.mark.slow
@tracing
@pytest.mark.parametrize("loader", [ImageBatches, keras_generator])
def test_preparing_changes_no_number(samples, tmp_path, loader):
    """The loader gives the same batches, though one was taken to prepare with."""
    options = dict(size=(64, 64), batch_size=16, class_mode="binary", validation_split=None, seed=9)
    if loader is ImageBatches:
        options["cache"] = tmp_path

    def losses(prepares: bool) -> list[float]:
        model = small()
        if not prepares:
            model.make_train_function()  # `fit` leaves a model that has one as it is
        train = loader(samples, "train", **options)
        return fit(model, train, epochs=3, progress=False)["loss"].tolist()

    assert losses(True) == losses(False)


@tracing
def test_preparing_leaves_a_model_without_shapes_to_keras():
    x = np.random.default_rng(0).random((8, 5), dtype="float32")
    y = (np.arange(8) % 2)[:, None].astype("float32")
    model = keras.Sequential([layers.Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy")
    assert prepare_training(model, (x, y)) is model
    assert not model.built
    assert not model.optimizer.built
    assert np.isfinite(fit(model, (x, y), epochs=2, progress=False)["loss"]).all()


# ---- a generative adversarial network


def test_a_gan_trains_repeatably_on_every_backend():
    rng = np.random.default_rng(0)
    images = rng.integers(100, 156, (12, 16, 16, 3)).astype(np.uint8)
    generator, history = train_gan(images, 12, 8, latent=8, width=4, learning_rate=2e-3)
    made = generate_images(generator, 5)
    assert (made.shape, made.dtype) == ((5, 16, 16, 3), np.uint8)
    assert (made == generate_images(generator, 5)).all()
    assert (made != generate_images(generator, 5, seed=1)).any()
    losses = history["discriminator"]
    assert np.isfinite(history.to_numpy()).all() and losses[-3:].mean() < losses[:3].mean()
    _, same = train_gan(images, 2, 8, latent=8, width=4, learning_rate=2e-3)
    np.testing.assert_allclose(same["discriminator"], losses[:2], rtol=1e-3)
