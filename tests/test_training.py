"Training: a killed run ends like one that was not, cached features train like the whole network. Runs on the backend that KERAS_BACKEND names."

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from keras import layers
from PIL import Image

from deepfake_nb.training.loaders import ImageBatches, in_table_order, keras_generator
from deepfake_nb.training.scaling import scale_images
from deepfake_nb.models.losses import ConditionalLoss
from deepfake_nb.models.backbones import build_backbone
from deepfake_nb.models.classifiers import (
    build_convnet,
    compile_model,
    model_ii,
    build_classifier,
    unfreeze_top,
)
from deepfake_nb.models.registry import BACKBONES
from deepfake_nb.training.augmentation import Augmentation
from deepfake_nb.training.pairs import PairedBatches
from deepfake_nb.data.samples import make_samples
from deepfake_nb.core.errors import CheckpointError
from deepfake_nb.training.checkpoints import read_history, save_checkpoint, set_precision
from deepfake_nb.training.features import compute_features, deep_features
from deepfake_nb.training.fit import (
    evaluate,
    fit,
    predict_scores,
    prepare_training,
    reset_training,
    training_folder,
)
from deepfake_nb.training.frozen import cut_backbone, fit_frozen, split_backbone

pytestmark = pytest.mark.backend

once = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="on the other backend, a smaller one does"
)
files = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="of files and orders, not of tensors: a resumed training is enough of the other backend",
)
tracing = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="other backends do not make variables while they trace",
)

RUN = """
import os, signal, sys
import keras, numpy as np
from keras import layers
from deepfake_nb.models.classifiers import compile_model
from deepfake_nb.training.fit import ArrayBatches, fit

folder, out, kill_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
rng = np.random.default_rng(0)
x = rng.normal(size=(100, 12, 12, 3)).astype("float32")
y = (x.mean((1, 2, 3)) > 0).astype("float32")

class Kill(keras.callbacks.Callback):
    seen = 0
    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if self.seen == kill_at: os.kill(os.getpid(), signal.SIGKILL)

keras.utils.set_random_seed(os.getpid() if kill_at < 0 else 5)  # a resumed run gets nothing from its own start
model = keras.Sequential([layers.Input((12, 12, 3)), layers.Conv2D(6, 3, activation="relu"), layers.BatchNormalization(), layers.Flatten(),
                          layers.Dropout(0.4), layers.Dense(8, activation="relu"), layers.Dropout(0.2), layers.Dense(1, activation="sigmoid")])
compile_model(model, learning_rate=0.01)
history = fit(model, ArrayBatches(x, y, 16, seed=3), (x, y), epochs=5, checkpoint=folder, callbacks=[Kill()], progress=False)
np.savez(out, *model.get_weights(), *[keras.ops.convert_to_numpy(v) for v in model.optimizer.variables])
history.to_csv(out + ".csv", index=False)
"""


