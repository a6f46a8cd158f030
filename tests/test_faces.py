"""Extraction under attack: damaged files, killed processes, lost workers, hanging decoders."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from deepfake_nb.cli import main
from deepfake_nb.core.errors import ClusterError
from deepfake_nb.core.images import read_image
from deepfake_nb.data.datasets import load_samples
from deepfake_nb.data.samples import make_samples, validate_samples
from deepfake_nb.data.splits import leave_one_group_out
from deepfake_nb.faces import units, workers
from deepfake_nb.faces.cropping import crop_face
from deepfake_nb.faces.dataset import extract_faces, load_faces
from deepfake_nb.faces.detection import Haar, box_iou, build_face_detector
from deepfake_nb.faces.extraction import NO_FACE, Extraction
from deepfake_nb.faces.video import read_frames

ROOT = Path(__file__).resolve().parent.parent  # for processes that import the library
SMALL = Extraction(sampling="all", n=None, face_detector="haar", size=64)


def extract(samples: pd.DataFrame, out: Path, settings: Extraction = SMALL, **options):
    """Extract in this process, unless the options say otherwise."""
    return extract_faces(samples, out, settings, **{"workers": 0, "progress": False} | options)


def image_samples(*paths: Path) -> pd.DataFrame:
    row = {"kind": "image", "label": 0, "dataset": "test"}
    return make_samples([row | {"path": str(path)} for path in paths])


@pytest.fixture(scope="module")
def videos() -> pd.DataFrame:
    return load_samples("synthetic-faceforensics", identities=4, frames=20)


@pytest.fixture(scope="module")
def undisturbed(videos, tmp_path_factory):
    return extract(videos, tmp_path_factory.mktemp("undisturbed"), workers=2)


def hashes(out: Path) -> dict[str, str]:
    """Return the hash of every file of an extraction, hidden ones included."""
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def assert_same(a, b) -> None:
    """Check that the indexes and crops are equal, and that no other files are left."""
    pd.testing.assert_frame_equal(a.index, b.index)
    ours, theirs = hashes(a.out), hashes(b.out)
    assert set(ours) == set(theirs)
    assert [ours[name] for name in ours if name.startswith("faces/")] == [
        theirs[name] for name in theirs if name.startswith("faces/")
    ]


SCRIPT = """
import sys
from deepfake_nb.data.datasets import load_samples
from deepfake_nb.faces.dataset import extract_faces
from deepfake_nb.faces.extraction import Extraction

if __name__ == "__main__":
    videos = load_samples("synthetic-faceforensics", identities=4, frames=20)
    settings = Extraction(sampling="all", n=None, face_detector="haar", size=64)
    print("ready", flush=True)
    result = extract_faces(videos, sys.argv[1], settings, workers=2, progress=False)
    print(result.fresh, flush=True)
