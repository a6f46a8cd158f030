"Extraction under attack: broken files, kill -9 of everything, lost workers, crashing and hanging decoders, archives, clusters."

import contextlib
import hashlib
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from deepfake_nb.cli import main
from deepfake_nb.core.errors import FaceError
from deepfake_nb.faces.dataset import extract_faces, load_faces
from deepfake_nb.faces.detection import build_face_detector
from deepfake_nb.faces.extraction import Extraction, NO_FACE, extract_video
from deepfake_nb.core.images import read_image
from deepfake_nb.data.datasets import load_samples
from deepfake_nb.data.samples import leave_one_group_out, make_samples, validate_samples
from deepfake_nb.core.errors import VideoError
from deepfake_nb.core.files import read_member
from deepfake_nb.faces.video import probe, read_frames

SMALL = Extraction(how="all", n=None, detector="haar", size=64)


@pytest.fixture(scope="module")
def films() -> pd.DataFrame:
    return load_samples("synthetic-faceforensics", identities=4, frames=20)


@pytest.fixture(scope="module")
def undisturbed(films, tmp_path_factory):
    return extract_faces(films, tmp_path_factory.mktemp("whole"), SMALL, workers=2, progress=False)


def fingerprint(out: Path) -> dict[str, str]:
    "Every file of an extraction but the settings, by its hash; hidden ones included."
    return {
        p.relative_to(out).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(out.rglob("*"))
        if p.is_file()
    }


def same(a, b) -> None:
    "The index row for row, the faces byte for byte, and nothing left over."
    pd.testing.assert_frame_equal(a.index, b.index)
    mine, theirs = fingerprint(a.out), fingerprint(b.out)
    assert set(mine) == set(theirs)
    assert {k: v for k, v in mine.items() if k.startswith("faces/")} == {
        k: v for k, v in theirs.items() if k.startswith("faces/")
    }


SCRIPT = """
import sys
from deepfake_nb.faces.dataset import extract_faces
from deepfake_nb.faces.extraction import Extraction
from deepfake_nb.data.datasets import load_samples
if __name__ == "__main__":
    films = load_samples("synthetic-faceforensics", identities=4, frames=20)
    print("ready", flush=True)
    report = extract_faces(films, sys.argv[1], Extraction(how="all", n=None, detector="haar", size=64), workers=2, progress=False)
    print(report.fresh, flush=True)
"""


def start(tmp_path: Path, out: Path, **environment) -> subprocess.Popen:
    "An extraction in a process group of its own, past its imports."
    (tmp_path / "extract.py").write_text(SCRIPT)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "extract.py", out],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | environment,
    )
    assert process.stdout.readline().strip() == "ready"
    return process


@pytest.mark.slow
def test_killed_again_and_again_it_ends_like_one_never_killed(films, undisturbed, tmp_path):
    rng, out = random.Random(0), tmp_path / "out"
    for earliest in (0.05, 0.8, 1.6, 2.4):  # while its workers start, and while they work
        process = start(tmp_path, out)
        time.sleep(rng.uniform(earliest, earliest + 0.75))
        before = set(p.name for p in (out / "parts").glob("*.parquet"))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert before <= set(p.name for p in (out / "parts").glob("*.parquet")), (
            "what was done stays done"
        )
        for part in (out / "parts").glob("*.parquet"):
            rows = pd.read_parquet(part)
            assert all((out / p).is_file() for p in rows["path"].dropna()), (
                "a part declares its crops done"
            )
    done = sum(1 for _ in (out / "parts").glob("*.parquet"))
    report = extract_faces(films, out, SMALL, workers=2, progress=False)
    assert report.fresh == len(films) - done, "nothing is done twice"
    same(report, undisturbed)


def test_what_was_begun_when_it_was_killed_is_cleared(films, undisturbed, tmp_path):
    shutil.copytree(undisturbed.out, tmp_path, dirs_exist_ok=True)
    left = [
        tmp_path / f
        for f in (
            ".index.parquet.b4a0f711",
            ".failures.csv.00000000",
            ".extraction.json.12345678",
            "parts/.x.busy",
            "faces/.x.12345678",
        )
    ]
    for file in left:
        file.write_text("half")
    (tmp_path / ".notes").write_text("of the user")
    report = extract_faces(films, tmp_path, SMALL, workers=0, progress=False)
    assert report.fresh == 0 and not [file for file in left if file.exists()]
    assert (tmp_path / ".notes").read_text() == "of the user", (
        "only files of the extraction are removed"
    )
    (tmp_path / ".notes").unlink()
    same(report, undisturbed)


