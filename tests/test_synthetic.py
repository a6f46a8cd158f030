"The embedded dataset: repeatable to the byte, whole or not there, without leaks, neither trivial nor hopeless."

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from deepfake_nb.synthetic.datasets import _read_video
from deepfake_nb.synthetic.manipulations import generate_face, reenact_mouth, swap_face
from deepfake_nb.data.samples import check_split, make_samples, split_samples
from deepfake_nb.synthetic.datasets import LAYOUTS, generate
from deepfake_nb.synthetic.manipulations import MANIPULATIONS, QUALITIES
from deepfake_nb.synthetic.people import make_identity, trajectory
from deepfake_nb.synthetic.rendering import render_frame

SMALL = dict(identities=4, videos=1, frames=2, progress=False)


def hashes(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


@pytest.fixture(scope="module")
def faces():
    "Quality → (root, attributes), at their default sizes, in the cache where the notebook has put them."
    roots = {q: generate("faces", quality=q, progress=False) for q in QUALITIES}
    return {q: (root, pd.read_csv(root / "attributes.csv")) for q, root in roots.items()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bytes_do_not_depend_on_workers_or_place(layout, tmp_path):
    one, two = (hashes(generate(layout, tmp_path / str(w), workers=w, **SMALL)) for w in (1, 2))
    assert one == two and len(one) > 8


def test_other_parameters_other_dataset(tmp_path):
    made = [
        generate("faces", tmp_path, **(SMALL | more))
        for more in ({}, dict(seed=1), dict(crf=40), dict(quality="crude"), dict(face_size=64))
    ]
    assert len({p.name for p in made}) == 5
    first = [hashes(p)["real/id00_0_0000.jpg"] for p in made]
    assert first[0] == first[3] and len(set(first)) == 4  # quality changes the fakes only


@pytest.mark.parametrize(
    "parameters, message",
    [
        (dict(layout="cinema"), "layout='cinema'"),
        (dict(layout="faces", quality="best"), "quality='best'"),
        (dict(layout="faces", identities=3), "identities=3: expected an even"),
        (dict(layout="faces", identities=0), "identities=0"),
        (dict(layout="faces", frames=1.5), "frames=1.5"),
        (dict(layout="faces", size=100), "size=100: expected a multiple of 8"),
        (dict(layout="faces", crf=True), "crf=True"),
        (dict(layout="faces", manipulations=[]), "manipulations="),
        (dict(layout="faces", manipulations="mouth"), "manipulations='mouth'"),
        (dict(layout="celeb-df", manipulations=["mouth"]), "layout 'celeb-df'"),
        (dict(layout="faceforensics", videos=2), "videos=2"),
        (dict(layout="faces", workers=0), "workers=0"),
    ],
)
def test_impossible_parameters_are_named_before_anything_starts(parameters, message, tmp_path):
    with pytest.raises(ValueError) as error:
        generate(cache=tmp_path, **parameters)
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())


def test_killed_generation_leaves_nothing_whole_and_goes_on(tmp_path):
    code = f"from deepfake_nb.synthetic import generate; generate('faces', {str(tmp_path)!r}, identities=8, videos=1, frames=2, workers=1, progress=False)"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    deadline = time.time() + 60
    while time.time() < deadline and len(list(tmp_path.rglob(".takes/*.json"))) < 3:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = {p.name: p.stat().st_mtime_ns for p in tmp_path.rglob(".takes/*.json")}
    assert len(done) >= 3 and not [
        p for p in (tmp_path / "synthetic").iterdir() if not p.name.startswith(".")
    ]
    parameters = dict(identities=8, videos=1, frames=2, progress=False)
    resumed = generate("faces", tmp_path, **parameters)
    assert hashes(resumed) == hashes(generate("faces", tmp_path / "fresh", **parameters))
    assert [p.name for p in resumed.parent.iterdir() if p.is_dir()] == [resumed.name]


@pytest.mark.parametrize("damage", ["missing", "cut", "record"])
def test_damaged_dataset_is_made_again(damage, tmp_path):
    small = dict(identities=2, videos=1, frames=1, progress=False)
    root = generate("faces", tmp_path, **small)
    whole, victim = hashes(root), next(root.glob("fake/*.jpg"))
    if damage == "missing":
        victim.unlink()
    if damage == "cut":
        victim.write_bytes(victim.read_bytes()[:100])
    if damage == "record":
        (root / "dataset.json").write_text("{")
    assert hashes(generate("faces", tmp_path, **small)) == whole


def test_layouts_are_those_of_the_real_sets(tmp_path):
    roots = {layout: generate(layout, tmp_path, **SMALL) for layout in LAYOUTS}
    for layout, root in roots.items():
        rows = pd.read_csv(root / "attributes.csv", dtype={"video": str, "original": str})
        for column in ("path", "mask_path"):
            assert all((root / p).is_file() for p in rows[column].dropna())
        assert rows.path.is_unique and rows.mask_path.notna().eq(rows.label.eq(1)).all()
        assert set(rows.original) <= set(rows.video[rows.label == 0])
    names = json.loads((roots["dfdc"] / "dfdc_train_part_0/metadata.json").read_text())
    assert {p.name for p in roots["dfdc"].glob("dfdc_train_part_0/*.mp4")} == set(names)
    assert all(
        names[n["original"]]["label"] == "REAL" for n in names.values() if n["label"] == "FAKE"
    )
    assert (
        roots["faceforensics"] / "manipulated_sequences/Deepfakes/c23/videos/000_001.mp4"
    ).is_file()
    listed = (roots["celeb-df"] / "List_of_testing_videos.txt").read_text().splitlines()
    assert 0 < len(listed) < len(rows) and all(
        (roots["celeb-df"] / l.split()[1]).is_file() and l[0] == str(int("synthesis" not in l))
        for l in listed
    )


def test_video_is_h264_and_masks_are_aligned(tmp_path):
    root = generate("faceforensics", tmp_path, **(SMALL | dict(frames=5, manipulations=["mouth"])))
    row = pd.read_csv(root / "attributes.csv").query("label == 1").iloc[0]
    with av.open(str(root / row.path)) as film:
        stream = film.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt, stream.width) == (
            "h264",
            "yuv420p",
            256,
        )
    real, fake, mask = (
        _read_video(root / p)
        for p in (
            f"original_sequences/youtube/c23/videos/{row.original:03d}.mp4",
            row.path,
            row.mask_path,
        )
    )
    assert len(real) == len(fake) == len(mask) == 5
    change = np.mean([np.abs(a.astype(float) - b).mean(2) for a, b in zip(real, fake)], 0)
    inside = np.mean([m.mean(2) > 128 for m in mask], 0) == 1
    outside = np.max([m.max(2) for m in mask], 0) < 64
    assert change[inside].mean() > 3 * change[outside].mean()


