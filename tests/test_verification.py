"""Verification, locks and commands: damage is found, and an interrupted lock resumes."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import isolated, plant, write_image  # noqa: F401

from deepfake_nb.core.errors import ManifestError
from deepfake_nb.core.files import file_hash, write_atomic
from deepfake_nb.core.paths import data_dir
from deepfake_nb.data.commands import (
    describe_command,
    list_command,
    lock_command,
    verify_command,
)
from deepfake_nb.data.custom import register_dataset
from deepfake_nb.data.datasets import load_samples
from deepfake_nb.data.locks import lock_dataset, lock_line, read_lock
from deepfake_nb.data.manifests import list_datasets, load_manifest
from deepfake_nb.data.verification import verify_dataset

NAMES = list_datasets()
UADFV = [f"real/{i:04d}.mp4" for i in range(49)] + [f"fake/{i:04d}_fake.mp4" for i in range(49)]


@pytest.fixture
def crops(tmp_path):
    """Write six sound face crops with their list."""
    lines = ["videoname,original_width,original_height,label,original"]
    for i, name in enumerate("abcdef"):
        write_image(tmp_path / "crops" / "faces_224" / f"{name}.jpg", i)
        lines.append(f"{name}.mp4,48,48,{'FAKE,a.mp4' if i else 'REAL,'}")
    return plant(tmp_path / "crops", files={"metadata.csv": "\n".join(lines) + "\n"})


def verify(root, **options):
    return verify_dataset("dfdc-faces", root, progress=False, **options)


def lock(root, **options):
    return lock_dataset("dfdc-faces", root, progress=False, **options)


def test_a_small_copy_is_incomplete_and_not_damaged(crops):
    result = verify(crops, deep=True)
    assert (result.ok, result.complete, result.state) == (True, False, "incomplete")
    assert result.table.state.tolist() == ["incomplete: 6 of 95,634", "complete"]
    assert "no fault" in str(result)


def test_a_file_missing_from_its_own_list_is_no_damage(crops):
    (crops / "faces_224" / "c.jpg").unlink()
    result = verify(crops)
    assert result.missing == ("faces_224/c.jpg",)
    assert result.state == "incomplete"


def test_extra_files_are_named_and_harmless(crops):
    plant(crops, "faces_224/readme.doc", "thumbs/x.jpg", ".hidden", ".git/config")
    result = verify(crops)
    assert result.extra == ("faces_224/readme.doc", "thumbs/x.jpg")
    assert result.ok


@pytest.mark.parametrize("deep", [False, True])
def test_an_empty_file_is_damage_at_any_depth(crops, deep):
    (crops / "faces_224" / "c.jpg").write_bytes(b"")
    result = verify(crops, deep=deep)
    assert result.corrupt == {"faces_224/c.jpg": "empty file"}
    assert result.state == "damaged"
    assert not result.ok


def test_a_truncated_image_is_found_by_decoding_only(crops):
    file = crops / "faces_224" / "c.jpg"
    file.write_bytes(file.read_bytes()[:-200])
    assert verify(crops).ok
    result = verify(crops, deep=True)
    assert list(result.corrupt) == ["faces_224/c.jpg"]
    assert "truncated" in result.corrupt["faces_224/c.jpg"]


def test_an_unreadable_list_is_damage(crops):
    (crops / "metadata.csv").write_text("name\nx\n")
    result = verify(crops)
    assert not result.ok
    assert "column 'videoname' is missing" in result.corrupt["lists"]


def test_neighbours_in_one_download_are_not_extra(tmp_path):
    plant(
        tmp_path,
        "original_sequences/youtube/c23/videos/000.mp4",
        "manipulated_sequences/Deepfakes/c23/videos/000_003.mp4",
        "original_sequences/actors/c23/videos/01__kitchen.mp4",
        "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__kitchen__ABCDEFGH.mp4",
    )
    for name in ("faceforensics", "dfd"):
        result = verify_dataset(name, tmp_path, progress=False)
        assert result.files == 2
        assert not result.extra, name


def test_a_complete_dataset_may_lack_optional_groups(tmp_path):
    plant(tmp_path, *UADFV)
    result = verify_dataset("uadfv", tmp_path, progress=False)
    assert result.complete
    assert result.table.state.tolist() == ["complete", "complete", "not here (optional)"]
    (tmp_path / "fake" / "0000_fake.mp4").unlink()
    assert verify_dataset("uadfv", tmp_path, progress=False).state == "incomplete"


# Custom datasets


@pytest.fixture
def mine(tmp_path):
    """Register six images, one of them below the dataset's own folder; return their paths."""
    places = [tmp_path / "pictures" / f"{name}.png" for name in "abcde"]
    places.append(data_dir() / "mine" / "f.png")
    rows = []
    for seed, path in enumerate(places):
        write_image(path, seed)
        rows.append({"path": str(path), "kind": "image", "label": seed % 2})
    register_dataset("mine", pd.DataFrame(rows))
    return places