def launch(*args):
    return subprocess.run(
        [sys.executable, "-c", RUN, *map(str, args)], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    "A training in a process of its own that nothing disturbs."
    folder = tmp_path_factory.mktemp("whole")
    whole = launch(folder / "run", folder / "whole.npz", 0)
    assert whole.returncode == 0, whole.stderr[-2000:]
    return folder


@pytest.mark.slow
@once
@pytest.mark.parametrize(
    "kill_at", [3, pytest.param(18, marks=once), pytest.param(28, marks=once)]
)  # in the first epoch of 7 batches, in the third, and just at the end of the fourth
def test_killed_training_ends_like_one_never_killed(whole_run, tmp_path, kill_at):
    killed = launch(tmp_path / "killed", tmp_path / "killed.npz", kill_at)
    assert killed.returncode == -signal.SIGKILL and not (tmp_path / "killed.npz").exists()
    kept = read_history(tmp_path / "killed")
    assert (0 if kept is None else len(kept)) == (kill_at - 1) // 7
    # before the first checkpoint nothing but the seed is known: the same start then has to be given again
    resumed = launch(tmp_path / "killed", tmp_path / "killed.npz", -1 if kept is not None else 0)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    with np.load(whole_run / "whole.npz") as a, np.load(tmp_path / "killed.npz") as b:
        assert max(np.abs(a[k].astype("float64") - b[k]).max() for k in a) <= 1e-6
    a, b = (pd.read_csv(p) for p in (whole_run / "whole.npz.csv", tmp_path / "killed.npz.csv"))
    assert a["epoch"].tolist() == b["epoch"].tolist() == [1, 2, 3, 4, 5]
    assert np.abs(a["val_loss"] - b["val_loss"]).max() <= 1e-6 and a["val_loss"].nunique() == 5


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    root, rng, rows = tmp_path_factory.mktemp("images"), np.random.default_rng(0), []
    for i in range(90):
        image = (
            np.kron(rng.uniform(60, 200, (8, 8, 3)), np.ones((8, 8, 1)))
            + (i % 2) * 12 * (np.indices((64, 64)).sum(0) % 2 * 2 - 1)[..., None]
        )
        Image.fromarray(image.clip(0, 255).astype("uint8")).save(root / f"{i:02d}.png")
        rows.append(
            dict(
                path=str(root / f"{i:02d}.png"),
                kind="image",
                label=i % 2,
                dataset="textures",
                split="train" if i < 60 else "validation",
            )
        )
    return make_samples(rows)


def batches(samples, cache, size, scaling="unit", class_mode="binary", **options):
    shared = dict(
        size=(size, size), batch_size=16, class_mode=class_mode, scaling=scaling, cache=cache
    )
    return ImageBatches(samples, "train", seed=4, **shared, **options), ImageBatches(
        samples, "validation", shuffle=False, **shared
    )


def compare(make, samples, tmp_path, size, scaling):
    "Seven epochs through the base and on features."
    whole, head = make(), make()
    for a, b in zip(whole.get_weights(), head.get_weights()):
        assert np.array_equal(a, b)
    through = fit(whole, *batches(samples, tmp_path, size, scaling), epochs=7, progress=False)
    cached = fit_frozen(
        head,
        *batches(samples, tmp_path, size, scaling),
        epochs=7,
        cache_dir=tmp_path / "features",
        progress=False,
    )
    assert through["val_loss"].max() - through["val_loss"].min() > 0.01, (
        "a loss that does not move proves nothing"
    )
    assert np.abs(through["val_loss"] - cached["val_loss"]).max() < 1e-3
    assert np.abs(through["loss"] - cached["loss"]).max() < 1e-3
    train, _ = batches(samples, tmp_path, size, scaling)
    assert np.abs(predict_scores(whole, train) - predict_scores(head, train)).max() < 2e-3


def small(seed=0, pool=True, **options):
    keras.utils.set_random_seed(seed)
    base = keras.Sequential(
        [
            layers.Input((64, 64, 3)),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(32, 3, strides=2),
        ]
    )
    if pool:
        return compile_model(build_classifier(base, seed=seed, **options), learning_rate=3e-3)
    base.trainable = False
    return compile_model(
        keras.Sequential(
            [
                layers.Input((64, 64, 3)),
                base,
                layers.Flatten(),
                layers.Dropout(0.3),
                layers.Dense(2, activation="softmax"),
            ]
        ),
        learning_rate=1e-3,
    )


@pytest.mark.slow
@pytest.mark.parametrize("scaling", [pytest.param("unit", marks=once), "tf"])
def test_features_train_like_the_whole_network(samples, tmp_path, scaling):
    compare(small, samples, tmp_path, 64, scaling)


@pytest.mark.slow
@once
def test_features_without_pooling_and_two_outputs(samples, tmp_path):
    whole, head = small(pool=False), small(pool=False)
    data = lambda: batches(samples, tmp_path, 64, class_mode="categorical")
    through = fit(whole, *data(), epochs=4, progress=False)
    cached = fit_frozen(head, *data(), epochs=4, cache_dir=tmp_path / "features", progress=False)
    assert (
        np.abs(through["val_loss"] - cached["val_loss"]).max() < 1e-3
        and through["val_loss"].nunique() == 4
    )
    (file,) = sorted((tmp_path / "features").glob("*.npy"))[:1]
    assert np.load(file, mmap_mode="r").shape[1:] == (15, 15, 32)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *(
            pytest.param(large, marks=once)
            for large in ("DenseNet121", "Xception", "ResNet50", "MobileNetV2-0.35")
        ),
        "MobileNet-0.25",
    ],
)
def test_trunk_and_top_make_the_base(name):
    base, _ = build_backbone(name, "none", (72, 72, 3))
    model = unfreeze_top(build_classifier(base, seed=0), 10)
    trunk, top = cut_backbone(base)
    x = np.random.default_rng(0).random((2, 72, 72, 3), "float32")
    whole, parts = base(x, training=False), top(trunk(x, training=False), training=False)
    assert (
        np.abs(keras.ops.convert_to_numpy(whole) - keras.ops.convert_to_numpy(parts)).max() < 1e-5
    )
    assert not trunk.trainable_variables and {v.path for v in top.trainable_variables} == {
        v.path for v in base.trainable_variables
    }
    assert len(trunk.layers) > 5 * len(top.layers) or name != "DenseNet121"
    assert cut_backbone(base)[0] is trunk and split_backbone(model)[1][0] is top


