"""Both losses and the Dice metric: closed forms, gradients, several devices, saving, training."""

import json
import os
import subprocess
import sys
from functools import partial

import keras
import numpy as np
import pytest
from keras import layers, ops

from deepfake_nb.models.classifiers import compile_model
from deepfake_nb.models.losses import (
    SIGNS,
    BceDiceLoss,
    ConditionalLoss,
    DiceScore,
    conditional_curve,
    conditional_term,
    dice_coefficient,
)
from deepfake_nb.models.torlapati import build_model
from deepfake_nb.models.unets import build_unet
from deepfake_nb.training.checkpoints import set_precision
from deepfake_nb.training.fit import fit

pytestmark = [
    pytest.mark.backend,
    pytest.mark.filterwarnings(
        "ignore:__array__ implementation:DeprecationWarning"
    ),  # Keras's own, under NumPy 2
    pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64:UserWarning"),
]  # JAX has none
JAX = keras.backend.backend() == "jax"
once = pytest.mark.skipif(JAX, reason="the same on every backend")


def value_and_gradient(f, x):
    """A scalar function and its gradient by automatic differentiation, float64."""
    x = ops.convert_to_tensor(x)
    if JAX:
        import jax

        y, g = jax.value_and_grad(f)(x)
        return float(y), np.asarray(g, "float64")
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        y = f(x)
    return float(y), tape.gradient(y, x).numpy().astype("float64")


def loss_of_outputs(loss, labels, outputs, x):
    return loss(labels, outputs(x))


def number(x):
    return float(ops.convert_to_numpy(x))


def batch(n=64, mean=None, seed=0):
    """Predictions, and labels, of a batch; the mean is moved where it is given."""
    rng = np.random.default_rng(seed)
    p = (
        rng.uniform(0.02, 0.98, n)
        if mean is None
        else np.clip(mean + rng.uniform(-1, 1, n) * min(mean, 1 - mean), 0, 1)
    )
    return p.astype("float32"), rng.integers(0, 2, n).astype("float32")


# ---- the term


def printed(p, tau, phi, sign, symmetric):
    """The formula, letter by letter, in float64."""
    p = np.asarray(p, "float64")
    total = sum(
        1 - np.tanh(i * tau) ** 2
        for i in ([p.sum() - p.size, p.sum()] if symmetric else [p.sum() - p.size])
    )
    return {"printed": -1, "penalty": 1}[sign] * total * phi


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize(
    "n, mean, tau, phi",
    [
        (1, 0.5, 1, 1),
        (32, None, 0.03, 2),
        (32, 0.9, 0.3, 1),
        (128, 0.99, 0.1, 0.5),
        (4096, 0.9999, 1, 1),
        (3000, 0.2, 3e-4, 10),
        (32, 1, 1, 1),
        (32, 0, 0.03, 1),
    ],
)
def test_term_and_gradient_are_the_formula(n, mean, tau, phi, sign, symmetric):
    p, _ = batch(n, mean)
    options = dict(tau=tau, phi=phi, sign=sign, symmetric=symmetric)
    value, gradient = value_and_gradient(lambda q: conditional_term(q, **options), p)
    assert value == pytest.approx(printed(p, **options), rel=2e-5, abs=1e-7 * phi)
    term, slope = conditional_curve(p.mean(dtype="float64"), n, **options)
    assert value == pytest.approx(float(term), rel=2e-5, abs=1e-7 * phi)
    assert np.ptp(gradient) == 0  # it is a function of the sum
    assert gradient[0] == pytest.approx(float(slope), rel=1e-4, abs=1e-7 * phi * tau)
    h = 1e-4 * min(1, 1 / tau)  # and the slope is that of the formula
    numeric = (
        (
            printed(np.append(p[1:], float(p[0]) + h), **options)
            - printed(np.append(p[1:], float(p[0]) - h), **options)
        )
        / 2
        / h
    )
    assert float(slope) == pytest.approx(numeric, rel=1e-4, abs=1e-6 * phi * tau)


def test_all_ones_is_rewarded_as_printed_and_punished_as_described():
    for n in (1, 7, 4096):
        assert number(conditional_term(np.ones((n, 1)), 2, 3)) == -3
        assert number(conditional_term(np.ones((n, 1)), 2, 3, "penalty")) == 3
    assert number(conditional_term(np.zeros(64), 1, 3)) == pytest.approx(0, abs=1e-30)
    assert number(conditional_term(np.zeros(64), 1, 3, symmetric=True)) == -3