def verify_mine(**options):
    return verify_dataset("mine", progress=False, **options)


def test_the_files_that_a_custom_table_names_are_verified(mine):
    sound = verify_mine(deep=True)
    assert (sound.state, sound.files, sound.extra) == ("complete", 7, ())
    assert sound.table["found"].tolist() == sound.table["expected"].tolist() == [1, 6]
    mine[0].unlink()
    mine[1].write_text("no image")
    mine[2].write_bytes(b"")
    mine[5].write_text("no image either")
    spoilt = verify_mine(deep=True)
    assert spoilt.missing == (mine[0].as_posix(),)
    assert set(spoilt.corrupt) == {mine[1].as_posix(), mine[2].as_posix(), "f.png"}
    assert spoilt.table["state"].tolist() == ["complete", "incomplete: 5 of 6"]
    assert verify_command("mine", deep=True) == 1
    with pytest.raises(ManifestError, match="1 of 6 files do not exist, .*a.png first"):
        load_samples("mine")


def test_the_files_that_a_custom_table_names_are_locked(mine):
    file = lock_dataset("mine", progress=False)
    expected = {path.as_posix(): path for path in mine[:5]} | {"f.png": mine[5]}
    expected["samples.csv"] = data_dir() / "mine" / "samples.csv"
    assert read_lock(file) == {name: file_hash(path) for name, path in expected.items()}
    assert verify_mine().state == "complete"
    write_image(mine[0], 99)
    assert verify_mine().changed == (mine[0].as_posix(),)


def test_members_of_archives_are_verified_by_their_archive(mine, tmp_path):
    archive = tmp_path / "packed.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        packed.write(mine[0], "a.png")
    row = {"path": f"{archive}!/a.png", "kind": "image", "label": 0}
    register_dataset("mine", pd.DataFrame([row]), replace=True)
    assert verify_mine(deep=True).state == "complete"
    archive.write_bytes(archive.read_bytes().replace(b"IDAT", b"IDAX"))
    assert verify_mine(deep=True).corrupt == {
        archive.as_posix(): "ParameterError: member 'a.png' is damaged"
    }


def test_an_unreadable_custom_table_is_damage(mine):
    (data_dir() / "mine" / "samples.csv").write_text("name\nx\n")
    assert verify_mine().state == "damaged"


def test_a_custom_dataset_is_described(mine, capsys):
    assert describe_command("mine") == 0
    printed = capsys.readouterr().out
    assert "mine/samples.csv in the data folder names its files" in printed
    assert "Size: 6 files" in printed
    assert "Reports" not in printed


# Locks


def test_a_lock_can_be_checked_by_sha256sum(crops):
    file = lock(crops)
    assert file == crops / "dfdc-faces.sha256"
    assert not list(crops.glob("*.journal"))
    assert not list(crops.glob(".*partial*"))
    for name, digest in read_lock(file).items():
        assert hashlib.sha256((crops / name).read_bytes()).hexdigest() == digest
    if shutil.which("sha256sum"):
        command = ["sha256sum", "--check", "--strict", "--quiet", file.name]
        subprocess.run(command, cwd=crops, check=True)
    again = lock(crops, out=crops.parent / "again.sha256", workers=3)
    assert again.read_bytes() == file.read_bytes()


def test_a_lock_proves_that_the_data_are_unchanged(crops):
    lock(crops)
    result = verify(crops)
    assert result.ok
    assert result.lock == crops / "dfdc-faces.sha256"
    assert not result.extra
    write_image(crops / "faces_224" / "b.jpg", 99)
    write_image(crops / "faces_224" / "new.jpg")
    (crops / "faces_224" / "f.jpg").unlink()
    result = verify(crops)
    assert result.changed == ("faces_224/b.jpg",)
    assert result.added == ("faces_224/new.jpg",)
    assert result.missing == ("faces_224/f.jpg",)
    assert result.state == "damaged"
    assert verify(crops, lock=False).state == "incomplete"


@pytest.mark.parametrize("change", ["changed", "added", "gone"])
def test_each_difference_from_the_lock_counts_alone(crops, change):
    file = lock(crops, out=crops.parent / "x.sha256")
    if change == "changed":
        write_image(crops / "faces_224" / "b.jpg", 99)
    elif change == "added":
        write_image(crops / "faces_224" / "new.jpg")
    else:
        (crops / "faces_224" / "f.jpg").unlink()
    assert not verify(crops, lock=file).ok


