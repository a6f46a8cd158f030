"""Draw the README's picture (`make overview`).

It shows a rendered person, a fake of them, what was changed, what a network looks at, the
spectrum, and the verdicts of the committed ledgers.
"""

import argparse
import io
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))  # the library of this checkout
TARGET = ROOT / "nbs" / "overview.png"
COUNTED = "deepfake_nb ledger"  # name of the counts in the picture's metadata
SIDE, PATCH, SEED = 64, 10, 0  # pixels that the network sees, pixels hidden at once
VERDICT_COLOURS = {
    "reproduced": "#009E73",
    "agrees": "#66C2A5",
    "not reproduced": "#D55E00",
    "disagrees": "#FC8D62",
    "undecided": "#E6C229",
    "underpowered": "#B3A369",
    "void": "#8C6BB1",
    "contradicted by the report itself": "#CC79A7",
    "value lost": "#A6761D",
    "source damaged": "#7A4B1E",
    "not tested": "#DDDDDD",
}


def ledger_counts() -> dict[str, dict[str, int]]:
    "Verdicts of the ledger by source, those that occur."
    from deepfake_nb.reporting.sources import count_sources, load_sources

    counts = count_sources(load_sources())
    return {
        source: {verdict: int(n) for verdict, n in column.items() if n}
        for source, column in counts.items()
    }


def counts_in(
    picture: Path,  # written by `main`
) -> dict[str, dict[str, int]]:
    "The counts that a picture was drawn from."
    from PIL import Image

    with Image.open(picture) as image:
        return json.loads(image.text[COUNTED])


def example() -> dict:
    """What the picture shows of one test image.

    The image, the fake made from it, its mask, the map of a network trained on other people, and
    the spectra of the classes.
    """
    import keras
    import numpy as np

    from deepfake_nb.core.images import read_image
    from deepfake_nb.data.datasets import load_samples
    from deepfake_nb.data.splits import split_samples
    from deepfake_nb.explain.faithfulness import relevance_mass_accuracy
    from deepfake_nb.explain.occlusion import occlusion_sensitivity
    from deepfake_nb.forensics.mask_datasets import load_masks
    from deepfake_nb.forensics.spectrum import azimuthal_spectrum, grey_image
    from deepfake_nb.models.classifiers import build_convnet, compile_model
    from deepfake_nb.training.fit import fit, predict_scores
    from deepfake_nb.training.loaders import load_images

    keras.utils.set_random_seed(SEED)
    samples = load_samples("synthetic-faces-crude")
    moment = (
        (samples["original"].astype(str) + " " + samples["frame"].astype(str))
        .rank(method="dense")
        .astype(int)
    )
    samples, _ = split_samples(
        samples[moment % 2 == 0].reset_index(drop=True),
        {"train": 0.6, "validation": 0.2, "test": 0.2},
        seed=SEED,
    )
    pixels, label = load_images(samples, (SIDE, SIDE), "area"), samples["label"].to_numpy()
    part = {
        name: np.flatnonzero(samples["split"] == name) for name in ("train", "validation", "test")
    }
    x = (pixels - pixels[part["train"]].mean()) / pixels[part["train"]].std()
    network = compile_model(build_convnet((SIDE, SIDE, 3), seed=SEED), 1e-3)
    data = [
        (x[part[name]], label[part[name], None].astype("float32"))
        for name in ("train", "validation")
    ]
    fit(network, *data, epochs=12, batch_size=32, seed=SEED, progress=False)
    test = samples.iloc[part["test"]].reset_index(drop=True)
    scores = predict_scores(network, x[part["test"]]).ravel()
    swaps = test.index[(test["manipulation"] == "face-swap") & (scores > 0.9)]
    maps = occlusion_sensitivity(
        network, x[part["test"]][swaps], PATCH, PATCH // 4, fill="mean", progress=False
    )
    inside = relevance_mass_accuracy(maps, load_masks(test.iloc[swaps], SIDE))["inside"].to_numpy()
    best = int(swaps[np.nanargmax(inside)])
    same = (test["original"] == test["original"][best]) & (
        test["frame"].astype(str) == str(test["frame"][best])
    )
    real = test.index[same & (test["label"] == 0)][0]
    spectra = azimuthal_spectrum([grey_image(read_image(p)) for p in test["path"]], n_features=80)
    return {
        "real": read_image(test["path"][real]),
        "fake": read_image(test["path"][best]),
        "mask": load_masks(test.loc[[best]], read_image(test["path"][best]).shape[0])[0],
        "map": maps[list(swaps).index(best)],
        "spectra": {name: spectra[test["label"] == k] for k, name in enumerate(("real", "fake"))},
    }