@pytest.mark.parametrize("how", MANIPULATIONS)
@pytest.mark.parametrize("quality", QUALITIES)
def test_masks_hold_the_manipulated_pixels(how, quality):
    a, b = make_identity([1, 0], 3), make_identity([1, 1], 3)
    s, other = trajectory(4, 12)[::11]
    frame = render_frame(a, s).image
    made = {
        "face-swap": lambda: swap_face(frame, a, b, s, quality),
        "mouth": lambda: reenact_mouth(frame, a, s, other, quality),
        "generated": lambda: generate_face(frame, s, quality),
    }[how]
    fake, mask = made()
    assert fake.shape == frame.shape and fake.dtype == np.uint8 and set(np.unique(mask)) <= {0, 255}
    change = np.abs(fake.astype(int) - frame).max(2)
    assert change[mask == 255].mean() > 4
    if how != "generated":
        assert (change[mask == 0] > 26).sum() == 0 and (change[mask == 0] == 0).mean() > 0.9
    assert np.array_equal(made()[0], fake)


@pytest.mark.parametrize("quality", QUALITIES)
def test_dimensions_and_tables_say_nothing(faces, quality):
    root, rows = faces[quality]
    headers = {
        (label, im.size, str(im.quantization), im.mode)
        for label, p in zip(rows.label, rows.path)
        for im in [Image.open(io.BytesIO((root / p).read_bytes()))]
    }
    assert len({h[1:] for h in headers}) == 1
    assert (rows.label.mean(), rows.groupby("manipulation").size().nunique()) == (0.5, 1)


def test_file_size_and_mean_colour_do_not_leak_for_careful_fakes(faces):
    root, rows = faces["careful"]
    means = np.array([cv2.imread(str(root / p)).mean((0, 1)) for p in rows.path])
    numbers = {
        "file size": [(root / p).stat().st_size for p in rows.path],
        "brightness": means.mean(1),
        **{c: means[:, i] for i, c in enumerate(("blue", "green", "red"))},
    }
    aucs = {name: roc_auc_score(rows.label, v) for name, v in numbers.items()}
    assert all(0.40 <= a <= 0.60 for a in aucs.values()), aucs


def test_identity_disjoint_split_keeps_every_fake(faces):
    root, rows = faces["careful"]
    samples, report = split_samples(as_samples(root, rows), seed=3)
    assert report.kind == "identity-disjoint" and len(samples) == len(rows)
    check_split(samples)
    parts = pd.concat(
        [
            samples[["identity", "split"]],
            samples[["source", "split"]].set_axis(["identity", "split"], axis=1),
        ]
    ).dropna()
    assert (parts.groupby("identity").split.nunique() == 1).all()


def as_samples(root: Path, rows: pd.DataFrame) -> pd.DataFrame:
    table = rows.astype(object).where(rows.notna(), None)
    return make_samples(
        table.assign(
            kind="image",
            dataset="synthetic-faces",
            path=[str(root / p) for p in rows.path],
            mask_path=None,
        )
    )