@pytest.mark.parametrize("tau", [1e3, 1e20, 3e38])
def test_nothing_overflows(tau):
    for p in (np.zeros(2048, "float32"), np.full(2048, 0.5, "float32"), np.ones(2048, "float32")):
        for symmetric in (False, True):
            term = partial(conditional_term, tau=tau, symmetric=symmetric)
            value, gradient = value_and_gradient(term, p)
            assert np.isfinite(value) and np.isfinite(gradient).all()
            assert np.isfinite(conditional_curve(p[0], 2048, tau, symmetric=symmetric)).all()
    assert np.isfinite(conditional_curve(np.linspace(0, 1, 11), 10**9, 1e308)).all()


def test_gradient_is_precise_next_to_one():
    """Where 1 − ŷ is tiny, the gradient is 2nτ²(1 − ŷ), not a difference of rounded numbers."""
    for distance in (2.0**-24, 2.0**-20, 1e-3):
        p = np.full(32, 1 - distance, "float32")
        _, gradient = value_and_gradient(lambda q: conditional_term(q, 0.05, sign="penalty"), p)
        assert gradient[0] == pytest.approx(
            2 * 32 * 0.05**2 * float(1 - p[0].astype("float64")), rel=1e-4
        )


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float64"])
def test_sixteen_bits_lose_nothing_of_what_they_hold(kind):
    n = 4000
    outputs = ops.cast(batch(n, 0.95)[0], kind)
    held = ops.convert_to_numpy(ops.cast(outputs, "float32")).astype("float64")
    term = conditional_term(outputs, 0.01)
    assert keras.backend.standardize_dtype(term.dtype) == "float32"
    assert number(term) == pytest.approx(printed(held, 0.01, 1, "printed", False), rel=1e-4)


def test_logits_are_the_same_term_and_reach_further():
    z = np.random.default_rng(0).normal(1, 2, 48).astype("float32")
    p = 1 / (1 + np.exp(-z.astype("float64")))
    for outputs in (z, z[:, None], np.stack([0 * z, z], 1), np.stack([-z / 2, z / 2], 1)):
        assert number(conditional_term(outputs, 0.05, from_logits=True)) == pytest.approx(
            printed(p, 0.05, 1, "printed", False), rel=1e-5
        )
    saturated = np.full(32, 30, "float32")
    assert (
        value_and_gradient(lambda q: conditional_term(ops.sigmoid(q), 0.05), saturated)[1][0] == 0
    )
    assert value_and_gradient(lambda q: conditional_term(q, 0.05, from_logits=True), saturated)[1][
        0
    ] == pytest.approx(-2 * 32 * 0.05**2 * np.exp(-60), rel=1e-3)


# ---- the loss


@pytest.mark.parametrize("weights", [None, np.linspace(0, 3, 64), np.zeros(64)])
def test_loss_is_kerass_entropy_plus_the_term(weights):
    p, y = batch()
    term = number(conditional_term(p, 0.02, 2, "penalty"))
    for labels in (y, y[:, None], y.astype("int32")):
        for outputs in (p, p[:, None]):
            expected = (
                number(keras.losses.BinaryCrossentropy()(y[:, None], p[:, None], weights)) + term
            )
            assert number(
                ConditionalLoss(0.02, 2, "penalty")(labels, outputs, weights)
            ) == pytest.approx(expected, rel=1e-5)
            if weights is not None:
                assert number(
                    ConditionalLoss(0.02, 2, "penalty")(labels, outputs, weights[:, None])
                ) == pytest.approx(expected, rel=1e-5)


def test_two_outputs_are_the_same_loss():
    p, y = batch()
    for labels in (y, y[:, None], np.eye(2)[y.astype(int)]):
        assert number(ConditionalLoss(0.02)(labels, np.stack([1 - p, p], 1))) == pytest.approx(
            number(ConditionalLoss(0.02)(y, p)), rel=1e-5
        )


def test_labels_do_not_enter_the_term():
    p, y = batch()
    for labels in (y, 1 - y, np.zeros(64)):
        entropy = number(keras.losses.BinaryCrossentropy()(labels[:, None], p[:, None]))
        assert number(ConditionalLoss(0.02)(labels, p)) - entropy == pytest.approx(
            number(conditional_term(p, 0.02)), abs=2e-6
        )