@once
@pytest.mark.parametrize("unfrozen", [0, 10])
def test_features_train_like_the_whole_network_on_pretrained_mobilenet(unfrozen, samples, tmp_path):
    root = os.environ.get("DEEPFAKE_NB_DATA")
    path = Path(root or ".") / "weights" / "mobilenet_v2_0.35_224_imagenet_notop.weights.h5"
    if root is None or not path.exists():
        pytest.skip(
            "pretrained MobileNetV2-0.35 is not there: set DEEPFAKE_NB_DATA to the folder that holds weights/"
        )

    def make():
        base, weights = build_backbone("MobileNetV2-0.35", path, (96, 96, 3))
        assert weights.path is not None
        return compile_model(
            unfreeze_top(build_classifier(base, seed=1), unfrozen),
            learning_rate=1e-4 if unfrozen else 1e-3,
        )

    compare(make, samples, tmp_path, 96, "tf")


def test_killed_features_go_on(samples, tmp_path, monkeypatch):
    base = small().layers[0]
    images = np.random.default_rng(0).integers(0, 256, (200, 64, 64, 3), dtype=np.uint8)
    expected = compute_features(
        base, images, cache_dir=tmp_path / "whole", batch_size=4, progress=False
    )
    from deepfake_nb.training.features import _predict_padded, compute_features

    predict, calls = _predict_padded, []

    def die(*args):
        calls.append(1)
        if len(calls) == 40:
            raise KeyboardInterrupt
        return predict(*args)

    monkeypatch.setattr(training, "_predict_padded", die)
    with pytest.raises(KeyboardInterrupt):
        compute_features(base, images, cache_dir=tmp_path / "part", batch_size=4, progress=False)
    assert not [p for p in (tmp_path / "part").glob("*.npy") if ".partial" not in p.name]
    resumed = compute_features(
        base, images, cache_dir=tmp_path / "part", batch_size=4, progress=False
    )
    assert len(calls) == 40 + 50 - 32  # 32 of the 50 batches were marked
    assert np.array_equal(resumed, expected) and [
        p.suffix for p in (tmp_path / "part").iterdir()
    ] == [".npy"]


FEATURES = """
import sys, time
from pathlib import Path
import keras, numpy as np
from keras import layers

keras.utils.set_random_seed(3)
base = keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(4, 3)], name="base")
images = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
folder, predict = Path(sys.argv[-1]), _predict_padded

def wait_for(name, seconds=120):
    end = time.monotonic() + seconds
    while not (folder / name).exists() and time.monotonic() < end: time.sleep(.02)
    return (folder / name).exists()

def compute(cache="features"): return compute_features(base, images, cache_dir=folder / cache, batch_size=4, progress=False)
"""
SECOND = (
    FEATURES
    + """
def late(*args):
    (folder / "second computes").touch()
    wait_for("first is done")
    return predict(*args)

_predict_padded = late
(folder / "second starts").touch()
np.save(folder / "second.npy", compute())
"""
)