KILLED = """
import sys
import time

import deepfake_nb.core.files as files
from deepfake_nb.data.locks import lock_dataset

file_hash = files.file_hash


def slow(path):
    time.sleep(0.05)
    return file_hash(path)


files.file_hash = slow
lock_dataset("dfdc-faces", sys.argv[1], workers=1, progress=False)
"""


def test_a_killed_lock_resumes(crops, monkeypatch):
    for i in range(60):
        write_image(crops / "faces_224" / f"x{i:02d}.jpg", i)
    file, journal = crops / "dfdc-faces.sha256", crops / "dfdc-faces.sha256.journal"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(crops)])
    end = time.monotonic() + 40
    while not (journal.exists() and journal.read_text().count("\n") >= 8):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not file.exists(), "a lock is written completely or not at all"
    noted = [json.loads(line)[0] for line in journal.read_text().splitlines()]
    assert len(noted) >= 8
    write_image(crops / noted[0], 1234)  # one of the files changes before the second attempt
    with journal.open("a") as incomplete:
        incomplete.write('["faces_224/x5')  # what a kill in the middle of a write leaves

    hashed = []

    def noting_hash(path):
        hashed.append(path.relative_to(crops).as_posix())
        return file_hash(path)

    monkeypatch.setattr("deepfake_nb.core.files.file_hash", noting_hash)
    lock(crops)
    assert set(hashed) & set(noted) == {noted[0]}
    assert len(hashed) == 67 - len(noted) + 1
    locked = read_lock(file)
    assert len(locked) == 67
    for path, digest in locked.items():
        assert hashlib.sha256((crops / path).read_bytes()).hexdigest() == digest
    assert not journal.exists()


def test_a_lock_resumes_as_often_as_needed(crops, monkeypatch):
    left = 0

    def interrupted_hash(path):
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        return file_hash(path)

    monkeypatch.setattr("deepfake_nb.core.files.file_hash", interrupted_hash)
    attempts = 0
    while not (crops / "dfdc-faces.sha256").exists():
        left = 2
        attempts += 1
        assert attempts < 9
        try:
            lock(crops, workers=1)
        except KeyboardInterrupt:
            pass
    assert attempts == 4
    assert len(read_lock(crops / "dfdc-faces.sha256")) == 7


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), min_size=1))
def test_any_file_name_survives_a_lock(tmp_path_factory, name):
    file = tmp_path_factory.mktemp("names") / "x.sha256"
    write_atomic(file, "# head\n" + lock_line("a" * 64, name) + "\n")
    assert read_lock(file) == {name: "a" * 64}


def test_a_wrong_lock_is_refused(crops):
    with pytest.raises(ManifestError, match="no lock at"):
        verify(crops, lock=crops / "none.sha256")
    with pytest.raises(ManifestError, match="deepfake-nb data lock dfdc-faces"):
        verify(crops, lock=True)
    (crops / "x.sha256").write_text("not a hash  file\n")
    with pytest.raises(ManifestError, match="line 1"):
        verify(crops, lock=crops / "x.sha256")


# Commands


def test_exit_statuses(crops, tmp_path, capsys):
    assert list_command() == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in NAMES)
    assert verify_command("dfdc-faces", crops) == 3
    assert verify_command("dfdc-faces", crops, accept_incomplete=True) == 0
    assert lock_command("dfdc-faces", crops) == 0
    (crops / "faces_224" / "b.jpg").write_bytes(b"")
    capsys.readouterr()
    assert verify_command("dfdc-faces", crops, deep=True) == 1
    assert "corrupt: faces_224/b.jpg (empty file)" in capsys.readouterr().out
    assert verify_command("uadfv", tmp_path) == 2
    assert lock_command("uadfv", tmp_path) == 2
    assert describe_command("nope") == 2
    assert verify_command("nope") == 2
    assert "Looked in" in capsys.readouterr().err
    plant(tmp_path / "uadfv", *UADFV)
    assert verify_command("uadfv", tmp_path / "uadfv") == 0


@pytest.mark.parametrize("name", NAMES)
def test_a_description_says_what_a_user_needs(name, capsys):
    assert describe_command(name) == 0
    printed = " ".join(capsys.readouterr().out.split())
    manifest = load_manifest(name)
    for text in (
        manifest.title,
        f"Reports: {', '.join(manifest.reports).title()}",
        manifest.terms["licence"],
        manifest.obtain["how"],
        *manifest.obtain["commands"],
        *manifest.caveats,
        manifest.citation,
    ):
        assert " ".join(text.split()) in printed