def test_gradient_of_the_loss():
    z = np.random.default_rng(1).normal(0, 2, (48, 1)).astype("float32")
    y = (np.arange(48) % 2).astype("float32")
    p = 1 / (1 + np.exp(-z.astype("float64")))
    for sign in SIGNS:
        slope = conditional_curve(p.mean(), 48, 0.03, 2, sign)[1]
        expected = (p - y[:, None]) / 48 + slope * p * (1 - p)
        for from_logits in (False, True):
            loss = ConditionalLoss(0.03, 2, sign, from_logits=from_logits)
            outputs = ops.convert_to_tensor if from_logits else ops.sigmoid
            value, gradient = value_and_gradient(partial(loss_of_outputs, loss, y, outputs), z)
            np.testing.assert_allclose(gradient, expected, atol=2e-6)


@pytest.mark.parametrize(
    "wrong, says",
    [
        (dict(sign="minus"), "sign='minus'"),
        (dict(tau=-0.1), "tau=-0.1"),
        (dict(phi=float("nan")), "phi=nan"),
        (dict(tau=float("inf")), "tau=inf"),
        (dict(phi="1"), "phi='1'"),
        (dict(tau=None), "tau=None"),
        (dict(reduction="sum"), "reduction='sum'"),
        (dict(reduction=None), "reduction=None"),
    ],
)
def test_bad_settings_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        ConditionalLoss(**wrong)


@pytest.mark.parametrize(
    "labels, outputs",
    [
        ((4, 2), (4, 1)),
        ((3, 1), (4, 1)),
        ((4, 3), (4, 2)),
        ((4, 1), (4, 3)),
        ((4, 1), (4, 1, 1)),
        ((4, 1, 1), (4, 1)),
        ((), ()),
    ],
)
def test_shapes_that_do_not_fit_are_refused(labels, outputs):
    with pytest.raises(ValueError, match="shape"):
        ConditionalLoss()(np.zeros(labels), np.full(outputs, 0.5))


def test_empty_batch_is_refused():
    for shape in ((0,), (0, 1), (0, 2)):
        with pytest.raises(ValueError, match="empty"):
            ConditionalLoss()(np.zeros((0, 1)), np.zeros(shape))


# ---- in a model


def small(outputs=1, seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(8, activation="relu"),
            layers.Dense(
                outputs, activation="sigmoid" if outputs == 1 else "softmax", dtype="float32"
            ),
        ]
    )


def data(n=96, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, 6)).astype("float32")
    return x, (x[:, 0] + x[:, 1] ** 2 > 0.5).astype("float32")


@pytest.mark.slow
@once
def test_configuration_survives_saving(forks, tmp_path):
    settings = dict(tau=0.125, phi=0.5, sign="penalty", symmetric=True, from_logits=False)
    loss = ConditionalLoss(**settings, name="mine")
    copy = keras.losses.deserialize(json.loads(json.dumps(keras.losses.serialize(loss))))
    assert (
        type(copy) is ConditionalLoss
        and copy.get_config() == loss.get_config()
        and settings.items() <= copy.get_config().items()
    )
    model, (x, y) = compile_model(small(), loss=loss), data()
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.loss.get_config() == loss.get_config()
    assert again.evaluate(x, y, verbose=0) == pytest.approx(model.evaluate(x, y, verbose=0))
    code = (  # another process, which has imported none of the library's classes
        "import sys; import deepfake_nb as dnb; "
        "m = dnb.load_model(sys.argv[1]); print(m.loss.tau, m.loss.sign)"
    )
    log = tmp_path / "log"
    forks.script(code, tmp_path / "model.keras", log=log)
    assert log.read_text().splitlines()[-1].split() == ["0.125", "penalty"], log.read_text()[-500:]


@pytest.mark.slow
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_training_step_in_a_compiled_graph(outputs, jit_compile):
    """What `fit` reports is what NumPy computes, for outputs of either kind."""
    x, y = data(32)
    loss = ConditionalLoss(0.05, 2, "penalty")
    model = compile_model(small(outputs), loss=loss, jit_compile=jit_compile)
    p = model.predict(x, verbose=0)[:, -1]
    coded = y if outputs == 1 else np.eye(2, dtype="float32")[y.astype(int)]
    entropy = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
    logged = model.fit(x, coded, batch_size=32, verbose=0).history["loss"][0]
    assert logged == pytest.approx(entropy + printed(p, 0.05, 2, "penalty", False), rel=1e-4)