@files
def test_a_second_process_waits_for_the_features_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(tmp_path)])
    first, calls = {}, []
    exec(FEATURES, first)
    expected = np.array(first["compute"]("alone"))

    def begin(*args):
        calls.append(1)
        if len(calls) == 4:
            calls.append(subprocess.Popen([sys.executable, "-c", SECOND, str(tmp_path)]))
            assert first["wait_for"]("second starts")
            first["wait_for"]("second computes", 1)
        return first["predict"](*args)

    monkeypatch.setattr(first["training"], "_predict_padded", begin)
    try:
        published = np.array(first["compute"]())
    finally:
        (tmp_path / "first is done").touch()
    assert calls[4].wait(60) == 0
    assert np.array_equal(published, expected) and np.array_equal(
        np.load(tmp_path / "second.npy"), expected
    )
    assert not (tmp_path / "second computes").exists() and [
        p.suffix for p in (tmp_path / "features").iterdir()
    ] == [".npy"]


def test_features_are_kept_apart(samples, tmp_path):
    train, _ = batches(samples, tmp_path, 64)
    for base in (small(0).layers[0], small(1).layers[0]):
        for data in (train, batches(samples, tmp_path, 64, "tf")[0], in_table_order(train)):
            compute_features(base, data, cache_dir=tmp_path / "features", progress=False)
    assert (
        len(list((tmp_path / "features").glob("*.npy"))) == 4
    )  # the third is the first in another order of reading: the same rows


def test_bases_that_are_no_fixed_function_are_refused():
    model = small()
    model.layers[0].trainable = True
    with pytest.raises(ValueError, match="nothing below it is fixed"):
        split_backbone(model)
    base = keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Dropout(0.2)])
    base.trainable = False
    with pytest.raises(ValueError, match="dropout of its own"):
        split_backbone(keras.Sequential([base, layers.Flatten()]))
    with pytest.raises(ValueError, match="does not begin with a base"):
        split_backbone(model_ii((32, 32, 3)))


@files
def test_resume_with_the_reports_loader(samples, tmp_path):
    "ImageDataGenerator's order is in the checkpoint too."

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
        train = keras_generator(samples, "train", (32, 32), 16, validation_split=None, seed=9)
        return fit(
            compile_model(model, 0.01), train, epochs=epochs, checkpoint=folder, progress=False
        ), model

    whole, a = run(tmp_path / "whole", 4)
    run(tmp_path / "part", 2)
    parts, b = run(tmp_path / "part", 4)
    assert np.abs(whole["loss"] - parts["loss"]).max() <= 1e-6
    assert max(np.abs(x - y).max() for x, y in zip(a.get_weights(), b.get_weights())) <= 1e-6


def paired_faces(root: Path, n: int = 14) -> pd.DataFrame:
    "Textures with a changed square, their masks, and their originals."
    rng, rows = np.random.default_rng(0), []
    for i in range(n):
        image = np.kron(rng.uniform(60, 200, (4, 4, 3)), np.ones((8, 8, 1))).astype("uint8")
        mask = np.zeros((32, 32), "uint8")
        mask[8 + i % 4 : 24, 8:22] = 255
        for name, picture in (
            ("real", image),
            ("fake", np.where(mask[..., None] > 0, image[::-1], image)),
            ("mask", mask),
        ):
            Image.fromarray(picture).save(root / f"{name}{i}.png")
        rows += [
            dict(
                path=str(root / f"{name}{i}.png"),
                kind="image",
                label=label,
                dataset="d",
                video=f"{name}{i}",
                original=f"real{i}",
                frame=0,
                mask_path=str(root / f"mask{i}.png") if label else None,
            )
            for label, name in enumerate(("real", "fake"))
        ]
    return make_samples(rows)


