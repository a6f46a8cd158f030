"""The rendered datasets: repeatable to the byte, complete or absent, without leaks."""

import hashlib
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

from deepfake_nb.data.samples import make_samples
from deepfake_nb.data.splits import check_split, split_samples
from deepfake_nb.synthetic import datasets
from deepfake_nb.synthetic.compositing import QUALITIES
from deepfake_nb.synthetic.datasets import generate, read_video
from deepfake_nb.synthetic.layouts import LAYOUTS
from deepfake_nb.synthetic.manipulations import (
    MANIPULATIONS,
    generate_face,
    reenact_mouth,
    swap_face,
)
from deepfake_nb.synthetic.people import make_identity, trajectory
from deepfake_nb.synthetic.rendering import render_frame

SMALL = {"identities": 4, "videos": 1, "frames": 2, "progress": False}


def hashes(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture(scope="module")
def faces():
    """Root and attributes of each quality, the default one at its default size, as 11_datasets."""
    roots = {
        "crude": generate("faces", quality="crude", identities=30, progress=False),
        "careful": generate("faces", quality="careful", progress=False),
    }
    return {
        quality: (root, pd.read_csv(root / "attributes.csv")) for quality, root in roots.items()
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small dataset of each layout, made by two workers."""
    folder = tmp_path_factory.mktemp("small")
    return {layout: generate(layout, folder, workers=2, **SMALL) for layout in LAYOUTS}


@pytest.mark.slow
def test_a_video_does_not_depend_on_what_memory_held():
    code = """
import hashlib, io
import numpy as np
from deepfake_nb.synthetic.datasets import write_video
for side in (96, 144, 256):
    blocks = np.random.default_rng(0).integers(0, 256, (6, side // 8, side // 8, 3), np.uint8)
    file = io.BytesIO()
    write_video(file, list(blocks.repeat(8, 1).repeat(8, 2)))
    print(hashlib.sha256(file.getvalue()).hexdigest())
"""
    found = set()
    for byte in ("0", "1", "85"):  # what glibc fills fresh memory with
        environment = os.environ | {"MALLOC_PERTURB_": byte}
        found.add(subprocess.check_output([sys.executable, "-c", code], env=environment))
    assert len(found) == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bytes_do_not_depend_on_workers_or_place(layout, small, tmp_path):
    one = hashes(generate(layout, tmp_path, workers=1, **SMALL))
    assert one == hashes(small[layout])
    assert len(one) > 8


def test_few_images_start_no_process(small, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "available_cores", pytest.fail)
    before = cv2.getNumThreads()
    assert hashes(generate("faces", tmp_path, **SMALL)) == hashes(small["faces"])
    assert cv2.getNumThreads() == before


def test_other_options_give_another_dataset(tmp_path):
    others = ({}, {"seed": 1}, {"crf": 40}, {"quality": "crude"}, {"face_size": 64})
    made = [generate("faces", tmp_path, **SMALL | options) for options in others]
    assert len({root.name for root in made}) == 5
    first = [hashes(root)["real/id00_0_0000.jpg"] for root in made]
    assert first[0] == first[3]  # quality changes the fakes only
    assert len(set(first)) == 4


@pytest.mark.parametrize(
    "options, message",
    [
        ({"layout": "cinema"}, "layout='cinema'"),
        ({"layout": "faces", "quality": "best"}, "quality='best'"),
        ({"layout": "faces", "identities": 3}, "identities=3: expected an even"),
        ({"layout": "faces", "identities": 0}, "identities=0"),
        ({"layout": "faces", "frames": 1.5}, "frames=1.5"),
        ({"layout": "faces", "size": 100}, "size=100: expected a multiple of 8"),
        ({"layout": "faces", "crf": True}, "crf=True"),
        ({"layout": "faces", "manipulations": []}, "manipulations="),
        ({"layout": "faces", "manipulations": "mouth"}, "manipulations='mouth'"),
        ({"layout": "celeb-df", "manipulations": ["mouth"]}, "layout 'celeb-df'"),
        ({"layout": "faceforensics", "videos": 2}, "videos=2"),
        ({"layout": "faces", "workers": 0}, "workers=0"),
    ],
)
def test_impossible_options_are_named_before_anything_starts(options, message, tmp_path):
    with pytest.raises(ValueError) as error:
        generate(cache=tmp_path, **options)
    assert message in str(error.value)
    assert not list(tmp_path.iterdir())


def test_killed_generation_leaves_nothing_complete_and_resumes(tmp_path):
    options = SMALL | {"identities": 8}
    code = (
        "from deepfake_nb.synthetic.datasets import generate\n"
        f"generate('faces', {str(tmp_path)!r}, workers=1, **{options!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    deadline = time.time() + 60
    while time.time() < deadline and len(list(tmp_path.rglob(".takes/[0-9]*.json"))) < 3:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(list(tmp_path.rglob(".takes/[0-9]*.json"))) >= 3
    assert all(path.name.startswith(".") for path in (tmp_path / "synthetic").iterdir())

    resumed = generate("faces", tmp_path, **options)
    assert hashes(resumed) == hashes(generate("faces", tmp_path / "fresh", **options))
    assert [path.name for path in resumed.parent.iterdir() if path.is_dir()] == [resumed.name]


@pytest.mark.parametrize("damage", ["missing", "cut", "record"])
def test_damaged_dataset_is_made_again(damage, tmp_path):
    options = SMALL | {"identities": 2, "frames": 1}
    root = generate("faces", tmp_path, **options)
    complete, victim = hashes(root), next(root.glob("fake/*.jpg"))
    if damage == "missing":
        victim.unlink()
    if damage == "cut":
        victim.write_bytes(victim.read_bytes()[:100])
    if damage == "record":
        (root / "dataset.json").write_text("{")
    assert hashes(generate("faces", tmp_path, **options)) == complete


def test_layouts_are_those_of_the_real_datasets(small):
    for root in small.values():
        rows = pd.read_csv(root / "attributes.csv", dtype={"video": str, "original": str})
        for column in ("path", "mask_path"):
            assert all((root / path).is_file() for path in rows[column].dropna())
        assert rows.path.is_unique
        assert rows.mask_path.notna().eq(rows.label.eq(1)).all()
        assert set(rows.original) <= set(rows.video[rows.label == 0])

    names = json.loads((small["dfdc"] / "dfdc_train_part_0/metadata.json").read_text())
    assert {path.name for path in small["dfdc"].glob("dfdc_train_part_0/*.mp4")} == set(names)
    fakes = [entry for entry in names.values() if entry["label"] == "FAKE"]
    assert all(names[entry["original"]]["label"] == "REAL" for entry in fakes)

    deepfakes = small["faceforensics"] / "manipulated_sequences/Deepfakes"
    assert (deepfakes / "c23/videos/000_001.mp4").is_file()

    rows = pd.read_csv(small["celeb-df"] / "attributes.csv")
    listed = (small["celeb-df"] / "List_of_testing_videos.txt").read_text().splitlines()
    assert 0 < len(listed) < len(rows)
    for line in listed:
        real, path = line.split()
        assert (small["celeb-df"] / path).is_file()
        assert real == str(int("synthesis" not in line))


def test_video_is_h264_and_masks_are_aligned(tmp_path):
    options = SMALL | {"frames": 5, "manipulations": ["mouth"]}
    root = generate("faceforensics", tmp_path, **options)
    row = pd.read_csv(root / "attributes.csv").query("label == 1").iloc[0]
    with av.open(str(root / row.path)) as video:
        codec = video.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt, codec.width) == ("h264", "yuv420p", 256)
    original = f"original_sequences/youtube/c23/videos/{row.original:03d}.mp4"
    real, fake, mask = (read_video(root / path) for path in (original, row.path, row.mask_path))
    assert len(real) == len(fake) == len(mask) == 5
    change = np.mean([np.abs(a.astype(float) - b).mean(2) for a, b in zip(real, fake)], 0)
    inside = np.mean([m.mean(2) > 128 for m in mask], 0) == 1
    outside = np.max([m.max(2) for m in mask], 0) < 64
    assert change[inside].mean() > 3 * change[outside].mean()


@pytest.mark.parametrize("manipulation", MANIPULATIONS)
@pytest.mark.parametrize("quality", QUALITIES)
def test_masks_hold_the_manipulated_pixels(manipulation, quality):
    target, source = make_identity([1, 0], 3), make_identity([1, 1], 3)
    state, other = trajectory(4, 12)[::11]
    frame = render_frame(target, state).image

    def manipulate() -> tuple[np.ndarray, np.ndarray]:
        if manipulation == "face-swap":
            return swap_face(frame, target, source, state, quality)
        if manipulation == "mouth":
            return reenact_mouth(frame, target, state, other, quality)
        return generate_face(frame, state, quality)

    fake, mask = manipulate()
    assert (fake.shape, fake.dtype) == (frame.shape, np.uint8)
    assert set(np.unique(mask)) <= {0, 255}
    change = np.abs(fake.astype(int) - frame).max(2)
    least = 4 if quality in ("crude", "careful") else 1  # the others are made to be hard to see
    assert change[mask == 255].mean() > least
    if manipulation != "generated":
        assert (change[mask == 0] > 26).sum() == 0
        assert (change[mask == 0] == 0).mean() > 0.9
    assert np.array_equal(manipulate()[0], fake)


@pytest.mark.parametrize("quality", ["crude", "careful"])
def test_dimensions_and_quantisation_tables_say_nothing(faces, quality):
    root, rows = faces[quality]
    headers = set()
    for path in rows.path:
        with Image.open(root / path) as image:
            headers.add((image.size, str(image.quantization), image.mode))
    assert len(headers) == 1
    assert rows.label.mean() == 0.5
    assert rows.groupby("manipulation").size().nunique() == 1


def test_file_size_and_mean_colour_do_not_leak_for_careful_fakes(faces):
    root, rows = faces["careful"]
    means = np.array([cv2.imread(str(root / path)).mean((0, 1)) for path in rows.path])
    numbers = {
        "file size": [(root / path).stat().st_size for path in rows.path],
        "brightness": means.mean(1),
        "blue": means[:, 0],
        "green": means[:, 1],
        "red": means[:, 2],
    }
    aucs = {name: roc_auc_score(rows.label, values) for name, values in numbers.items()}
    assert all(0.40 <= auc <= 0.60 for auc in aucs.values()), aucs


def test_identity_disjoint_split_keeps_every_fake(faces):
    root, rows = faces["careful"]
    table = rows.astype(object).where(rows.notna(), None)
    paths = [str(root / path) for path in rows.path]
    table = table.assign(kind="image", dataset="synthetic-faces", path=paths, mask_path=None)
    samples, result = split_samples(make_samples(table), seed=3)
    assert result.kind == "identity-disjoint"
    assert len(samples) == len(rows)
    check_split(samples)
    targets = samples[["identity", "split"]]
    sources = samples[["source", "split"]].set_axis(["identity", "split"], axis=1)
    people = pd.concat([targets, sources]).dropna()
    assert (people.groupby("identity").split.nunique() == 1).all()