@pytest.mark.slow
@once
def test_models_of_the_library_take_it():
    model = compile_model(
        build_model("II", (16, 16, 3), seed=0), loss=ConditionalLoss(0.1, sign="penalty")
    )
    x = np.random.default_rng(0).random((8, 16, 16, 3), "float32")
    assert np.isfinite(model.train_on_batch(x, np.eye(2)[np.arange(8) % 2])).all()


def test_smaller_last_batch_counts_its_own_predictions():
    x, y = data(40)
    model = compile_model(small(), loss=ConditionalLoss(0.05))
    p = model.predict(x, verbose=0)[:, 0].astype("float64")
    parts = [(slice(0, 32), 32), (slice(32, 40), 8)]
    expected = (
        sum(
            n
            * (
                -np.mean(y[s] * np.log(p[s]) + (1 - y[s]) * np.log(1 - p[s]))
                + printed(p[s], 0.05, 1, "printed", False)
            )
            for s, n in parts
        )
        / 40
    )
    assert model.evaluate(x, y, batch_size=32, verbose=0, return_dict=True)[
        "loss"
    ] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", pytest.param("mixed_float16", marks=once)])
def test_mixed_precision(policy):
    (x, y), losses = data(64), {}
    for p in ("float32", policy):
        model = set_precision(compile_model(small(), loss=ConditionalLoss(1 / 64, 1, "penalty")), p)
        losses[p] = fit(model, (x, y), epochs=3, batch_size=64, progress=False)["loss"].to_numpy()
    np.testing.assert_allclose(losses[policy], losses["float32"], rtol=0.02)
    half = compile_model(
        keras.Sequential([layers.Input((6,)), layers.Dense(1, activation="sigmoid", dtype=policy)]),
        loss=ConditionalLoss(1 / 64),
    )  # also the last layer in 16 bits
    assert np.isfinite(half.fit(x, y, verbose=0).history["loss"][0])


@pytest.mark.slow
def test_it_does_what_it_says_in_training():
    """The penalty lowers the mean prediction of an uninformed model, the printed sign raises it."""
    x, y = np.zeros((300, 6), "float32"), (np.arange(300) % 10 > 0).astype("float32")
    means = {}
    for sign, phi in (("penalty", 0), ("printed", 2), ("penalty", 2)):
        model = compile_model(
            keras.Sequential([layers.Input((6,)), layers.Dense(1, activation="sigmoid")]),
            0.05,
            loss=ConditionalLoss(1 / 30, phi, sign),
        )
        fit(model, (x, y), epochs=30, batch_size=30, progress=False)
        means[sign if phi else "none"] = model.predict(x[:1], verbose=0).item()
    assert means["none"] == pytest.approx(0.9, abs=0.02)
    assert means["penalty"] < means["none"] - 0.1 and means["printed"] > means["none"] + 0.005
    m = np.linspace(0.001, 0.999, 9999)
    for sign in SIGNS:
        curve = (
            -0.9 * np.log(m) - 0.1 * np.log(1 - m) + conditional_curve(m, 30, 1 / 30, 2, sign)[0]
        )
        assert means[sign] == pytest.approx(m[curve.argmin()], abs=0.03)


# ---- cross-entropy and Dice