def spawned(pid: int) -> list:
    "The live worker processes under a process; what ends while it is looked at is left out."
    found = []
    with contextlib.suppress(psutil.Error):
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child)
    return found


@pytest.mark.slow
def test_lost_workers_cost_nothing(films, undisturbed, tmp_path):
    process, killed = start(tmp_path, tmp_path / "out"), 0
    for _ in range(200):
        workers = spawned(process.pid)
        if workers and list((tmp_path / "out" / "parts").glob(".*.busy")) and killed < 2:
            with contextlib.suppress(psutil.Error):
                workers[-1].kill()
                killed += 1
            time.sleep(1.5)
        time.sleep(0.02)
        if process.poll() is not None:
            break
    assert process.wait(300) == 0 and killed >= 1
    same(extract_faces(films, tmp_path / "out", SMALL, workers=0, progress=False), undisturbed)


@pytest.mark.slow
def test_a_lost_pool_costs_nothing(films, undisturbed, tmp_path):
    process, killed = start(tmp_path, tmp_path / "out"), 0
    while killed < 4 and process.poll() is None:
        for worker in spawned(
            process.pid
        ):  # before they begin with anything, which makes the pool give up
            with contextlib.suppress(psutil.Error):
                worker.kill()
                killed += 1
        time.sleep(0.02)
    assert process.wait(300) == 0 and killed >= 4
    same(extract_faces(films, tmp_path / "out", SMALL, workers=0, progress=False), undisturbed)


@pytest.mark.slow
def test_in_this_process_and_in_others_the_same(films, undisturbed, tmp_path):
    same(extract_faces(films, tmp_path, SMALL, workers=0, progress=False), undisturbed)


SABOTAGE = """
import os, time
from pathlib import Path
from deepfake_nb.faces.detection import Haar
from deepfake_nb.faces.video import _turned, read_frames
whole = read_frames
def read_frames(path, *args, **options):
    if Path(path).stem == "crash": os.kill(os.getpid(), 11)
    if Path(path).stem == "hang": time.sleep(3600)
    return whole(path, *args, **options)
read_frames = read_frames
"""


@pytest.mark.slow
def test_a_crashing_and_a_hanging_decoder_cost_one_video_each(films, tmp_path, monkeypatch):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SABOTAGE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setattr(faces, "_patience", lambda unit, settings: 7.0)
    monkeypatch.setattr(faces, "_MOST_ENDS", 2)  # each end costs a new process
    rows = []
    for name in ("a", "crash", "hang", "z"):
        shutil.copy(films["path"][0], tmp_path / f"{name}.mp4")
        rows.append(
            {
                "path": str(tmp_path / f"{name}.mp4"),
                "kind": "video",
                "label": 0,
                "dataset": "test",
                "video": name,
            }
        )
    report = extract_faces(make_samples(rows), tmp_path / "out", SMALL, workers=2, progress=False)
    assert set(report.index["video"]) == {"a", "z"}
    reasons = report.broken.set_index("video")["reason"]
    assert (
        set(reasons.index) == {"crash", "hang"}
        and "died" in reasons["crash"]
        and "not done after 7 s" in reasons["hang"]
    )
    monkeypatch.delenv("PYTHONPATH")
    again = extract_faces(
        make_samples(rows), tmp_path / "out", SMALL, workers=0, progress=False, retry=True
    )
    assert (
        again.fresh == 2
        and len(again.broken) == 0
        and len(again.index) == 4 * len(report.index) // 2
    )