def draw(shown: dict, counts: dict[str, dict[str, int]]) -> bytes:
    "The picture, as PNG."
    import matplotlib.pyplot as plt
    import numpy as np

    from deepfake_nb.reporting.results import COLOURS, use_style

    use_style()
    figure = plt.figure(figsize=(10, 3.7), dpi=110)
    axes = figure.subplot_mosaic(
        [["real", "fake", "mask", "map", "spectrum"], ["bar"] * 5],
        width_ratios=[1, 1, 1, 1, 1.35],
        height_ratios=[1, 0.55],
    )
    grey, side = shown["fake"] @ np.array([0.299, 0.587, 0.114]), shown["fake"].shape[0]
    for name in ("real", "fake"):
        axes[name].imshow(shown[name])
    axes["mask"].imshow(grey, cmap="gray")
    axes["mask"].imshow(np.where(shown["mask"][..., None], np.array([0.84, 0.37, 0, 0.75]), 0.0))
    limit = np.abs(shown["map"]).max()
    axes["map"].imshow(grey, cmap="gray")
    axes["map"].imshow(
        shown["map"],
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
        alpha=0.65,
        extent=(-0.5, side - 0.5, side - 0.5, -0.5),
    )
    axes["map"].contour(shown["mask"].astype(float), levels=[0.5], colors="black", linewidths=1)
    titles = {
        "real": "a rendered person",
        "fake": "a fake of them",
        "mask": "what was changed",
        "map": "what a network looks at",
    }
    for name, title in titles.items():
        axes[name].set_title(title, fontsize=9, color=COLOURS.get(name, "black"))
        axes[name].axis("off")
    for name, values in shown["spectra"].items():
        axes["spectrum"].plot(values.mean(0), color=COLOURS[name], lw=1.4, label=name)
        axes["spectrum"].fill_between(
            range(values.shape[1]),
            *np.quantile(values, [0.1, 0.9], axis=0),
            color=COLOURS[name],
            alpha=0.2,
            lw=0,
        )
    axes["spectrum"].set_title("spectrum, real and fake", fontsize=9)
    axes["spectrum"].set(xlabel="frequency", xticks=[], yticks=[])
    axes["spectrum"].legend()
    bar(axes["bar"], counts)
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="png", dpi=110, metadata={COUNTED: json.dumps(counts), "Software": None}
    )
    plt.close(figure)
    return small(buffer.getvalue(), counts)


def bar(ax, counts: dict[str, dict[str, int]]) -> None:
    "A bar a source, with a piece for each verdict."
    for y, of_source in enumerate(counts.values()):
        left = 0
        for verdict in (name for name in VERDICT_COLOURS if name in of_source):
            n = of_source[verdict]
            ax.barh(y, n, left=left, color=VERDICT_COLOURS[verdict], height=0.75)
            if n >= 2:
                ax.text(left + n / 2, y, n, ha="center", va="center", fontsize=7)
            left += n
    ax.set(xlim=(0, left), xticks=[], yticks=range(len(counts)), yticklabels=list(counts))
    ax.tick_params(axis="y", length=0, labelsize=8)
    ax.invert_yaxis()
    ax.grid(False)
    for side in ax.spines.values():
        side.set_visible(False)
    ax.set_title(f"{left} claims, a verdict from each of four sources", fontsize=9, pad=3)
    present = [name for name in VERDICT_COLOURS if any(name in some for some in counts.values())]
    ax.legend(
        [ax.barh(0, 0, color=VERDICT_COLOURS[name]) for name in present],
        present,
        ncol=(len(present) + 1) // 2,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.02),
        frameon=False,
        fontsize=8,
        handlelength=1,
        columnspacing=1.4,
    )


def small(png: bytes, counts: dict[str, dict[str, int]]) -> bytes:
    "The same in 256 colours."
    from PIL import Image, PngImagePlugin

    about, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    about.add_text(COUNTED, json.dumps(counts))
    Image.open(io.BytesIO(png)).convert("RGB").quantize(
        256, dither=Image.Dither.FLOYDSTEINBERG
    ).save(buffer, "PNG", optimize=True, pnginfo=about)
    return buffer.getvalue()


def main() -> int:
    "Write the picture."
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, default=TARGET, help="file to write (default: nbs/overview.png)"
    )
    options = parser.parse_args()
    from deepfake_nb.core.files import atomic_path

    png = draw(example(), ledger_counts())
    with atomic_path(options.out) as path:
        path.write_bytes(png)
    print(f"{options.out}: {len(png) / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