def maps(n=4, side=16, empty=2, seed=0):
    """Masks (n, side, side, 1), the first of them empty, and predictions."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, side, side, 1)) < 0.3).astype("float32")
    truth[:empty] = 0
    return truth, rng.uniform(0.01, 0.99, truth.shape).astype("float32")


def by_hand(truth, p, smooth=1.0, weight=1.0, pooled=False, weights=None):
    """The formula in float64: the mean over images."""
    truth, p = truth.astype("float64"), p.astype("float64")
    entropy = -(truth * np.log(p) + (1 - truth) * np.log(1 - p)).mean((1, 2, 3))
    axes = None if pooled else (1, 2, 3)
    term = (
        -np.log((2 * (truth * p).sum(axes) + smooth) / (truth.sum(axes) + p.sum(axes) + smooth))
        * weight
    )
    w = np.ones(len(truth)) if weights is None else np.asarray(weights)
    return (entropy * w).mean() + term if pooled else ((entropy + term) * w).mean()


@pytest.mark.parametrize("weights", [None, [1, 2, 0, 0.5]])
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("smooth, weight", [(1, 1), (50, 0.5), (1e-3, 2), (1, 0)])
def test_dice_loss_is_the_formula(smooth, weight, pooled, weights):
    truth, p = maps()
    loss = BceDiceLoss(smooth, weight, pooled)
    weights = None if weights is None else np.asarray(weights, "float32")
    expected = by_hand(truth, p, smooth, weight, pooled, weights)
    for t, q in ((truth, p), (truth[..., 0], p), (truth, p[..., 0]), (truth.astype("uint8"), p)):
        assert number(loss(t, q, weights)) == pytest.approx(expected, rel=1e-4)
    logits = np.log(p.astype("float64") / (1 - p)).astype("float32")
    assert number(
        BceDiceLoss(smooth, weight, pooled, from_logits=True)(truth, logits, weights)
    ) == pytest.approx(expected, rel=1e-4)


def test_soft_dice_agrees_with_keras():
    truth, p = maps(empty=0)
    assert number(dice_coefficient(truth, p, 1e-7, pooled=True)) == pytest.approx(
        1 - number(keras.losses.Dice()(truth, p)), rel=1e-5
    )
    for i, value in enumerate(ops.convert_to_numpy(dice_coefficient(truth, p, 1e-7))):
        assert value == pytest.approx(1 - number(keras.losses.Dice()(truth[[i]], p[[i]])), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("truth", [0, 1])
@pytest.mark.parametrize("p", [0, 1e-4, 0.5, 1])
def test_empty_and_full_masks_are_finite(p, truth, kind, pooled):
    """No 16-bit sum over 256×256 pixels overflows, and right predictions cost nothing."""
    truth = np.full((2, 256, 256, 1), truth, "float32")
    value, gradient = value_and_gradient(
        lambda q: BceDiceLoss(pooled=pooled)(truth, ops.cast(q, kind)),
        np.full(truth.shape, p, "float32"),
    )
    assert np.isfinite(value) and np.isfinite(gradient).all()
    if p == truth.flat[0]:
        assert value == pytest.approx(0, abs=1e-3)
    for logit in (-60, 0, 60):
        assert np.isfinite(
            number(
                BceDiceLoss(pooled=pooled, from_logits=True)(
                    truth, np.full(truth.shape, logit, kind if kind != "bfloat16" else "float32")
                )
            )
        )


@pytest.mark.slow
def test_pull_on_an_empty_mask_is_bounded():
    """Σ|∂(−ln DICE)/∂logit| ≤ 1 for one empty mask, whatever is predicted."""
    truth = np.zeros((1, 64, 64, 1), "float32")
    for logit in np.linspace(-20, 20, 9):
        z = np.full(truth.shape, logit, "float32")
        pulls = []
        for weight in (1, 0):
            loss = BceDiceLoss(dice_weight=weight, from_logits=True)
            pulls.append(value_and_gradient(partial(loss, truth), z)[1])
        assert 0 <= (pulls[0] - pulls[1]).sum() <= 1.001


@pytest.mark.parametrize(
    "wrong, says",
    [
        (dict(smooth=0), "smooth=0"),
        (dict(smooth=float("nan")), "smooth=nan"),
        (dict(dice_weight=-1), "dice_weight=-1"),
        (dict(dice_weight=float("inf")), "dice_weight=inf"),
        (dict(reduction="none"), "mean over images"),
    ],
)
def test_bad_settings_of_the_dice_loss_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        BceDiceLoss(**wrong)


@pytest.mark.parametrize(
    "truth, p",
    [
        ((2, 8, 8, 1), (2, 8, 8, 2)),
        ((2, 8, 8), (3, 8, 8)),
        ((2, 8, 4, 1), (2, 8, 8, 1)),
        ((2, 8), (2, 8)),
        ((2, 1, 8, 8, 1), (2, 8, 8, 1)),
        ((0, 8, 8, 1), (0, 8, 8, 1)),
    ],
)
def test_maps_that_do_not_fit_are_refused(truth, p):
    for f in (BceDiceLoss(), BceDiceLoss(pooled=True), dice_coefficient, DiceScore().update_state):
        with pytest.raises(ValueError, match="shape"):
            f(np.zeros(truth), np.full(p, 0.5))


def test_weights_of_pixels_are_refused():
    truth, p = maps()
    with pytest.raises(ValueError, match="one for each image"):
        BceDiceLoss()(truth, p, np.ones_like(truth))
    assert number(BceDiceLoss()(truth, p, np.ones((4, 1)))) == pytest.approx(
        number(BceDiceLoss()(truth, p))
    )


@pytest.mark.slow
@once
def test_dice_loss_and_metric_survive_saving(tmp_path):
    model = compile_model(
        build_unet(input_shape=(16, 16, 3), features=2, levels=2, seed=0),
        loss=BceDiceLoss(2, 0.5, True),
        metrics=[DiceScore(0.3, True, "skip")],
    )
    x, (truth, _) = np.random.default_rng(0).random((4, 16, 16, 3), "float32"), maps()
    model.fit(x, truth, verbose=0)
    model.save(tmp_path / "unet.keras")
    again = keras.saving.load_model(tmp_path / "unet.keras")
    assert (
        again.loss.get_config() == model.loss.get_config() == BceDiceLoss(2, 0.5, True).get_config()
    )
    assert again.evaluate(x, truth, verbose=0) == pytest.approx(
        model.evaluate(x, truth, verbose=0), rel=1e-5
    )
    metric = DiceScore.from_config(DiceScore(0.3, True, "skip").get_config())
    assert (metric.threshold, metric.pooled, metric.empty, metric.name) == (
        0.3,
        True,
        "skip",
        "dice_pooled_fakes",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy, pooled",
    [
        pytest.param("float32", False, marks=once),
        pytest.param("float32", True, marks=once),
        ("mixed_bfloat16", False),
        pytest.param("mixed_float16", True, marks=once),
    ],
)
def test_unet_learns_masks(policy, pooled):
    """A bright square is outlined in unseen images; nothing is marked in the others."""
    rng = np.random.default_rng(0)
    x, truth = (
        rng.normal(0, 0.5, (96, 16, 16, 3)).astype("float32"),
        np.zeros((96, 16, 16, 1), "float32"),
    )
    for i in range(0, 96, 2):
        r, c = rng.integers(0, 10, 2)
        truth[i, r : r + 6, c : c + 6] = 1
    x += 1.5 * truth
    model = set_precision(
        compile_model(
            build_unet(input_shape=(16, 16, 3), features=4, levels=2, seed=0),
            5e-3,
            loss=BceDiceLoss(pooled=pooled),
            metrics=[DiceScore()],
        ),
        policy,
    )
    fit(model, (x[:64], truth[:64]), epochs=15, batch_size=8, progress=False)
    p = model.predict(x[64:], verbose=0)
    score = DiceScore(empty="skip")
    score.update_state(truth[64:], p)
    assert number(score.result()) > 0.85 and (p[1::2] > 0.5).mean() < 0.01


# ---- the metric


def hard(truth, p, pooled, empty, threshold=0.5):
    """Dice in NumPy, image by image."""
    pairs = [
        (t > 0.5, q > threshold) for t, q in zip(truth, p) if empty == "one" or (t > 0.5).any()
    ]
    if pooled:
        pairs = (
            [(np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs]))] if pairs else []
        )
    return (
        np.mean(
            [
                2 * (a & b).sum() / (a.sum() + b.sum()) if a.any() or b.any() else 1.0
                for a, b in pairs
            ]
        )
        if pairs
        else np.nan
    )


@pytest.mark.slow
@pytest.mark.parametrize("empty", ["one", "skip"])
@pytest.mark.parametrize("pooled", [False, True])
def test_metric_over_batches_is_the_metric_of_all(pooled, empty):
    truth, p = maps(12, empty=5)
    p[:2] = 0.1  # two real images rightly left alone, three not
    metric = DiceScore(pooled=pooled, empty=empty)
    for part in (slice(0, 5), slice(5, 6), slice(6, 12)):
        metric.update_state(truth[part], p[part])
    assert number(metric.result()) == pytest.approx(hard(truth, p, pooled, empty), rel=1e-5)
    model = keras.Sequential([layers.Input((16, 16, 1)), layers.Identity()])
    model.compile(loss="mse", metrics=[DiceScore(pooled=pooled, empty=empty, name="d")])
    assert model.evaluate(p, truth, batch_size=5, verbose=0, return_dict=True)[
        "d"
    ] == pytest.approx(hard(truth, p, pooled, empty), rel=1e-5)
    metric.reset_state()
    assert np.isnan(number(metric.result()))


def test_what_an_empty_mask_counts():
    nothing, something = (
        np.zeros((1, 8, 8, 1)),
        np.pad(np.ones((1, 2, 2, 1)), ((0, 0), (3, 3), (3, 3), (0, 0))),
    )

    def score(truth, p, **options):
        metric = DiceScore(**options)
        metric.update_state(truth, p)
        return number(metric.result())

    for pooled in (False, True):
        assert score(nothing, nothing, pooled=pooled) == 1
        assert score(nothing, something, pooled=pooled) == 0
        assert score(something, nothing, pooled=pooled) == 0
        assert np.isnan(score(nothing, nothing, pooled=pooled, empty="skip")) and np.isnan(
            score(nothing, something, pooled=pooled, empty="skip")
        )
        assert score(something, something, pooled=pooled, empty="skip") == 1
    one_false_alarm = np.concatenate([something, nothing]), np.concatenate([something, something])
    assert score(*one_false_alarm) == 0.5 and score(*one_false_alarm, empty="skip") == 1
    assert (
        score(*one_false_alarm, pooled=True) == pytest.approx(2 / 3)
        and score(*one_false_alarm, pooled=True, empty="skip") == 1
    )


def test_metric_weights_images_and_takes_soft_maps():
    truth, p = maps(4, empty=0)
    each = ops.convert_to_numpy(dice_coefficient(truth, p, 1e-9))
    metric = DiceScore(threshold=None)
    metric.update_state(truth, p, sample_weight=np.array([1, 0, 2, 1]))
    assert number(metric.result()) == pytest.approx((each * [1, 0, 2, 1]).sum() / 4, rel=1e-5)


def test_pooled_metric_counts_millions_of_pixels():
    metric = DiceScore(pooled=True)
    truth = np.zeros((64, 256, 256, 1), "uint8")
    truth[:, :128] = 1
    p = np.zeros(truth.shape, "float32")
    p[:, 64:192] = 1
    for _ in range(20):
        metric.update_state(truth, p)
    assert number(metric.result()) == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize(
    "wrong, says",
    [
        (dict(empty="zero"), "empty='zero'"),
        (dict(threshold=1), "threshold=1"),
        (dict(threshold=-0.1), "threshold=-0.1"),
    ],
)
def test_bad_settings_of_the_metric_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        DiceScore(**wrong)


# ---- several devices

TWO_DEVICES = """
import json, sys
import numpy as np, tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from keras import layers
from deepfake_nb.models.losses import BceDiceLoss, ConditionalLoss, DiceScore, conditional_term