"""


def start(folder: Path, out: Path) -> subprocess.Popen:
    """Start an extraction in its own process group, and wait for its imports."""
    (folder / "extract.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, folder / "extract.py", out],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline().strip() == "ready"
    return process


def finished(out: Path) -> set[str]:
    return {path.name for path in (out / "parts").glob("*.parquet")}


@pytest.mark.slow
def test_a_repeatedly_killed_extraction_ends_like_an_undisturbed_one(videos, undisturbed, tmp_path):
    rng = random.Random(0)
    out = tmp_path / "out"
    for earliest in (0.05, 0.8, 1.6, 2.4):  # while its workers start, and while they work
        process = start(tmp_path, out)
        time.sleep(rng.uniform(earliest, earliest + 0.75))
        before = finished(out)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert before <= finished(out), "a finished video stays finished"
        for part in (out / "parts").glob("*.parquet"):
            crops = pd.read_parquet(part)["path"].dropna()
            assert all((out / crop).is_file() for crop in crops), "a finished video has its crops"
    done = len(finished(out))
    result = extract(videos, out, workers=2)
    assert result.fresh == len(videos) - done, "nothing is extracted twice"
    assert_same(result, undisturbed)


def test_unfinished_files_are_removed(videos, undisturbed, tmp_path):
    shutil.copytree(undisturbed.out, tmp_path, dirs_exist_ok=True)
    unfinished = [
        tmp_path / ".index.b4a0f711.partial.parquet",
        tmp_path / ".failures.00000000.partial.csv",
        tmp_path / ".extraction.12345678.partial.json",
        tmp_path / "parts/.x.busy",
        tmp_path / "parts/.x.12345678.partial.parquet",
        tmp_path / "faces/.x.12345678.partial",
    ]
    notes = tmp_path / ".notes"
    for file in (notes, *unfinished):
        file.write_text("half")
    result = extract(videos, tmp_path)
    assert result.fresh == 0
    assert not [file for file in unfinished if file.exists()]
    assert notes.read_text() == "half", "only files of the extraction are removed"
    notes.unlink()
    assert_same(result, undisturbed)


def worker_processes(pid: int) -> list:
    """Return the live workers of a process, without those that end meanwhile."""
    found = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child)
    return found


@pytest.mark.slow
def test_lost_workers_change_nothing(videos, undisturbed, tmp_path):
    out = tmp_path / "out"
    process, killed = start(tmp_path, out), 0
    for _ in range(200):
        found = worker_processes(process.pid)
        if found and list((out / "parts").glob(".*.busy")) and killed < 2:
            with contextlib.suppress(psutil.Error):
                found[-1].kill()
                killed += 1
            time.sleep(1.5)
        time.sleep(0.02)
        if process.poll() is not None:
            break
    assert process.wait(300) == 0 and killed >= 1
    assert_same(extract(videos, out), undisturbed)


@pytest.mark.slow
def test_a_lost_pool_changes_nothing(videos, undisturbed, tmp_path):
    out = tmp_path / "out"
    process, killed = start(tmp_path, out), 0
    while killed < 4 and process.poll() is None:
        for worker in worker_processes(process.pid):  # before they begin, so the pool gives up
            with contextlib.suppress(psutil.Error):
                worker.kill()
                killed += 1
        time.sleep(0.02)
    assert process.wait(300) == 0 and killed >= 4
    assert_same(extract(videos, out), undisturbed)


@pytest.mark.slow
def test_one_process_gives_what_several_give(videos, undisturbed, tmp_path):
    assert_same(extract(videos, tmp_path), undisturbed)


SABOTAGE = """
import os, time
from pathlib import Path
from deepfake_nb.faces import extraction

whole = extraction.read_frames

def read_frames(path, *args, **options):
    if Path(path).stem == "crash":
        os.kill(os.getpid(), 11)
    if Path(path).stem == "hang":
        time.sleep(3600)
    return whole(path, *args, **options)