@files
def test_training_on_augmented_pairs_resumes(tmp_path):
    "Augmentation and self-blended fakes of an epoch are the same in a training that was stopped; batches keep what a killed process had begun with."
    samples, seen = paired_faces(tmp_path), {}

    class Recorded(PairedBatches):
        def load_batch(self, rows):
            batch = super().load_batch(rows)
            seen.setdefault(self.name, []).append(
                (self.epoch, batch[0].sum(dtype="float64"), batch[1].sum())
            )
            return batch

    def run(name, folder, epochs, callbacks=()):
        keras.utils.set_random_seed(2)
        model = keras.Sequential(
            [
                layers.Input((32, 32, 3)),
                layers.Conv2D(4, 3, padding="same", activation="relu"),
                layers.Dropout(0.2),
                layers.Conv2D(1, 3, padding="same", activation="sigmoid"),
            ]
        )
        train = Recorded(
            samples,
            size=(32, 32),
            pairs=4,
            augment=Augmentation(),
            self_blend=0.4,
            seed=3,
            cache=None,
            progress=False,
        )
        train.name = name
        return fit(
            compile_model(model, 0.01),
            train,
            epochs=epochs,
            checkpoint=folder,
            callbacks=callbacks,
            progress=False,
        ), model

    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    whole, a = run("whole", tmp_path / "whole", 4)
    with pytest.raises(KeyboardInterrupt):
        run("first", tmp_path / "part", 4, [Stop()])
    parts, b = run("second", tmp_path / "part", 4)
    assert np.abs(whole["loss"] - parts["loss"]).max() <= 1e-6
    assert max(np.abs(x - y).max() for x, y in zip(a.get_weights(), b.get_weights())) <= 1e-6
    of = lambda name, epoch: {row for row in seen[name] if row[0] == epoch}
    for epoch in (2, 3):
        assert of("whole", epoch) == of("second", epoch) and len(of("whole", epoch)) == 4
    assert (
        len({row[1:] for epoch in range(4) for row in of("whole", epoch)}) >= 16
    )  # no batch twice
    with pytest.raises(CheckpointError, match="data"):  # other augmentation, another training
        fit(
            b,
            PairedBatches(samples, size=(32, 32), pairs=4, seed=3, cache=None, progress=False),
            epochs=4,
            checkpoint=tmp_path / "part",
            progress=False,
        )


@pytest.mark.slow
def test_frozen_training_resumes(samples, tmp_path):
    def run(folder, epochs):
        model = small()
        history = fit_frozen(
            model,
            *batches(samples, tmp_path, 64),
            epochs=epochs,
            checkpoint=folder,
            cache_dir=tmp_path / "features",
            progress=False,
        )
        return history, model

    whole, a = run(tmp_path / "whole", 5)
    run(tmp_path / "part", 3)
    parts, b = run(tmp_path / "part", 5)
    assert (
        len(parts) == 5
        and max(np.abs(x - y).max() for x, y in zip(a.get_weights(), b.get_weights())) <= 1e-6
    )


@files
@pytest.mark.slow
def test_checkpoint_of_another_training_is_refused(samples, tmp_path):
    x, y = np.random.default_rng(0).normal(size=(40, 6)).astype("float32"), np.arange(40) % 2

    def model(units=4, rate=0.01):
        return compile_model(
            keras.Sequential(
                [layers.Input((6,)), layers.Dense(units), layers.Dense(1, activation="sigmoid")]
            ),
            rate,
        )

    def run(model, x=x, **options):
        return fit(model, (x, y), epochs=3, checkpoint=tmp_path, progress=False, **options)

    fit(model(), (x, y), epochs=2, checkpoint=tmp_path, progress=False)
    for changed, what in (
        (lambda: run(model(rate=0.02)), "learning_rate"),
        (lambda: run(model(), seed=1), "seed"),
        (lambda: run(model(), x + 1), "data"),
        (lambda: run(model(), batch_size=8), "batch_size"),
        (lambda: run(model(), class_weight={0: 1.0, 1: 2.0}), "class_weight"),
        (lambda: run(model(units=5)), "do not fit"),
        (lambda: fit(model(), (x, y), epochs=1, checkpoint=tmp_path), "2 epochs"),
    ):
        with pytest.raises(CheckpointError, match=what):
            changed()
    assert len(run(model())) == 3


@files
@pytest.mark.parametrize("loader", [ImageBatches, keras_generator])
def test_other_labels_make_another_training(samples, tmp_path, loader):
    def run(table, folder):
        options = dict(size=(32, 32), batch_size=16, class_mode="binary", validation_split=None) | (
            dict(cache=tmp_path) if loader is ImageBatches else {}
        )
        model = compile_model(build_convnet((32, 32, 3), filters=(4,), seed=1))
        return training_folder(model, loader(table, "train", **options)), fit(
            model, loader(table, "train", **options), epochs=1, checkpoint=folder, progress=False
        )

    turned = samples.assign(label=1 - samples["label"])
    first, history = run(samples, tmp_path / "run")
    again, restored = run(samples, tmp_path / "run")
    assert again == first and restored.equals(history)
    with pytest.raises(CheckpointError, match="data"):
        run(turned, tmp_path / "run")
    assert run(turned, tmp_path / "other")[0] != first