x = np.random.default_rng(0).normal(size=(48, 6)).astype("float32")
x[24:] += 1  # the halves differ
y = (np.arange(48) % 3 > 0).astype("float32")
w = np.linspace(0.5, 2, 48).astype("float32")
options = dict(tau=1 / 16, phi=2, sign=sys.argv[1], symmetric=sys.argv[2] == "True")
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def distribute(function):
    return strategy.experimental_distribute_values_from_function(
        lambda context: tf.constant(function(context.replica_id_in_sync_group))
    )


def halves(array):
    return distribute(lambda replica: np.split(array, 2)[replica])


def results(values):
    return strategy.experimental_local_results(values)


def build():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            layers.Input((6,)),
            layers.Dense(5, activation="tanh"),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    loss = ConditionalLoss(**options)
    model.compile(keras.optimizers.SGD(0.5), loss=loss, jit_compile=False)
    return model


def step(model, x, y, w):
    with tf.GradientTape() as tape:
        loss = model.loss(y, model(x, training=True), w)
    return loss, tape.gradient(loss, model.trainable_variables)


one = build()
loss, gradients = step(one, x, y, w)
out = {"one": float(loss), "gradients_one": [g.numpy().tolist() for g in gradients]}
with strategy.scope():
    two = build()


@tf.function
def both(x, y, w):
    loss, gradients = strategy.run(step, args=(two, x, y, w))
    gradients = [strategy.reduce("SUM", g, axis=None) for g in gradients]
    return strategy.reduce("SUM", loss, axis=None), gradients