def broken_files(folder: Path, whole: bytes) -> list[str]:
    "Twenty-one broken videos of different kinds."
    rng, n = np.random.default_rng(0), len(whole)
    noise = lambda k: rng.integers(0, 256, k, dtype=np.uint8).tobytes()
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
    }
    made |= {f"cut_{share}": whole[: n * share // 100] for share in (20, 60)}
    for name, content in made.items():
        (folder / f"bad_{name}.mp4").write_bytes(content)
    return [f"bad_{name}" for name in made]


@pytest.mark.slow
def test_broken_videos_among_good_ones(films, tmp_path, capsys):
    part = tmp_path / "dfdc" / "dfdc_train_part_0"
    part.mkdir(parents=True)
    bad = broken_files(part, Path(films["path"][0]).read_bytes())
    good = [
        shutil.copy(path, part / f"good_{i}.mp4").stem for i, path in enumerate(films["path"][:6])
    ]
    (part / "metadata.json").write_text(
        __import__("json").dumps({f"{n}.mp4": {"label": "REAL"} for n in [*bad, *good]})
    )
    assert len(bad) == 21
    status = main(
        [
            "extract",
            "dfdc",
            "--root",
            str(tmp_path / "dfdc"),
            "--out",
            str(tmp_path / "out"),
            "--detector",
            "haar",
            "-n",
            "3",
            "--size",
            "64",
        ]
    )
    said = capsys.readouterr().out
    index, failures = load_faces(tmp_path / "out"), pd.read_csv(tmp_path / "out" / "failures.csv")
    assert status == 1
    assert set(failures[failures.reason != NO_FACE]["video"]) == set(bad) and all(
        name in said for name in bad
    )
    assert (
        "bad_codec: VideoError: no decoder is known for its codec (tag 'zzz1'); convert it" in said
    )
    assert set(index["video"]) == set(good) and len(index) + failures[
        failures.video.isin(good)
    ].frames.sum() == 3 * len(good)


def test_the_exit_status_of_a_sound_set_is_0(films, tmp_path):
    part = tmp_path / "dfdc" / "dfdc_train_part_0"
    part.mkdir(parents=True)
    shutil.copy(films["path"][0], part / "a.mp4")
    (part / "metadata.json").write_text('{"a.mp4": {"label": "REAL"}}')
    words = [
        "extract",
        "dfdc",
        "--root",
        str(tmp_path / "dfdc"),
        "--out",
        str(tmp_path / "out"),
        "--detector",
        "haar",
        "--size",
        "64",
        "--workers",
        "0",
    ]
    assert main(words) == 0 and main(words) == 0
    assert main([*words, "--size", "32"]) == 2, "other settings for the same folder are refused"


def test_archives_are_read_without_unpacking(films, tmp_path):
    real, fake = (
        films[films.label == 0].iloc[0],
        films[(films.label == 1) & (films.original == films.original[0])].iloc[0],
    )
    with zipfile.ZipFile(tmp_path / "dfdc_train_part_00.zip", "w") as archive:
        archive.write(real.path, "dfdc_train_part_0/aa.mp4")
        archive.write(fake.path, "dfdc_train_part_0/bb.mp4")
        archive.writestr(
            "dfdc_train_part_0/metadata.json",
            '{"aa.mp4": {"label": "REAL"}, "bb.mp4": {"label": "FAKE", "original": "aa.mp4"}, "gone.mp4": {"label": "REAL"}}',
        )
    samples = load_samples("dfdc", tmp_path)
    report = extract_faces(samples, tmp_path / "out", SMALL, workers=0, progress=False)
    assert set(report.index["video"]) == {"aa", "bb"} and len(report.broken) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dfdc_train_part_00.zip", "out"], (
        "nothing is unpacked"
    )
    assert (
        report.index["source_sha256"].iloc[0]
        == hashlib.sha256(Path(real.path).read_bytes()).hexdigest()
    )
    assert set(report.index[report.index.label == 1]["box_from"]) == {"original"}


def test_archives_are_not_trusted(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.mp4", bytes(10_000_000))
        archive.writestr("../../escape.mp4", b"film")
    with pytest.raises(VideoError, match="more than the limit"):
        read_member(tmp_path / "x.zip!/bomb.mp4", limit=1_000_000)
    with pytest.raises(VideoError, match="cannot be opened"):
        list(read_frames(tmp_path / "x.zip!/../../escape.mp4"))
    assert (
        sorted(p.name for p in tmp_path.iterdir()) == ["x.zip"]
        and not (tmp_path.parent / "escape.mp4").exists()
    )
    content = bytearray((tmp_path / "x.zip").read_bytes())
    content[60:70] = bytes(10)
    (tmp_path / "damaged.zip").write_bytes(content)
    with pytest.raises(VideoError):
        probe(tmp_path / "damaged.zip!/bomb.mp4")


@pytest.mark.slow
def test_on_a_dask_cluster_that_loses_a_worker(films, undisturbed, tmp_path):
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:

        def lose():
            for _ in range(400):
                if list((tmp_path / "out" / "parts").glob("*.parquet")):
                    break
                time.sleep(0.05)
            os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)

        thread = threading.Thread(target=lose)
        thread.start()
        report = extract_faces(
            films, tmp_path / "out", SMALL, scheduler=cluster.scheduler_address, progress=False
        )
        thread.join()
    same(report, undisturbed)


def test_no_scheduler(films, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("deepfake_nb.faces._CONNECT_SECONDS", 1)
    with pytest.raises(FaceError, match="no Dask scheduler answers"):
        extract_faces(films, tmp_path, SMALL, scheduler="tcp://127.0.0.1:9", progress=False)


def test_index_is_a_sample_table_and_crops_are_what_it_says(undisturbed):
    faces = load_faces(undisturbed.out)
    validate_samples(faces)
    assert set(faces["kind"]) == {"image"} and {
        "left",
        "confidence",
        "detector",
        "timestamp",
        "source_sha256",
    } <= set(faces)
    from deepfake_nb.faces.cropping import crop_face
    from deepfake_nb.core.images import read_image

    for row in faces.sample(5, random_state=0).itertuples():
        frame = next(read_frames(row.source_path, [row.frame]))
        assert np.array_equal(
            crop_face(frame.image, (row.left, row.top, row.right, row.bottom), SMALL.margin, 64),
            read_image(row.path),
        )


def test_splits_and_labels_come_from_the_table_of_today_not_from_the_cache(films, tmp_path):
    setting, tables = Extraction(how="spread", n=2, size=16, detector="frame"), []
    for fold in range(2):
        today, _ = leave_one_group_out(films, fold)
        report = extract_faces(today, tmp_path, setting, workers=0, progress=False)
        split = today.set_index(["dataset", "video"])["split"]
        assert [
            split[key] for key in zip(report.samples["dataset"], report.samples["video"])
        ] == list(report.samples["split"])
        assert report.samples.equals(load_faces(tmp_path))
        tables.append((report.fresh, tuple(report.samples["split"])))
    assert tables[0][0] == len(films) and tables[1][0] == 0 and tables[0][1] != tables[1][1]


def real_data() -> Path:
    root = os.environ.get("DEEPFAKE_NB_DATA")
    if root is None or not (Path(root) / "faceforensics").exists():
        pytest.skip("real videos are not there: set DEEPFAKE_NB_DATA")
    return Path(root)


@pytest.mark.slow
def test_boxes_of_originals_are_reused_only_where_geometry_agrees(tmp_path):
    samples = load_samples("faceforensics", real_data())
    samples = samples[samples.original.isin(["469"])].reset_index(drop=True)
    report = extract_faces(
        samples,
        tmp_path,
        Extraction(how="spread", n=4, detector="haar", confidence=0.4),
        workers=0,
        progress=False,
    )
    fakes = report.index[report.index.label == 1]
    sizes = fakes.groupby("video")[["frame_width", "frame_height"]].first().apply(tuple, axis=1)
    other = sizes[sizes != (854, 480)].index
    assert len(other) >= 1 and not (fakes[fakes.video.isin(other)].box_from == "original").any()
    assert (fakes[~fakes.video.isin(other)].box_from == "original").any()


@pytest.mark.parametrize("name", ["ssd", "yunet"])
def test_detectors_with_files_of_their_own_find_hand_drawn_faces(name):
    import xml.etree.ElementTree as ET
    from deepfake_nb.faces.detection import box_iou
    from deepfake_nb.core.images import read_image

    folder = real_data() / "face_boxes"
    detector, hit, all_of = build_face_detector(name), 0, 0
    for listing in folder.glob("*.xml"):
        for image in ET.parse(listing).getroot().iter("image"):
            truth = np.array(
                [
                    [int(b.get(k)) for k in ("left", "top", "width", "height")]
                    for b in image.iter("box")
                ]
            )
            truth[:, 2:] += truth[:, :2]
            boxes = detector([read_image(folder / image.get("file"))])[0]
            all_of += len(truth)
            hit += 0 if not len(boxes) else int((box_iou(truth, boxes).max(axis=1) > 0.4).sum())
    assert all_of == 43 and hit >= {"ssd": 10, "yunet": 40}[name]


@pytest.mark.slow
def test_pictures_looked_at_together_give_what_one_by_one_gives(tmp_path, monkeypatch):
    pictures = load_samples("synthetic-faces", identities=4, frames=4)
    monkeypatch.setenv("DEEPFAKE_NB_CACHE", str(tmp_path / "cache 1"))
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    pictures = pd.concat(
        [
            pictures,
            make_samples(
                [
                    {
                        "path": str(tmp_path / "bad.jpg"),
                        "kind": "image",
                        "label": 0,
                        "dataset": "synthetic-faces",
                    }
                ]
            ),
        ],
        ignore_index=True,
    )
    together = extract_faces(
        pictures,
        tmp_path / "together",
        Extraction(detector="haar", size=0, reuse=False),
        workers=0,
        progress=False,
    )
    assert len(together.broken) == 1 and "bad.jpg" in together.broken["source_path"].iloc[0]
    monkeypatch.setenv(
        "DEEPFAKE_NB_CACHE", str(tmp_path / "cache 2")
    )  # boxes are not taken from the first run
    again = extract_faces(
        pictures,
        tmp_path / "other",
        Extraction(detector="haar", size=0, reuse=False),
        workers=1,
        progress=False,
    )
    same(again, together)
    alone = pd.concat(
        [
            extract_faces(
                pictures.iloc[[i]],
                tmp_path / f"alone {i}",
                Extraction(detector="haar", size=0, reuse=False),
                workers=0,
                progress=False,
            ).index
            for i in range(0, len(pictures) - 1, 7)
        ]
    )
    columns = ["key", "left", "top", "right", "bottom", "confidence"]
    expected = together.index.set_index("key").loc[alone["key"]].reset_index()
    assert len(alone) and expected[columns].equals(alone[columns].reset_index(drop=True))
    sides = [
        round(float(max(right - left, bottom - top)) * 1.3)
        for left, top, right, bottom in expected[["left", "top", "right", "bottom"]].itertuples(
            index=False
        )
    ]
    assert [read_image(together.out / path).shape for path in expected["path"]] == [
        (side, side, 3) for side in sides
    ]  # not resized


def test_boxes_of_pictures_are_kept_by_content(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPFAKE_NB_CACHE", str(tmp_path / "cache"))
    looked = []

    class Middle(Haar):
        def __call__(self, images):
            looked.append(len(images))
            return [np.float32([[1 / 3, 2, 20 + i, 30, 0.9]]) for i in range(len(images))]

    def extract(name: str, **options):
        "Copies of the four pictures under other names."
        monkeypatch.setattr(faces, "_detector", lambda *_: Middle())
        (tmp_path / name).mkdir()
        rows = [
            {
                "path": shutil.copy(path, tmp_path / name / f"{name}_{i}.png"),
                "kind": "image",
                "label": 0,
                "dataset": "test",
            }
            for i, path in enumerate(originals)
        ]
        report = extract_faces(
            make_samples(rows),
            tmp_path / f"{name} out",
            Extraction(detector="haar", size=16, reuse=False, **options),
            workers=0,
            progress=False,
        )
        return report.index[["left", "top", "right", "bottom", "confidence"]].to_numpy(float)

    originals = [tmp_path / f"{i}.png" for i in range(4)]
    for i, path in enumerate(originals):
        Image.fromarray(np.full((40, 60, 3), 50 * i, np.uint8)).save(path)
    first = extract("a")
    assert looked == [4] and np.array_equal(extract("b"), first) and looked == [4], (
        "found once, whatever the files are called"
    )
    extract("c", confidence=0.2)
    assert looked == [4, 4], "another setting looks again"
    kept = sorted((tmp_path / "cache" / "boxes").rglob("*.json"))
    assert len(kept) == 8 and not list((tmp_path / "cache" / "boxes").rglob(".*"))
    for file in kept:
        file.write_text("[[1, 2")
    extract("d")
    assert looked == [4, 4, 4], "what cannot be read is found again"
    Image.fromarray(np.full((40, 60, 3), 7, np.uint8)).save(originals[0])
    extract("e")
    assert looked == [4, 4, 4, 1], "another content looks again"


@pytest.mark.parametrize("form", ["jpg", "png", "webp"])
def test_pictures_are_turned_as_they_are_shown(form, tmp_path):
    stored = np.zeros((40, 80, 3), np.uint8)
    stored[:, :20] = 255  # left as stored, at the top as shown
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(tmp_path / f"phone.{form}", exif=exif)
    (row,), (crop,) = extract_video(
        tmp_path / f"phone.{form}",
        Extraction(detector="frame", size=0),
        build_face_detector("frame"),
    )
    assert (row["frame_height"], row["frame_width"]) == (80, 40) and (
        row["right"],
        row["bottom"],
    ) == (40, 80)
    assert crop.shape == (80, 40, 3) and crop[:18].min() > 200 and crop[22:].max() < 50


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_exif_leaves_a_picture_readable(tmp_path):
    exif, rng = Image.Exif(), random.Random(0)
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "a maker", 72.0
    Image.fromarray(np.zeros((40, 80, 3), np.uint8)).save(tmp_path / "whole.jpg", exif=exif)
    whole = (tmp_path / "whole.jpg").read_bytes()
    start, size = whole.index(b"Exif") + 6, len(exif.tobytes()) - 6
    for i in range(100):
        content = bytearray(whole)
        for _ in range(8):
            content[start + rng.randrange(size)] = rng.randrange(256)
        (tmp_path / "damaged.jpg").write_bytes(content)
        (row,), _ = extract_video(
            tmp_path / "damaged.jpg",
            Extraction(detector="frame", size=0),
            build_face_detector("frame"),
        )
        assert {row["frame_height"], row["frame_width"]} == {40, 80}


def test_a_picture_too_large_and_one_cut_off_cost_themselves_alone(tmp_path):
    chunk = lambda name, content: (
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
    )
    bomb = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )
    Image.fromarray(np.zeros((40, 80, 3), np.uint8)).save(tmp_path / "good.png")
    whole, names = (tmp_path / "good.png").read_bytes(), ["good.png", "bomb.png"]
    (tmp_path / "bomb.png").write_bytes(bomb)
    for n in (8, 20, 30, len(whole) // 2):
        (tmp_path / f"cut_{n}.png").write_bytes(whole[:n])
        names.append(f"cut_{n}.png")
    with pytest.raises(
        VideoError,
        match="bomb.png: cannot be read as a picture: Image size .400000000 pixels. exceeds",
    ):
        extract_video(
            tmp_path / "bomb.png", Extraction(detector="frame"), build_face_detector("frame")
        )
    pictures = make_samples(
        [
            {"path": str(tmp_path / name), "kind": "image", "label": 0, "dataset": "test"}
            for name in names
        ]
    )
    for reuse in (True, False):
        report = extract_faces(
            pictures,
            tmp_path / f"out {reuse}",
            Extraction(detector="frame", size=16, reuse=reuse),
            workers=0,
            progress=False,
        )
        assert (
            report.index["source_path"].tolist() == [str(tmp_path / "good.png")]
            and len(report.broken) == 5
        )
        assert report.broken["reason"].str.contains("cannot be read as a picture: .").all()


@pytest.mark.parametrize(
    "error",
    [
        EOFError(),
        struct.error("unpack requires a buffer of 4 bytes"),
        OverflowError("too large"),
        ZeroDivisionError("by zero"),
        MemoryError(),
    ],
)
def test_what_readers_of_pictures_raise_names_the_file(error, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(
        VideoError,
        match=f"x.png: cannot be read as a picture: {str(error) or type(error).__name__}",
    ):
        extract_video(
            tmp_path / "x.png", Extraction(detector="frame"), build_face_detector("frame")
        )


def test_what_readers_of_videos_raise_names_the_file(films, monkeypatch):
    import av

    path = films["path"][0]
    with monkeypatch.context() as patch:
        patch.setattr(video, "MOST_FRAMES", 5)
        with pytest.raises(
            VideoError, match="its header promises 20 frames, more than the limit of 5"
        ):
            probe(path)
    for error in (OverflowError("too large"), MemoryError()):

        def fail(*_, error=error, **__):
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(av, "open", fail)
            with pytest.raises(
                VideoError, match=f"mp4: cannot be opened as a video: {str(error) or 'MemoryError'}"
            ):
                probe(path)
        picture = type("Picture", (), {"to_ndarray": fail})()
        assert _turned(picture, 0) == (
            None,
            f"its colours cannot be converted: {str(error) or 'MemoryError'}",
        )


@pytest.mark.slow
def test_memory_does_not_grow_with_the_video(tmp_path):
    import tracemalloc
    from deepfake_nb.synthetic.datasets import write_video

    rng = np.random.default_rng(0)
    still = rng.integers(0, 255, (360, 640, 3), dtype=np.uint8)

    def peak(frames: int) -> float:
        "Most memory at a time, in MB, for all frames of a video."
        path = tmp_path / f"{frames}.mp4"
        write_video(path, [np.roll(still, i, 1) for i in range(frames)], crf=40)
        tracemalloc.start()
        rows, crops = extract_video(
            path,
            Extraction(how="all", n=None, detector="frame", size=16),
            build_face_detector("frame"),
        )
        most = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        assert len(rows) == len(crops) == frames
        return most

    few, many = peak(16), peak(240)  # 240 frames are 166 MB
    assert many < few + 10, (few, many)