@files
@pytest.mark.slow
def test_losses_of_one_name_are_told_apart_by_their_settings(tmp_path):
    x, y = (
        np.random.default_rng(0).normal(size=(40, 6)).astype("float32"),
        (np.arange(40) % 2).astype("float32"),
    )

    def run(loss, folder="run", epochs=1):
        model = compile_model(
            keras.Sequential([layers.Input((6,)), layers.Dense(1, activation="sigmoid")]), loss=loss
        )
        return fit(model, (x, y), epochs=epochs, checkpoint=tmp_path / folder, progress=False)

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
def test_checkpoints_made_before_settings_were_kept_go_on(tmp_path):
    "A loss given by name, and Keras's with its defaults, are described by their name alone, as they always were."
    x, y = (
        np.random.default_rng(0).normal(size=(40, 6)).astype("float32"),
        (np.arange(40) % 2).astype("float32"),
    )
    for loss, name in (
        ("mean_squared_error", "mean_squared_error"),
        (None, "binary_crossentropy"),
        (keras.losses.binary_crossentropy, "binary_crossentropy"),
    ):
        model = compile_model(
            keras.Sequential([layers.Input((6,)), layers.Dense(1, activation="sigmoid")]), loss=loss
        )
        fit(model, (x, y), epochs=1, checkpoint=tmp_path / str(loss), progress=False)
        kept = json.loads(next((tmp_path / str(loss)).glob("epoch-*/training.json")).read_text())[
            "settings"
        ]
        assert {k: v for k, v in kept.items() if k.startswith("loss")} == {"loss": name}


@pytest.mark.slow
@once
def test_frozen_training_takes_a_conditional_loss(samples, tmp_path):
    "The head is trained with the model's own loss object, settings included."
    model = compile_model(small(), loss=ConditionalLoss(1 / 16, 2, "penalty"))
    frozen = fit_frozen(
        model,
        *batches(samples, tmp_path, 64),
        epochs=2,
        cache_dir=tmp_path / "features",
        progress=False,
    )
    whole = fit(
        compile_model(small(), loss=ConditionalLoss(1 / 16, 2, "penalty")),
        *batches(samples, tmp_path, 64),
        epochs=2,
        progress=False,
    )
    np.testing.assert_allclose(frozen["loss"], whole["loss"], atol=1e-3)


def test_checkpoint_is_whole_or_not_at_all(tmp_path, monkeypatch):
    model = compile_model(keras.Sequential([layers.Input((2,)), layers.Dense(1)]))
    save_checkpoint(tmp_path, model, pd.DataFrame({"epoch": [1]}))
    monkeypatch.setattr(np, "savez", lambda *_, **__: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError):
        save_checkpoint(tmp_path, model, pd.DataFrame({"epoch": [1, 2]}))
    assert len(read_history(tmp_path)) == 1