loss, gradients = both(halves(x), halves(y), halves(w))
out |= {"two": float(loss), "gradients_two": [g.numpy().tolist() for g in gradients]}

# 40 predictions on one device, 8 on the other
uneven = np.random.default_rng(1).uniform(0.6, 1, 48).astype("float32")
values = distribute(lambda replica: uneven[40:] if replica else uneven[:40])
terms = strategy.run(lambda p: conditional_term(p, **options), args=(values,))
out["uneven"] = [float(v) for v in results(terms)]
out["whole"] = float(conditional_term(uneven, **options))

truth = (np.random.default_rng(2).random((8, 8, 8, 1)) < 0.3).astype("float32")
truth[5:] = 0
maps = np.random.default_rng(3).uniform(0.05, 0.95, truth.shape).astype("float32")
for pooled in (False, True):
    loss = BceDiceLoss(pooled=pooled)

    def one_map(z, t):
        with tf.GradientTape() as tape:
            tape.watch(z)
            value = loss(t, tf.sigmoid(z))
        return value, tape.gradient(value, z)

    value, gradient = one_map(tf.constant(maps), truth)
    values, gradients = strategy.run(one_map, args=(halves(maps), halves(truth)))
    gradients = np.concatenate([g.numpy() for g in results(gradients)])
    out[f"dice_{pooled}"] = [
        [float(value), float(sum(results(values)))],
        [gradient.numpy().ravel().tolist(), gradients.ravel().tolist()],
    ]