extraction.read_frames = read_frames
"""


@pytest.mark.slow
def test_a_crashing_and_a_hanging_decoder_cost_one_video_each(videos, tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SABOTAGE)
    path = os.pathsep.join([str(tmp_path / "site"), str(ROOT)])
    monkeypatch.setattr(workers, "time_limit", lambda unit, folder: 7.0)
    monkeypatch.setattr(workers, "_MOST_DEATHS", 2)  # each death costs a new process
    row = {"kind": "video", "label": 0, "dataset": "test"}
    rows = []
    for name in ("a", "crash", "hang", "z"):
        copy = shutil.copy(videos["path"][0], tmp_path / f"{name}.mp4")
        rows.append(row | {"path": str(copy), "video": name})
    samples = make_samples(rows)
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        result = extract(samples, tmp_path / "out", workers=2)
    assert set(result.index["video"]) == {"a", "z"}
    reasons = result.broken.set_index("video")["reason"]
    assert set(reasons.index) == {"crash", "hang"}
    assert "died" in reasons["crash"]
    assert "not done after 7 s" in reasons["hang"]
    again = extract(samples, tmp_path / "out", retry=True)
    assert again.fresh == 2
    assert len(again.broken) == 0
    assert len(again.index) == 2 * len(result.index)


def write_broken_videos(folder: Path, whole: bytes) -> list[str]:
    """Write 21 broken videos of different kinds; return their names."""
    rng, n = np.random.default_rng(0), len(whole)

    def noise(size: int) -> bytes:
        return rng.integers(0, 256, size, dtype=np.uint8).tobytes()

    made = {
        "empty": b"",
        "one_byte": b"\0",
        "text": b"not found",
        "html": b"<html><body>403</body></html>",
        "noise": noise(5000),
        "zeros": bytes(5000),
        "header_only": whole[:32],
        "jpeg": b"\xff\xd8\xff\xe0" + noise(500),
        "zip": b"PK\x03\x04" + noise(500),
        "json": b'{"error": "quota"}',
        "no_head": whole[40:],
        "reversed": whole[::-1],
        "ftyp_then_noise": whole[:32] + noise(5000),
        "no_moov": whole.replace(b"moov", b"muuv"),
        "no_trak": whole.replace(b"trak", b"truk"),
        "no_mdat": whole[: whole.index(b"mdat")],
        "codec": whole.replace(b"avc1", b"zzz1"),
        "playlist": b"#EXTM3U\n#EXTINF:10,\nfile:///etc/hostname\n",
        "concat": b"ffconcat version 1.0\nfile /etc/hostname\n",
        "cut_20": whole[: n * 20 // 100],
        "cut_60": whole[: n * 60 // 100],
    }
    for name, content in made.items():
        (folder / f"bad_{name}.mp4").write_bytes(content)
    return [f"bad_{name}" for name in made]


def make_dfdc(root: Path, *names: str) -> Path:
    """Create a part of the DFDC of real videos, which the caller writes into it."""
    part = root / "dfdc" / "dfdc_train_part_0"
    part.mkdir(parents=True)
    labels = {f"{name}.mp4": {"label": "REAL"} for name in names}
    (part / "metadata.json").write_text(json.dumps(labels))
    return part


def command(root: Path, *words: str) -> list[str]:
    paths = ["--root", str(root / "dfdc"), "--out", str(root / "out")]
    return ["extract", "dfdc", *paths, "--face-detector", "haar", "--size", "64", *words]


@pytest.mark.slow
def test_broken_videos_among_good_ones(videos, tmp_path, capsys):
    good = [f"good_{i}" for i in range(6)]
    part = make_dfdc(tmp_path)
    bad = write_broken_videos(part, Path(videos["path"][0]).read_bytes())
    assert len(bad) == 21
    for name, path in zip(good, videos["path"]):
        shutil.copy(path, part / f"{name}.mp4")
    labels = {f"{name}.mp4": {"label": "REAL"} for name in [*bad, *good]}
    (part / "metadata.json").write_text(json.dumps(labels))
    status = main(command(tmp_path, "-n", "3"))
    printed = capsys.readouterr().out
    assert status == 1
    index = load_faces(tmp_path / "out")
    failures = pd.read_csv(tmp_path / "out" / "failures.csv")
    assert set(failures[failures["reason"] != NO_FACE]["video"]) == set(bad)
    assert all(name in printed for name in bad)
    message = "no decoder is known for its codec (tag 'zzz1'); convert it"
    assert f"bad_codec: VideoError: {message}" in printed
    assert set(index["video"]) == set(good)
    without_face = failures[failures["video"].isin(good)]["frames"].sum()
    assert len(index) + without_face == 3 * len(good)


def test_the_exit_status_of_an_intact_dataset_is_0(videos, tmp_path):
    shutil.copy(videos["path"][0], make_dfdc(tmp_path, "a") / "a.mp4")
    words = command(tmp_path, "--workers", "0")
    assert main(words) == 0
    assert main(words) == 0
    assert main([*words, "--size", "32"]) == 2, "other settings for the same folder are refused"


def test_archives_are_read_without_unpacking(videos, tmp_path):
    real = videos[videos["label"] == 0].iloc[0]
    fakes = (videos["label"] == 1) & (videos["original"] == videos["original"][0])
    metadata = {
        "aa.mp4": {"label": "REAL"},
        "bb.mp4": {"label": "FAKE", "original": "aa.mp4"},
        "gone.mp4": {"label": "REAL"},
    }
    with zipfile.ZipFile(tmp_path / "dfdc_train_part_00.zip", "w") as archive:
        archive.write(real["path"], "dfdc_train_part_0/aa.mp4")
        archive.write(videos[fakes].iloc[0]["path"], "dfdc_train_part_0/bb.mp4")
        archive.writestr("dfdc_train_part_0/metadata.json", json.dumps(metadata))
    result = extract(load_samples("dfdc", tmp_path), tmp_path / "out")
    assert set(result.index["video"]) == {"aa", "bb"}
    assert len(result.broken) == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["dfdc_train_part_00.zip", "out"], "nothing is unpacked"
    sha256 = hashlib.sha256(Path(real["path"]).read_bytes()).hexdigest()
    assert result.index["source_sha256"].iloc[0] == sha256
    assert set(result.index[result.index["label"] == 1]["box_from"]) == {"original"}


@pytest.mark.slow
def test_a_dask_cluster_that_loses_a_worker(videos, undisturbed, tmp_path):
    distributed = pytest.importorskip("distributed")
    out = tmp_path / "out"
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:

        def kill_a_worker():
            for _ in range(400):
                if finished(out):
                    break
                time.sleep(0.05)
            os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)

        thread = threading.Thread(target=kill_a_worker)
        thread.start()
        result = extract(videos, out, scheduler=cluster.scheduler_address)
        thread.join()
    assert_same(result, undisturbed)


def test_an_absent_scheduler_is_named(videos, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("deepfake_nb.core.parallel.CONNECT_SECONDS", 1)
    with pytest.raises(ClusterError, match="no Dask scheduler answers"):
        extract(videos, tmp_path, scheduler="tcp://127.0.0.1:9")


def test_the_index_is_a_sample_table_and_describes_the_crops(undisturbed):
    faces = load_faces(undisturbed.out)
    validate_samples(faces)
    assert set(faces["kind"]) == {"image"}
    assert {"left", "confidence", "detector", "timestamp", "source_sha256"} <= set(faces)
    for row in faces.sample(5, random_state=0).itertuples():
        frame = next(read_frames(row.source_path, [row.frame]))
        box = (row.left, row.top, row.right, row.bottom)
        crop = crop_face(frame.image, box, SMALL.margin, 64)
        assert np.array_equal(crop, read_image(row.path))


def test_splits_and_labels_come_from_the_given_table_not_from_the_cache(videos, tmp_path):
    settings = Extraction(sampling="spread", n=2, size=16, face_detector="frame")
    seen = []
    for fold in range(2):
        today, _ = leave_one_group_out(videos, fold)
        result = extract(today, tmp_path, settings)
        split_of = today.set_index(["dataset", "video"])["split"]
        keys = zip(result.samples["dataset"], result.samples["video"])
        assert [split_of[key] for key in keys] == list(result.samples["split"])
        assert result.samples.equals(load_faces(tmp_path))
        seen.append((result.fresh, tuple(result.samples["split"])))
    assert [fresh for fresh, _ in seen] == [len(videos), 0]
    assert seen[0][1] != seen[1][1]


def real_data() -> Path:
    root = os.environ.get("DEEPFAKE_NB_DATA")
    if root is None or not (Path(root) / "faceforensics").exists():
        pytest.skip("real videos are absent: set DEEPFAKE_NB_DATA")
    return Path(root)


@pytest.mark.slow
def test_boxes_of_originals_are_reused_only_where_geometry_agrees(tmp_path):
    samples = load_samples("faceforensics", real_data())
    samples = samples[samples["original"].isin(["469"])].reset_index(drop=True)
    settings = Extraction(sampling="spread", n=4, face_detector="haar", confidence=0.4)
    index = extract(samples, tmp_path, settings).index
    fakes = index[index["label"] == 1]
    sizes = fakes.groupby("video")[["frame_width", "frame_height"]].first().apply(tuple, axis=1)
    differs = fakes["video"].isin(sizes[sizes != (854, 480)].index)
    reused = fakes["box_from"] == "original"
    assert differs.any() and not reused[differs].any()
    assert reused[~differs].any()


@pytest.mark.parametrize("name, least", [("ssd", 10), ("yunet", 40)])
def test_face_detectors_with_weight_files_find_annotated_faces(name, least):
    folder = real_data() / "face_boxes"
    detector = build_face_detector(name)
    hits = total = 0
    for listing in folder.glob("*.xml"):
        for image in ET.parse(listing).getroot().iter("image"):
            sides = ("left", "top", "width", "height")
            truth = np.array([[int(box.get(k)) for k in sides] for box in image.iter("box")])
            truth[:, 2:] += truth[:, :2]
            boxes = detector([read_image(folder / image.get("file"))])[0]
            total += len(truth)
            if len(boxes):
                hits += int((box_iou(truth, boxes).max(axis=1) > 0.4).sum())
    assert total == 43 and hits >= least


@pytest.mark.slow
def test_searching_images_together_gives_what_one_by_one_gives(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPFAKE_NB_CACHE", str(tmp_path / "cache 1"))
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    bad = image_samples(tmp_path / "bad.jpg").assign(dataset="synthetic-faces")
    rendered = load_samples("synthetic-faces", identities=4, frames=4)
    images = pd.concat([rendered, bad], ignore_index=True)
    settings = Extraction(face_detector="haar", size=0, reuse=False)
    together = extract(images, tmp_path / "together", settings)
    assert len(together.broken) == 1
    assert "bad.jpg" in together.broken["source_path"].iloc[0]
    monkeypatch.setenv("DEEPFAKE_NB_CACHE", str(tmp_path / "cache 2"))  # without cached boxes
    assert_same(extract(images, tmp_path / "other", settings, workers=1), together)
    alone = pd.concat(
        [
            extract(images.iloc[[i]], tmp_path / f"alone {i}", settings).index
            for i in range(0, len(rendered), 7)
        ]
    )
    columns = ["key", "left", "top", "right", "bottom", "confidence"]
    expected = together.index.set_index("key").loc[alone["key"]].reset_index()
    assert len(alone)
    assert expected[columns].equals(alone[columns].reset_index(drop=True))
    for row in expected.itertuples():  # crops are not resized
        side = round(float(max(row.right - row.left, row.bottom - row.top)) * 1.3)
        assert read_image(together.out / row.path).shape == (side, side, 3)


def test_boxes_of_images_are_cached_by_content(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPFAKE_NB_CACHE", str(tmp_path / "cache"))
    searched = []

    class Fixed(Haar):
        def __call__(self, images):
            searched.append(len(images))
            return [np.float32([[1 / 3, 2, 20 + i, 30, 0.9]]) for i in range(len(images))]

    monkeypatch.setattr(units, "shared_face_detector", lambda *_: Fixed())
    originals = [tmp_path / f"{i}.png" for i in range(4)]
    for i, path in enumerate(originals):
        Image.fromarray(np.full((40, 60, 3), 50 * i, np.uint8)).save(path)

    def boxes_of_copies(name: str, **options) -> np.ndarray:
        """Extract copies of the four images under other names; return their boxes."""
        (tmp_path / name).mkdir()
        copies = [
            shutil.copy(path, tmp_path / name / f"{name}_{i}.png")
            for i, path in enumerate(originals)
        ]
        settings = Extraction(face_detector="haar", size=16, reuse=False, **options)
        index = extract(image_samples(*copies), tmp_path / f"{name} out", settings).index
        return index[["left", "top", "right", "bottom", "confidence"]].to_numpy(float)

    first = boxes_of_copies("a")
    assert searched == [4]
    assert np.array_equal(boxes_of_copies("b"), first)
    assert searched == [4], "found once, whatever the files are called"
    boxes_of_copies("c", confidence=0.2)
    assert searched == [4, 4], "another setting searches again"
    cached = sorted((tmp_path / "cache" / "boxes").rglob("*.json"))
    assert len(cached) == 8
    assert not list((tmp_path / "cache" / "boxes").rglob(".*"))
    for file in cached:
        file.write_text("[[1, 2")
    boxes_of_copies("d")
    assert searched == [4, 4, 4], "a damaged cache file is replaced"
    Image.fromarray(np.full((40, 60, 3), 7, np.uint8)).save(originals[0])
    boxes_of_copies("e")
    assert searched == [4, 4, 4, 1], "another content searches again"


@pytest.mark.slow
def test_mtcnn_starts_without_a_word():
    "As in each worker of `extract`, whose standard error is the terminal or a log."
    code = (
        "from deepfake_nb.faces.detection import build_face_detector; build_face_detector('mtcnn')"
    )
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    environment |= {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stderr == done.stdout == ""