# Without dropout, since XLA and 16-bit layers draw other masks from the same state.
@pytest.mark.slow
@once
@pytest.mark.parametrize("jit_compile", [True, False])
def test_xla_is_a_switch(samples, tmp_path, jit_compile):
    model = small(dropout=0)
    history = fit(
        model, *batches(samples, tmp_path, 64), epochs=2, jit_compile=jit_compile, progress=False
    )
    reference = fit(small(dropout=0), *batches(samples, tmp_path, 64), epochs=2, progress=False)
    assert (
        model.jit_compile == jit_compile
        and np.abs(history["loss"] - reference["loss"]).max() < 1e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", pytest.param("mixed_float16", marks=once)])
def test_mixed_precision_is_a_switch(samples, tmp_path, policy):
    model = small(dropout=0)
    history = fit(
        model,
        *batches(samples, tmp_path, 64),
        epochs=2,
        precision=policy,
        checkpoint=tmp_path / "run",
        progress=False,
    )
    reference = fit(small(dropout=0), *batches(samples, tmp_path, 64), epochs=2, progress=False)
    difference = np.abs(history["loss"] - reference["loss"]).max()
    assert 0 < difference < 0.05 and np.isfinite(history.to_numpy()).all()
    assert {str(w.dtype) for w in model.weights} == {"float32"} and model.layers[
        -1
    ].compute_dtype == "float32"
    again = fit(
        small(dropout=0),
        *batches(samples, tmp_path, 64),
        epochs=2,
        precision=policy,
        checkpoint=tmp_path / "run",
        progress=False,
    )
    assert again["loss"].tolist() == history["loss"].tolist()


@pytest.mark.slow
@once
def test_scores_are_of_fake_and_in_the_order_of_the_table(samples, tmp_path):
    train, validation = batches(samples, tmp_path, 64)
    model = small(3)
    fit(model, train, epochs=1, progress=False)
    scores = predict_scores(model, train)
    shuffled = model.predict(train, verbose=0)[:, 0]
    assert np.allclose(
        scores,
        predict_scores(
            model,
            ImageBatches(
                samples, "train", (64, 64), cache=tmp_path, shuffle=False, class_mode="binary"
            ),
        ),
        atol=1e-6,
    )
    assert not np.allclose(scores, shuffled, atol=1e-6) and np.allclose(
        np.sort(scores), np.sort(shuffled), atol=1e-6
    )
    logits = compile_model(
        keras.Sequential([layers.Input((1,)), layers.Dense(1, kernel_initializer="ones")])
    )
    with pytest.raises(ValueError, match="no probabilities"):
        predict_scores(logits, np.array([[4.0], [-3.0]], "float32"))


@pytest.mark.slow
def test_evaluate_agrees_with_the_history(samples, tmp_path):
    train, validation = batches(samples, tmp_path, 64)
    model = small()
    history = fit(model, train, validation, epochs=2, progress=False)
    assert evaluate(model, validation)["loss"] == pytest.approx(
        history["val_loss"].iloc[-1], abs=1e-5
    )
    assert (
        history.columns.tolist()[0] == "epoch"
        and history.columns.tolist()[-1] == "seconds"
        and (history["seconds"] > 0).all()
    )


@once
def test_deep_features_of_a_base_by_name(samples, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    for name, channels in (("ResNet50", 2048), ("MobileNetV2-0.35", 1280)):
        features, loaded = deep_features(
            images, name, (64, 64), "none", cache_dir=tmp_path, progress=False
        )
        assert features.shape == (5, channels) and loaded.kind == "none"
        base, _ = build_backbone(name, "none", (64, 64, 3), seed=0)
        expected = keras.ops.convert_to_numpy(
            base(scale_images(images, BACKBONES[name].scaling), training=False)
        ).mean((1, 2))
        np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4)
    table, _ = deep_features(
        samples.iloc[:6], "MobileNetV2-0.35", (64, 64), "none", cache_dir=tmp_path, progress=False
    )
    turned, _ = deep_features(
        samples.iloc[:6][::-1],
        "MobileNetV2-0.35",
        (64, 64),
        "none",
        cache_dir=tmp_path,
        progress=False,
    )
    assert table.shape == (6, 1280)
    np.testing.assert_allclose(table, turned[::-1], rtol=1e-3, atol=1e-4)
    assert deep_features(
        images, "DenseNet169", (64, 64), "none", cache_dir=tmp_path, progress=False
    )[0].shape == (5, 1664)  # not in `BACKBONES`
    with pytest.raises(ValueError, match="unknown base"):
        deep_features(images, "ResNet34", (64, 64))


@once
@pytest.mark.slow
def test_deep_features_of_pretrained_mobilenet(samples, tmp_path):
    root = os.environ.get("DEEPFAKE_NB_DATA")
    if (
        root is None
        or not (Path(root) / "weights" / "mobilenet_v2_0.35_224_imagenet_notop.weights.h5").exists()
    ):
        pytest.skip(
            "pretrained MobileNetV2-0.35 is not there: set DEEPFAKE_NB_DATA to the folder that holds weights/"
        )
    features, loaded = deep_features(
        samples.iloc[:8], "MobileNetV2-0.35", (96, 96), cache_dir=tmp_path, progress=False
    )
    assert (
        loaded.kind == "imagenet"
        and features.shape == (8, 1280)
        and np.isfinite(features).all()
        and features.std(0).max() > 0.1
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy",
    [
        "float32",
        pytest.param("mixed_float16", marks=once),
        pytest.param("mixed_bfloat16", marks=once),
    ],
)
def test_a_restarted_model_trains_as_a_new_one_in_any_precision(policy):
    rng = np.random.default_rng(0)
    x, y = rng.random((8, 16, 16, 3)).astype("float32"), np.array([[0], [1]] * 4, "float32")
    new = lambda: set_precision(
        compile_model(build_convnet((16, 16, 3), filters=(4,), seed=1)), policy
    )
    expected = fit(new(), (x, y), epochs=1, batch_size=4, progress=False)["loss"].tolist()
    model = new()
    weights = model.get_weights()
    for _ in range(3):
        assert (
            fit(reset_training(model, weights), (x, y), epochs=1, batch_size=4, progress=False)[
                "loss"
            ].tolist()
            == expected
        )


@tracing
@pytest.mark.parametrize("weighted", [False, True])
def test_a_step_with_several_outputs_is_traced_once(weighted, monkeypatch):
    "Whatever makes variables: an optimiser of two slots with averages, a tracker a loss, metrics by name and by class, class weights."
    traced, step = [], keras.Model.train_step
    monkeypatch.setattr(
        keras.Model, "train_step", lambda self, *data: traced.append(self) or step(self, *data)
    )
    rng = np.random.default_rng(0)
    x, y = rng.random((10, 8, 8, 3)).astype("float32"), np.array([[0], [1]] * 5, "float32")
    inner = keras.Input((8, 8, 3))
    one = keras.layers.Dense(1, activation="sigmoid")(keras.layers.Flatten()(inner))
    if weighted:
        model, optimiser = keras.Model(inner, one), keras.optimizers.SGD(0.1, momentum=0.9)
        model.compile(
            optimiser, "binary_crossentropy", metrics=["accuracy"], weighted_metrics=["auc"]
        )
        fit(
            model,
            (x, y),
            (x, y),
            epochs=2,
            batch_size=4,
            class_weight={0: 1.0, 1: 3.0},
            progress=False,
        )
    else:
        model, optimiser = (
            keras.Model(
                inner,
                {"fake": one, "changed": keras.layers.Conv2D(1, 1, activation="sigmoid")(inner)},
            ),
            keras.optimizers.AdamW(1e-3, use_ema=True),
        )
        model.compile(
            optimiser,
            {"fake": "binary_crossentropy", "changed": "mse"},
            metrics={"fake": [keras.metrics.AUC(), "accuracy"], "changed": "mae"},
        )

        class Both(keras.utils.PyDataset):
            def __len__(self):
                return 3

            def __getitem__(self, i):
                return x[4 * i : 4 * i + 4], {
                    "fake": y[4 * i : 4 * i + 4],
                    "changed": x[4 * i : 4 * i + 4, ..., :1],
                }

        fit(model, Both(), epochs=2, progress=False)
    assert traced == [model]


@tracing
@pytest.mark.parametrize("loader", [ImageBatches, keras_generator])
def test_preparing_changes_no_number(samples, tmp_path, loader):
    "The loader hands out the same batches, though one was taken to prepare with, and the optimiser begins as it did."

    def losses(prepares: bool) -> list[float]:
        model = small()
        if not prepares:
            model.make_train_function()  # `fit` leaves a model that has one as it is
        options = dict(
            size=(64, 64), batch_size=16, class_mode="binary", validation_split=None, seed=9
        ) | (dict(cache=tmp_path) if loader is ImageBatches else {})
        return fit(model, loader(samples, "train", **options), epochs=3, progress=False)[
            "loss"
        ].tolist()

    assert losses(True) == losses(False)


@tracing
def test_preparing_leaves_a_model_without_shapes_to_keras():
    x, y = np.random.default_rng(0).random((8, 5), dtype="float32"), np.arange(8) % 2
    model = keras.Sequential([layers.Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy")
    assert (
        prepare_training(model, (x, y)) is model and not model.built and not model.optimizer.built
    )
    assert np.isfinite(
        fit(model, (x, y[:, None].astype("float32")), epochs=2, progress=False)["loss"]
    ).all()