def flat():
    model = keras.Sequential([layers.Input((8, 8, 1)), layers.Identity()])
    metrics = [DiceScore(), DiceScore(pooled=True)]
    model.compile(loss=BceDiceLoss(), metrics=metrics, jit_compile=False)
    return model.evaluate(maps, truth, batch_size=8, verbose=0)


with strategy.scope():
    there = flat()
out["metrics"] = [flat(), there]

fits = []
for model in (one, two):
    history = model.fit(x, y, sample_weight=w, batch_size=16, epochs=3, shuffle=False, verbose=0)
    fits.append(
        {
            "history": history.history["loss"],
            "weights": [v.tolist() for v in model.get_weights()],
            "evaluate": model.evaluate(x, y, batch_size=48, verbose=0),
        }
    )
out["fits"] = fits
print(json.dumps(out))
"""


@pytest.mark.slow
@pytest.mark.skipif(JAX, reason="tf.distribute")
@pytest.mark.parametrize("sign, symmetric", [("penalty", False), ("printed", True)])
def test_two_devices_are_one_batch(sign, symmetric, forks, tmp_path):
    log = tmp_path / "log"
    assert forks.script(TWO_DEVICES, sign, symmetric, log=log) == 0, log.read_text()[-2000:]
    out = json.loads(log.read_text().splitlines()[-1])
    assert out["two"] == pytest.approx(out["one"], rel=1e-5)
    for one, two in zip(out["gradients_one"], out["gradients_two"], strict=True):
        np.testing.assert_allclose(two, one, atol=1e-6)
    assert out["uneven"] == pytest.approx([out["whole"]] * 2, rel=1e-5)
    for pooled in (False, True):
        (one, two), (gradient_one, gradient_two) = out[f"dice_{pooled}"]
        assert two == pytest.approx(one, rel=1e-5)
        np.testing.assert_allclose(gradient_two, gradient_one, atol=1e-7)
    assert out["metrics"][1] == pytest.approx(out["metrics"][0], rel=1e-5)
    one, two = out["fits"]
    assert two["history"] == pytest.approx(one["history"], rel=1e-4) and two[
        "evaluate"
    ] == pytest.approx(one["evaluate"], rel=1e-4)
    for a, b in zip(one["weights"], two["weights"], strict=True):
        np.testing.assert_allclose(b, a, atol=1e-5)


TWO_DEVICES_JAX = """
import json
import keras, numpy as np
from keras import layers
from deepfake_nb.models.losses import ConditionalLoss

x = np.random.default_rng(0).normal(size=(48, 6)).astype("float32")
x[24:] += 1
y = (np.arange(48) % 3 > 0).astype("float32")
for devices in (1, 2):
    if devices == 2:
        both = keras.distribution.list_devices("cpu")
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=both))
    keras.utils.set_random_seed(0)
    hidden = layers.Dense(5, activation="tanh")
    model = keras.Sequential([layers.Input((6,)), hidden, layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.SGD(0.5), loss=ConditionalLoss(1 / 16, 2, "penalty"))
    history = model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0).history["loss"]
    used = len(model.weights[0].value.devices())
    print(json.dumps([used, history, [w.tolist() for w in model.get_weights()]]))
"""


@pytest.mark.slow
@pytest.mark.skipif(JAX, reason="in a process of its own, once")
def test_two_devices_under_jax():
    pytest.importorskip("jax")
    environment = {
        **os.environ,
        "KERAS_BACKEND": "jax",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, "-c", TWO_DEVICES_JAX]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    runs = [json.loads(line) for line in done.stdout.splitlines()]
    assert [run[0] for run in runs] == [1, 2]
    assert runs[1][1] == pytest.approx(runs[0][1], rel=1e-5)
    for a, b in zip(runs[0][2], runs[1][2], strict=True):
        np.testing.assert_allclose(b, a, atol=1e-6)
