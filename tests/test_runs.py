"""Batch runs and their report, with a small paper that stands in for the real ones.

Kills, failures, timeouts, two at once, changed code, clusters, terminals.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import psutil
import pytest

from deepfake_nb.cli import main
from deepfake_nb.core.errors import ParameterError, RunBusy, RunFailed
from deepfake_nb.runs.collect import collect_runs
from deepfake_nb.runs.execute import clean_orphans, run_paper
from deepfake_nb.runs.grid import run_grid
from deepfake_nb.runs.plan import plan_grid, plan_run
from deepfake_nb.runs.process import RunState
from deepfake_nb.runs.progress import LogLines

FIRST = '''dataset = "synthetic-faces"
dataset_options = {"identities": 6, "frames": 1, "videos": 1}
data_root = ""
profile = "quick"
seed = 0
pause = 0.2
how = ""
bad_seed = -1
output_dir = "."'''
SECOND = """import json, os, signal, time
import numpy as np
rng = np.random.default_rng(seed)
threads = int(os.environ.get("OMP_NUM_THREADS", 0))"""
THIRD = """time.sleep(pause)
if seed == bad_seed:
    if how == "raise": raise ValueError("this seed is bad\\nand this is a second line")
    if how == "sleep": time.sleep(600)
    if how == "kill": os.kill(os.getpid(), signal.SIGKILL)
    if how == "kill parent": os.kill(os.getppid(), signal.SIGKILL); time.sleep(600)"""
FOURTH = """names = ("AUC", "accuracy")
metrics = {name: {"value": rng.random(), "low": 0., "high": 1.} for name in names}
with open(output_dir + "/metrics.json", "w") as file:
    json.dump(metrics | {"threads": {"value": threads}}, file)
os.makedirs(output_dir + "/tables")
np.savetxt(output_dir + "/tables/scores.csv", rng.random(50), header="score", comments="")"""


def paper(folder: Path, name: str = "draw", extra: str = "") -> Path:
    "A paper notebook that draws numbers, in a folder of papers."
    folder.mkdir(exist_ok=True)
    cells = [
        nbformat.v4.new_code_cell(FIRST, metadata={"tags": ["parameters"]}),
        *map(nbformat.v4.new_code_cell, [SECOND, THIRD, FOURTH + extra]),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / f"{name}.ipynb")
    with open(folder / "profiles.toml", "a") as file:
        file.write(f"[{name}.quick]\n")
    return folder


@pytest.fixture(scope="module")
def papers(tmp_path_factory) -> Path:
    return paper(tmp_path_factory.mktemp("stand-in") / "papers")


def command(*words) -> list[str]:
    return [
        sys.executable,
        "-c",
        "import sys; from deepfake_nb.cli import main; sys.exit(main())",
        *map(str, words),
    ]


def run_words(papers: Path, root: Path, *words) -> list[str]:
    return command("run", "draw", "--papers", papers, "--out", root, *words)


def start(words: list[str], **how) -> subprocess.Popen:
    def heed():  # which a test that runs in the background of a script would ignore
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed if os.name == "posix" else None,
        **how,
    )


def whole(root: Path) -> dict[str, Path]:
    "Folders that look whole, by their name."
    return {
        f.parent.name: f.parent
        for f in root.glob("draw/[!.]*/provenance.json")
        if f.parent.suffix != ".failed"
    }


def content(folder: Path) -> dict[str, bytes]:
    "What a run found, file by file; the notebook, the provenance and the crate hold times."
    timed = ("draw.ipynb", "provenance.json", "ro-crate-metadata.json")
    return {
        str(f.relative_to(folder)): f.read_bytes()
        for f in sorted(folder.rglob("*"))
        if f.is_file() and f.name not in timed
    }


def family(process: subprocess.Popen) -> list[psutil.Process]:
    try:
        return [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill_all(process: subprocess.Popen) -> None:
    "kill -9 of a command, its runs and their kernels."
    for member in family(process):
        try:
            member.kill()
        except psutil.NoSuchProcess:
            pass
    process.communicate()


def wait_until(condition, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.05)


def left_over(root: Path) -> list[str]:
    return [f.name for f in root.glob("*/.*") if f.is_dir()] + [
        f.name for f in root.glob(".state/*/*.json")
    ]


RUNS = 9


@pytest.fixture(scope="module")
def undisturbed(papers, tmp_path_factory) -> Path:
    "Runs that nobody disturbs; their log is tested, too."
    root = tmp_path_factory.mktemp("undisturbed") / "runs"
    done = subprocess.run(
        run_words(papers, root, "--seeds", f"0-{RUNS - 1}", "--jobs", "2"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    root.with_name("log").write_text(done.stdout)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_killed_three_times_and_resumed(seed, papers, undisturbed, tmp_path):
    "What a kill leaves is whole and stays; in the end every run is there once, as if undisturbed."
    root, chance = tmp_path / "runs", random.Random(seed)
    words = run_words(papers, root, "--seeds", f"0-{RUNS - 1}", "--jobs", "2")
    for kill in range(3):
        before = {
            name: (folder / "provenance.json").stat().st_mtime_ns
            for name, folder in whole(root).items()
        }
        process, goal = start(words), len(before) + 1
        wait_until(lambda goal=goal: len(whole(root)) >= goal)
        time.sleep(chance.uniform(0, 0.5))
        if kill == 1:
            process.kill()
            process.communicate()  # the command alone: its runs have to end by themselves
        else:
            kill_all(process)
        there = whole(root)
        assert 0 < len(there) < RUNS
        assert {
            name: (there[name] / "provenance.json").stat().st_mtime_ns for name in before
        } == before, "a whole run was made again"
        for name, folder in there.items():
            assert content(folder) == content(undisturbed / "draw" / name), (
                "it looks whole and is not"
            )
    before = {
        name: (folder / "provenance.json").stat().st_mtime_ns
        for name, folder in whole(root).items()
    }
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout.count("already whole") == len(before)
        and f"{len(before)} whole, {RUNS - len(before)} made" in done.stdout
    )
    there = whole(root)
    assert set(there) == set(whole(undisturbed)) and len(there) == RUNS
    assert {name: (there[name] / "provenance.json").stat().st_mtime_ns for name in before} == before
    for name, folder in there.items():
        assert content(folder) == content(undisturbed / "draw" / name)
    assert left_over(root) == []


def test_runs_end_with_the_command(papers, tmp_path):
    "kill -9 of the command alone leaves no run or kernel; the next start clears what they began."
    root = tmp_path / "runs"
    process = start(run_words(papers, root, "--seeds", "0,1", "--jobs", "2", "-p", "pause=60"))
    wait_until(
        lambda: (
            sum(json.loads(f.read_text())["cell"] >= 4 for f in root.glob(".state/draw/*.json"))
            == 2
        )
    )
    members = family(process)
    assert len(members) >= 5  # the command, two runs, two kernels
    process.kill()
    process.communicate()
    psutil.wait_procs(members, timeout=10)
    assert not [m for m in members if m.is_running() and m.status() != psutil.STATUS_ZOMBIE]
    assert len(left_over(root)) == 4 and not whole(root)
    assert len(clean_orphans(root)) == 2 and left_over(root) == []


CRASH = """
import os, shutil, sys
from deepfake_nb.runs.execute import _publish, hold_run, sibling_folder
from deepfake_nb.runs.plan import plan_run
from deepfake_nb.runs.process import RunState
from deepfake_nb.runs.progress import LogLines
k, calls = int(sys.argv[1]), 0
def dying(function):
    def call(*args, **options):
        global calls
        calls += 1
        if calls == k:
            if function is rmtree:  # die in the middle of it
                for name in sorted(os.listdir(args[0]) if os.path.isdir(args[0]) else [])[:1]:
                    os.unlink(os.path.join(args[0], name))
            os._exit(9)
        return function(*args, **options)
    return call
rmtree = shutil.rmtree
plan = plan_run("draw", root=sys.argv[2], papers=sys.argv[3], parameters={"pause": 0.})
work = sibling_folder(plan.folder, "partial")
work.mkdir(parents=True)
new = '{"cells": [], "is": "new"}'
for name in ("draw.ipynb", "metrics.json"): (work / name).write_text(new)
shutil.rmtree, os.replace = dying(shutil.rmtree), dying(os.replace)
with hold_run(plan.folder, False): _publish(plan, work, 1.)
"""


@pytest.mark.slow
def test_no_moment_of_publishing_leaves_half_a_run(papers, tmp_path):
    "Dying at any step of replacing an old run by a new one leaves the old, the new, or none."
    seen = set()
    for k in range(1, 8):
        root = tmp_path / str(k)
        plan = plan_run("draw", root=root, papers=papers, parameters={"pause": 0.0})
        plan.folder.mkdir(parents=True)
        for name in ("draw.ipynb", "metrics.json"):
            (plan.folder / name).write_text('{"cells": [], "is": "old"}')
        (plan.folder / "provenance.json").write_text("{}")
        ended = subprocess.run(
            [sys.executable, "-c", CRASH, str(k), str(root), str(papers)],
            capture_output=True,
            text=True,
        )
        assert ended.returncode in (0, 9), ended.stderr
        for moment in ("dead", "cleaned"):
            if moment == "cleaned":
                clean_orphans(root)
            texts = (
                {
                    json.loads((plan.folder / name).read_text())["is"]
                    for name in ("draw.ipynb", "metrics.json")
                }
                if plan.whole
                else {"none"}
            )
            assert len(texts) == 1, f"step {k}: half of each"
            seen.add((moment, *texts))
        assert left_over(root) == [] and texts != {"none"}
        if ended.returncode == 0:
            break
    assert {
        ("dead", "old"),
        ("dead", "none"),
        ("dead", "new"),
        ("cleaned", "old"),
        ("cleaned", "new"),
    } <= seen and ended.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "how, reason",
    [
        ("raise", "cell 4 failed with ValueError: this seed is bad"),
        ("kill", "cell 4 of 5: the kernel died"),
        ("kill parent", "its process died of signal 9"),
        ("sleep", "cell 4 of 5 was stopped: it took longer than 3 s"),
    ],
)
def test_one_failure_stops_no_other(how, reason, papers, tmp_path):
    root = tmp_path / "runs"
    limit = ["--cell-timeout", "3"] if how == "sleep" else []
    done = subprocess.run(
        run_words(
            papers,
            root,
            "--seeds",
            "1,2",
            "--jobs",
            "2",
            "-p",
            "bad_seed=1",
            "-p",
            f"how={how}",
            *limit,
        ),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert (
        f"failed: {reason}" in done.stderr
        and "second line" not in done.stderr
        and "1 failed, 1 made" in done.stdout
    )
    failed = list(root.glob("draw/*.failed"))
    assert len(failed) == 1 and len(whole(root)) == 1 and left_over(root) == []
    notebook = failed[0] / "draw.ipynb"
    assert str(notebook) in done.stderr
    outputs = [
        o for c in nbformat.read(notebook, 4).cells if c.cell_type == "code" for o in c.outputs
    ]
    assert (
        how == "kill parent" or {o.output_type for o in outputs} == {"error"} and outputs[-1].evalue
    )
    again = plan_grid(
        ["draw"], seeds=[1, 2], parameters={"bad_seed": 1, "how": how}, root=root, papers=papers
    )
    assert [plan.whole for plan in again] == [False, True]


@pytest.mark.slow
def test_a_run_that_works_again_takes_its_failure_away(papers, tmp_path):
    plan = plan_run("draw", root=tmp_path / "runs", papers=papers, parameters={"pause": 1.5})
    with pytest.raises(RunFailed, match="longer than 1 s"):
        run_paper(plan, progress=False, cell_timeout=1)
    assert [f.name for f in plan.folder.parent.iterdir()] == [plan.folder.name + ".failed"]
    assert run_paper(plan, progress=False, cell_timeout=60) == plan.folder
    assert [f.name for f in plan.folder.parent.iterdir()] == [plan.folder.name]


@pytest.mark.slow
def test_total_timeout(papers, tmp_path):
    started = time.monotonic()
    states = run_grid(
        plan_grid(["draw"], parameters={"pause": 300.0}, root=tmp_path / "runs", papers=papers),
        timeout=6,
    )
    assert (
        states[0].state == "failed"
        and "the run took longer than 6 s" in states[0].reason
        and time.monotonic() - started < 60
    )


@pytest.mark.slow
def test_two_commands_make_each_run_once(papers, tmp_path):
    root = tmp_path / "runs"
    words = run_words(papers, root, "--seeds", "0-2", "--jobs", "2", "-p", "pause=0.5")
    both = [start(words) for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    made = [line for text in said for line in text.splitlines() if ": made after" in line]
    assert len(made) == 3 and len({line.split("] ")[1].split(":")[0] for line in made}) == 3
    assert len(whole(root)) == 3 and left_over(root) == []


def test_a_folder_that_cannot_be_made_is_no_bug(papers, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(run_words(papers, tmp_path / "file" / "runs")[3:]) == 2
    said = capsys.readouterr().err
    assert f"cannot write to {tmp_path / 'file' / 'runs'}" in said and "bug" not in said


@pytest.mark.slow
def test_a_run_that_is_being_made_is_left_alone(papers, tmp_path):
    plan = plan_run("draw", root=tmp_path / "runs", papers=papers, parameters={"pause": 4.0})
    process = start(run_words(papers, tmp_path / "runs", "-p", "pause=4.0"))
    wait_until(lambda: list((tmp_path / "runs").glob("draw/.*.partial")))
    assert clean_orphans(tmp_path / "runs") == []
    with pytest.raises(RunBusy):
        run_paper(plan, progress=False, wait=False)
    assert run_paper(plan, progress=False) == plan.folder  # waits for it
    assert process.wait() == 0
    options = {"root": tmp_path / "runs", "papers": papers, "parameters": {"pause": 4.0}}
    assert run_paper("draw", progress=False, **options) == plan.folder
    about = json.loads((plan.folder / "provenance.json").read_text())
    assert about["parameters"]["pause"] == 4.0 and left_over(tmp_path / "runs") == []


def test_other_machines_are_left_alone(papers, tmp_path):
    foreign = tmp_path / "runs" / "draw" / ".synthetic-faces-quick-0123456789.elsewhere.17.partial"
    foreign.mkdir(parents=True)
    run_grid(plan_grid(["draw"], root=tmp_path / "runs", papers=papers))
    assert foreign.is_dir() and len(whole(tmp_path / "runs")) == 1


def test_what_changed_is_made_again(tmp_path):
    "Another notebook (even by a comment), parameters or data make another run; outputs do not."
    papers, root = paper(tmp_path / "papers"), tmp_path / "runs"

    def plan(**parameters):
        return plan_run("draw", root=root, papers=papers, parameters=parameters)

    first = plan()
    run_paper(first, progress=False)
    made = json.loads((first.folder / "provenance.json").read_text())["finished"]
    assert plan().whole
    assert not plan(pause=0.1).whole
    assert not plan(dataset_options={"identities": 8, "frames": 1, "videos": 1}).whole
    book = nbformat.read(papers / "draw.ipynb", 4)
    book.cells[-1].outputs = [nbformat.v4.new_output("stream", text="an output")]
    nbformat.write(book, papers / "draw.ipynb")
    assert plan().whole, "outputs are no code"
    paper(tmp_path / "papers", extra="  # changed").joinpath("profiles.toml").write_text(
        "[draw.quick]\n"
    )
    assert not plan().whole
    with pytest.raises(ParameterError, match="changed after"):
        run_paper(first, force=True, progress=False)
    assert json.loads((first.folder / "provenance.json").read_text())["finished"] == made


@pytest.fixture
def table(tmp_path, monkeypatch):
    "Four pictures, two of them fakes with masks."
    from PIL import Image

    from deepfake_nb.data.samples import make_samples

    monkeypatch.setenv("DEEPFAKE_NB_CACHE", str(tmp_path / "cache"))
    for i in range(6):
        Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / f"{i}.bmp")
    return make_samples(
        [
            dict(
                path=str(tmp_path / f"{i}.bmp"),
                kind="image",
                label=i // 2,
                dataset="demo",
                mask_path=str(tmp_path / f"{i + 2}.bmp") if i > 1 else None,
            )
            for i in range(4)
        ]
    )


def test_a_fingerprint_is_of_what_the_files_hold(table):
    "Other pixels in as many bytes, a mask added, a mask painted over: `--resume` missed each."
    from deepfake_nb.runs.fingerprints import data_fingerprint

    prints, picture, mask = (
        {data_fingerprint(table)},
        Path(table["path"][0]),
        Path(table["mask_path"][3]),
    )
    assert data_fingerprint(table) in prints
    prints.add(data_fingerprint(table.assign(mask_path=table["mask_path"].where(table.index != 3))))
    for file in (picture, mask):
        content = file.read_bytes()
        file.write_bytes(content[:-1] + b"\xff")
        assert file.stat().st_size == len(content)
        prints.add(data_fingerprint(table))
        file.write_bytes(content)
    assert len(prints) == 4 and data_fingerprint(table) in prints


def test_a_second_fingerprint_reads_no_file(table, monkeypatch):
    from deepfake_nb.runs.fingerprints import data_fingerprint

    for file in (*table["path"], *table["mask_path"].dropna()):
        os.utime(file, (1e9, 1e9))
    first = data_fingerprint(table)
    monkeypatch.setattr(
        "deepfake_nb.core.files.file_hash", lambda path: pytest.fail(f"{path} is read again")
    )
    assert data_fingerprint(table) == first
    os.utime(table["path"][0], (2e9, 2e9))
    with pytest.raises(pytest.fail.Exception, match="0.bmp is read again"):
        data_fingerprint(table)


def test_members_of_archives_count_by_their_content(table, tmp_path):
    import zipfile

    from deepfake_nb.runs.fingerprints import data_fingerprint

    def zipped(name: str) -> str:
        with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
            archive.write(tmp_path / name, "a.bmp")
        return data_fingerprint(table.head(1).assign(path=f"{tmp_path}/all.zip!/a.bmp"))

    assert zipped("0.bmp") == zipped("0.bmp") != zipped("1.bmp")


def test_arrays_that_a_parameter_names_are_fingerprinted(tmp_path, monkeypatch):
    from deepfake_nb.runs.plan import _further_data

    monkeypatch.setenv("DEEPFAKE_NB_CACHE", str(tmp_path / "cache"))
    prints = []
    for content in (b"0", b"1"):
        (tmp_path / "mnist").mkdir(exist_ok=True)
        (tmp_path / "mnist" / "mnist.npz").write_bytes(content)
        prints.append(_further_data({"digits": "mnist", "data_root": str(tmp_path)}, {})["digits"])
    assert prints[0] != prints[1] and _further_data({"digits": "", "data_root": ""}, {}) == {}


@pytest.fixture
def real(tmp_path, monkeypatch) -> Path:
    "A folder with a dataset that is not rendered: FaceForensics++, two videos in two compressions."
    from deepfake_nb.data.datasets import load_samples

    monkeypatch.setenv("DEEPFAKE_NB_DATA", str(tmp_path / "data"))
    film = Path(
        load_samples("synthetic-faceforensics", identities=4, frames=2, videos=1)["path"][0]
    ).read_bytes()
    for kind in ("original_sequences/youtube", "manipulated_sequences/Deepfakes"):
        for compression in ("c23", "c40"):
            for name in ("000", "001"):
                file = (
                    tmp_path
                    / "data"
                    / "faceforensics"
                    / kind
                    / compression
                    / "videos"
                    / f"{name if 'original' in kind else f'{name}_{1 - int(name):03d}'}.mp4"
                )
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(film)
    return tmp_path


def test_options_reach_data_that_is_not_rendered(real, papers):
    "Those that are given; those of notebooks and profiles are for rendering and do not."

    def plan(**given):
        return plan_run(
            "draw", "faceforensics", parameters=given, root=real / "runs", papers=papers
        )

    assert plan().parameters["dataset_options"] == {}
    squeezed = plan(dataset_options="{'compression': 'c40'}")
    assert (
        squeezed.parameters["dataset_options"] == {"compression": "c40"}
        and squeezed.provenance["data"] != plan().provenance["data"]
    )
    with pytest.raises(
        ValueError, match="faceforensics: unknown option 'identities'; known: .*compression"
    ):
        plan(dataset_options={"identities": 3})
    assert (
        plan_run("draw", "synthetic-faces", root=real / "runs", papers=papers).provenance[
            "parameters"
        ]["dataset_options"]["identities"]
        == 6
    )


@pytest.mark.parametrize(("name", "further"), [("kaminskyi", "second"), ("kun", "other")])
def test_options_of_further_datasets_reach_them(name, further, real):
    def plan(**given) -> dict:
        parameters = {f"{further}_dataset": "faceforensics"} | given
        return plan_run(name, "synthetic-faces", "smoke", parameters, real / "runs").provenance

    plain, squeezed = plan(), plan(**{f"{further}_options": {"compression": "c40"}})
    assert plain["parameters"][f"{further}_options"] == {} and squeezed["parameters"][
        f"{further}_options"
    ] == {"compression": "c40"}
    assert (
        plain["further data"][f"{further}_dataset"]
        != squeezed["further data"][f"{further}_dataset"]
    )
    with pytest.raises(ValueError, match="unknown option 'identities'"):
        plan(**{f"{further}_options": {"identities": 3}})


def test_notebooks_read_with_the_options_that_were_planned():
    "No notebook drops options of a dataset that is not rendered: its run's name counts them."
    from deepfake_nb.runs.parameters import list_papers, paper_path

    for name in list_papers():
        calls = [
            line
            for cell in json.loads(paper_path(name).read_text())["cells"]
            for line in "".join(cell["source"]).splitlines()
            if "load_samples(" in line
        ]
        assert calls and not any("if is_embedded" in line for line in calls), name


@pytest.mark.slow
def test_a_notebook_that_is_changed_while_it_runs(tmp_path):
    papers = paper(tmp_path / "papers")
    plans = plan_grid(["draw"], parameters={"pause": 3.0}, root=tmp_path / "runs", papers=papers)

    def change(states):
        if states[0].cell == 4:
            paper(papers, extra="  # changed").joinpath("profiles.toml").write_text(
                "[draw.quick]\n"
            )

    states = run_grid(plans, watch=change)
    assert (
        states[0].state == "failed" and "changed after" in states[0].reason and not plans[0].whole
    )


@pytest.mark.slow
def test_force_makes_whole_runs_again_and_resume_does_not(papers, tmp_path):
    root = tmp_path / "runs"
    stamps = []
    for words in ([], [], ["--no-resume"], ["--force"]):
        assert main(run_words(papers, root, *words)[3:]) == 0
        stamps.append(
            next(iter(whole(root).values())).joinpath("provenance.json").stat().st_mtime_ns
        )
    assert (
        stamps[0] == stamps[1] < stamps[2] < stamps[3]
        and len(whole(root)) == 1
        and left_over(root) == []
    )


@pytest.mark.slow
def test_dry_run_starts_nothing(papers, tmp_path, capsys):
    words = "--seeds", "0-3", "--dataset", "synthetic-faces,synthetic-faces-crude", "--dry-run"
    assert main(run_words(papers, tmp_path / "runs", *words)[3:]) == 0
    said = capsys.readouterr().out
    assert "8 runs, 8 to do" in said and not (tmp_path / "runs").exists()
    assert said.count("to do →") == 8 and "seed 3" in said and "synthetic-faces-crude" in said
    assert said.count("(time unknown)") == 8 and "8 of unknown time" in said


def test_the_cost_is_told_before(tmp_path, capsys):
    "By this machine's earlier runs, else by the notebook's estimate for its own data, else not."
    import platform

    papers = paper(tmp_path / "papers")
    (papers / "profiles.toml").write_text("[draw.quick]\nseconds = 100\n")
    words = [
        "run",
        "draw",
        "--papers",
        str(papers),
        "--out",
        str(tmp_path / "runs"),
        "--dataset",
        "synthetic-faces,synthetic-faces-crude",
        "--dry-run",
    ]

    def said(*more: str) -> list[str]:
        return [
            line.split(" → ")[-1]
            for line in (main([*words, *more]), capsys.readouterr().out)[1].splitlines()
        ]

    first = said("--seeds", "0-2", "--jobs", "2")
    assert [
        line.endswith("(about 0:01:40, by the notebook's own estimate)") for line in first[:3]
    ] == [True] * 3
    assert [line.endswith("(time unknown)") for line in first[3:6]] == [True] * 3
    assert first[6] == (
        "6 runs, 6 to do, 2 at a time, about 0:03:20 (0:05:00 one after the other), "
        "and 3 of unknown time"
    )
    write_run(tmp_path / "runs", 7, {}, name="draw", host="another machine", seconds=1.0)
    assert said()[0].endswith("estimate)")
    for seed, seconds in enumerate((10.0, 20.0, 60.0)):
        write_run(tmp_path / "runs", seed, {}, name="draw", host=platform.node(), seconds=seconds)
    assert (
        said()[0].endswith("(about 0:00:20, by earlier runs)")
        and said()[2] == "2 runs, 2 to do, about 0:00:20, and 1 of unknown time"
    )


def test_estimates_are_no_parameters_and_every_paper_has_one():
    from deepfake_nb.runs.parameters import (
        default_parameters,
        list_papers,
        paper_path,
        profile_parameters,
    )
    from deepfake_nb.runs.plan import Plan
    from deepfake_nb.runs.progress import estimate_times

    plans = [
        Plan(name, default_parameters(paper_path(name))["dataset"], "quick", {}, Path("nowhere"))
        for name in list_papers()
    ]
    assert len(estimate_times(plans)) == len(plans) and min(estimate_times(plans).values()) > 0
    assert not any("seconds" in profile_parameters(plan.paper, "quick") for plan in plans)


@pytest.mark.slow
def test_plain_output_is_one_line_a_change(undisturbed):
    log = undisturbed.with_name("log").read_text()
    lines = [line.split(" ", 1)[1] for line in log.splitlines() if line[2:3] == ":"]
    changes = [line for line in lines if "so far" not in line]
    assert (
        len(changes) == 2 * RUNS
        and sum(line.endswith(": begins") for line in changes) == RUNS
        and "\x1b" not in log
    )
    assert (
        changes[-1].startswith(f"[{RUNS}/{RUNS}] draw on synthetic-faces (quick, seed ")
        and ": made after 0:00:" in changes[-1]
    )


@pytest.mark.slow
def test_a_log_hears_of_a_long_cell(papers, tmp_path, capsys, monkeypatch):
    "A log was silent from the beginning of a run to its end."
    monkeypatch.setattr("deepfake_nb.runs.progress._EVERY", 0.4)
    assert main(run_words(papers, tmp_path / "runs", "-p", "pause=3.0")[3:]) == 0
    lines = [
        line for line in capsys.readouterr().out.splitlines() if " so far, expected end " in line
    ]
    long = [line for line in lines if ": cell 4 of 5, 0:00:0" in line]
    assert len(long) >= 4 and all(
        "[0/1] draw on synthetic-faces (quick, seed 0): " in line for line in lines
    )
    assert not lines[-1].endswith("not known yet")  # by the cells done


def test_lines_are_rare_and_tell_of_new_cells(papers, tmp_path, capsys, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("deepfake_nb.runs.progress.time.monotonic", lambda: now[0])
    state, lines = (
        RunState(plan_run("draw", root=tmp_path, papers=papers), "running", began=time.time() - 60),
        LogLines({("draw", "synthetic-faces", "quick"): 90.0}),
    )
    told = []
    for second, cell in enumerate([1] * 40 + list(range(2, 22))):
        now[0], state.cell, state.cells = 100.0 + second, cell, 21
        lines([state])
        told.append(capsys.readouterr().out)
    assert [i for i, line in enumerate(told) if line] == [0, 30, 40, 45, 50, 55]
    assert "cell 1 of 21, 0:01:00 so far, expected end " in told[30] and "cell 7 of 21" in told[45]


NOISE = """import os, sys, time, warnings
os.write(
    2,
    b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n"
    b"I0000 00:00:1795797883.931758    3966 port.cc:153] oneDNN custom operations are on.\\n",
)
os.write(2, b"E0000 00:00:1795797883.931758    3966 port.cc:9] a real fault\\n")
from tqdm import tqdm
for _ in tqdm(range(40), desc="training", mininterval=0): time.sleep(.005)
warnings.warn("a real warning")"""


def noisy(folder: Path) -> Path:
    "The paper, with what TensorFlow and a progress bar print."
    papers = paper(folder)
    book = nbformat.read(papers / "draw.ipynb", 4)
    book.cells[2].source += "\n" + NOISE
    nbformat.write(book, papers / "draw.ipynb")
    return papers


@pytest.mark.slow
def test_bars_and_chatter_reach_no_log(tmp_path):
    """A log gets a bar's end, warnings and errors, and nothing of TensorFlow's own words.

    Rendering the data has a bar in the command itself.
    """
    options = "dataset_options={'identities': 4, 'frames': 1, 'videos': 1, 'seed': 9}"
    with open(tmp_path / "log", "w") as log:
        words = run_words(noisy(tmp_path / "papers"), tmp_path / "runs", "-p", options)
        environment = os.environ | {"DEEPFAKE_NB_CACHE": str(tmp_path / "cache")}
        environment.pop(
            "PYTEST_CURRENT_TEST", None
        )  # with which kernels do not capture what native code writes
        assert subprocess.run(words, stdout=log, stderr=log, env=environment).returncode == 0
    text = (tmp_path / "log").read_bytes().decode()
    assert (
        "\r" not in text
        and text.count("faces (careful): ") == text.count("faces (careful): 100%") == 1
        and "I0000" not in text
        and "begins" in text
    )
    outputs = [
        o
        for c in nbformat.read(
            next(iter(whole(tmp_path / "runs").values())) / "draw.ipynb", 4
        ).cells
        if c.cell_type == "code"
        for o in c.outputs
    ]
    said = "".join(o.text for o in outputs if o.output_type == "stream")
    assert (
        said.count("training: ") == 1
        and "training: 100%" in said
        and "absl" not in said
        and "oneDNN" not in said
    )
    assert "a real fault" in said and "a real warning" in said


def test_loading_tensorflow_is_quiet_and_its_faults_are_heard():
    code = (
        "import os, sys\nfrom deepfake_nb.core.output import without_chatter\n"
        "with without_chatter():\n"
        "    os.write(2, b'I0000 00:00:1.5 1 port.cc:153] oneDNN custom operations are on.\\n"
        "W0000 00:00:1.5 1 x.cc:1] beware\\n')\n"
        "    print('python', file=sys.stderr)\nprint('after', file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines() == ["W0000 00:00:1.5 1 x.cc:1] beware", "python", "after"]


@pytest.mark.slow
def test_jobs_share_the_cores(papers, tmp_path, monkeypatch):
    root, cores = (
        tmp_path / "runs",
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    )

    def threads() -> set[int]:
        return {
            json.loads((f / "metrics.json").read_text())["threads"]["value"]
            for f in whole(root).values()
        }

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    for words, expected in ((["--jobs", "2"], max(1, cores // 2)), ([], 0), (["--jobs", "2"], 3)):
        if expected == 3:
            monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert main(run_words(papers, root, "--force", *words)[3:]) == 0
        assert threads() == {expected}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_stops_the_runs_and_says_what_is_whole(number, papers, tmp_path):
    root = tmp_path / "runs"
    plans = plan_grid(["draw"], seeds=[0, 3], parameters={"pause": 60.0}, root=root, papers=papers)
    for folder, name in (
        (plans[0].folder.with_name(plans[0].folder.name + ".failed"), "failure.json"),
        (plans[1].folder, "provenance.json"),
    ):
        folder.mkdir(parents=True)  # one that failed before, and one that is whole
        (folder / name).write_text("{}")
    process = start(run_words(papers, root, "--seeds", "0-3", "--jobs", "2", "-p", "pause=60"))
    wait_until(
        lambda: (
            sum(json.loads(f.read_text())["cell"] >= 4 for f in root.glob(".state/draw/*.json"))
            == 2
        )
    )
    members = family(process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert (
        "2 stopped, 1 waiting, 1 whole" in out
        and "the same command resumes" in out
        and "Traceback" not in err
    )
    assert not [m for m in members if m.is_running() and m.status() != psutil.STATUS_ZOMBIE]
    assert list(whole(root)) == [plans[1].folder.name] and left_over(root) == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_live_table_in_a_terminal(papers, tmp_path):
    import pty

    here, there = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "150", "LINES": "40"}
    process = subprocess.Popen(
        run_words(papers, tmp_path / "runs", "--seeds", "0,1", "--jobs", "2", "-p", "pause=2."),
        stdout=there,
        stderr=there,
        stdin=there,
        env=environment,
        start_new_session=True,
    )
    os.close(there)
    seen = b""
    while True:
        try:
            piece = os.read(here, 4096)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    text = seen.decode(errors="replace")
    assert process.wait() == 0
    for word in (
        "running",
        "4/5",
        "expected end",
        "elapsed",
        "2 runs, 2 to do, 2 at a time",
        "2 made",
    ):
        assert word in text, word


@pytest.mark.parametrize(
    "words, says",
    [
        (["--seeds", "0-2", "-p", "seed=1"], "given twice"),
        (["--jobs", "0"], "argument --jobs: '0': expected a whole number, at least 1"),
        (["--precision", "mixed_float16"], "draw takes no precision"),
        (["--seeds", "a"], "'a' is neither a number nor a range"),
        (["--dataset", "synthetic-faces,"], "empty name"),
        (["--profile", "smoke"], "unknown profile 'smoke'"),
    ],
)
def test_wrong_words_stop_before_anything_starts(words, says, papers, tmp_path, capsys):
    try:
        status = main(run_words(papers, tmp_path / "runs", *words)[3:])
    except SystemExit as end:  # of argparse
        status = end.code
    assert status == 2 and says in capsys.readouterr().err and not whole(tmp_path / "runs")


@pytest.mark.slow
def test_precision_reaches_notebooks_that_take_it(tmp_path):
    papers = paper(tmp_path / "papers")
    book = nbformat.read(papers / "draw.ipynb", 4)
    book.cells[0].source += '\nprecision = ""'
    nbformat.write(book, papers / "draw.ipynb")
    words = run_words(papers, tmp_path / "runs", "--precision", "mixed_float16")
    assert main(words[3:]) == 0
    assert (
        json.loads(
            next(iter(whole(tmp_path / "runs").values())).joinpath("provenance.json").read_text()
        )["parameters"]["precision"]
        == "mixed_float16"
    )


@pytest.mark.slow
def test_on_a_dask_cluster(papers, undisturbed, tmp_path):
    distributed = pytest.importorskip("distributed")
    root = tmp_path / "runs"
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        done = subprocess.run(
            run_words(
                papers,
                root,
                "--seeds",
                "0,2",
                "-p",
                "bad_seed=2",
                "-p",
                "how=raise",
                "--scheduler",
                cluster.scheduler_address,
            ),
            capture_output=True,
            text=True,
        )
        assert (
            done.returncode == 1
            and "1 made, 1 failed" in done.stdout
            and "failed: cell 4 failed with ValueError" in done.stderr
        ), done.stderr
        assert len(whole(root)) == 1 and left_over(root) == []
        process = start(
            run_words(
                papers,
                root,
                "--seeds",
                "4-6",
                "-p",
                "pause=60",
                "--scheduler",
                cluster.scheduler_address,
            )
        )
        wait_until(lambda: len(list(root.glob(".state/draw/*.json"))) == 2)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) and process.returncode == 130
        wait_until(lambda: left_over(root) == [])
        assert len(whole(root)) == 1
    found = {
        json.loads((f / "provenance.json").read_text())["seed"]: json.loads(
            (f / "metrics.json").read_text()
        )["AUC"]
        for f in whole(root).values()
    }
    expected = {
        json.loads((f / "provenance.json").read_text())["seed"]: json.loads(
            (f / "metrics.json").read_text()
        )["AUC"]
        for f in whole(undisturbed).values()
    }
    assert found == {0: expected[0]}


@pytest.mark.slow
def test_a_worker_with_another_library_is_refused(papers, tmp_path):
    distributed = pytest.importorskip("distributed")
    import shutil

    import deepfake_nb

    shutil.copytree(
        Path(deepfake_nb.__file__).parent,
        tmp_path / "other" / "deepfake_nb",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    with open(tmp_path / "other" / "deepfake_nb" / "samples.py", "a") as file:
        file.write("# another version\n")
    with distributed.LocalCluster(n_workers=0, processes=True, dashboard_address=None) as cluster:
        empty = subprocess.run(
            [
                sys.executable,
                "-c",
                "import deepfake_nb.core.parallel as p; p.CONNECT_SECONDS = 1; "
                "import sys; from deepfake_nb.cli import main; sys.exit(main())",
                *run_words(papers, tmp_path / "runs", "--scheduler", cluster.scheduler_address)[3:],
            ],
            capture_output=True,
            text=True,
        )
        assert empty.returncode == 2 and "has no workers" in empty.stderr
        worker = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "distributed.cli.dask_worker",
                cluster.scheduler_address,
                "--no-dashboard",
                "--no-nanny",
            ],
            env=os.environ | {"PYTHONPATH": str(tmp_path / "other")},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=tmp_path,
        )
        try:
            wait_until(lambda: len(cluster.scheduler_info["workers"]) == 1)
            done = subprocess.run(
                run_words(papers, tmp_path / "runs", "--scheduler", cluster.scheduler_address),
                capture_output=True,
                text=True,
            )
        finally:
            worker.terminate()
            worker.wait()
    assert (
        done.returncode == 2
        and "has another version of the library (files " in done.stderr
        and not whole(tmp_path / "runs")
    ), done.stderr


def test_no_scheduler(papers, tmp_path, monkeypatch, capsys):
    pytest.importorskip("distributed")
    monkeypatch.setattr("deepfake_nb.core.parallel.CONNECT_SECONDS", 1)
    assert main(run_words(papers, tmp_path / "runs", "--scheduler", "tcp://127.0.0.1:9")[3:]) == 2
    assert (
        "no Dask scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err
        and not whole(tmp_path / "runs")
    )


# The report. Runs are written by hand here: what `run` writes is tested above.


def write_run(
    root: Path,
    seed: int,
    metrics: dict,
    *,
    name: str = "demo",
    dataset: str = "synthetic-faces",
    commit: str = "aaaaaaaa",
    code: str = "c0de",
    tables: dict | None = None,
    **about,
) -> Path:
    folder = root / name / f"{dataset}-quick-{seed}-{code}-{commit}{about.get('epochs', '')}"
    parameters = {
        "seed": seed,
        "dataset": dataset,
        "output_dir": ".",
        "epochs": about.pop("epochs", 7),
    }
    (folder / "tables").mkdir(parents=True)
    provenance = {
        "paper": name,
        "dataset": dataset,
        "profile": "quick",
        "seed": seed,
        "parameters": parameters,
        "data": dataset,
        "code": code,
        "commit": commit,
        "backend": "tensorflow",
        "weights": {},
        "device": "cpu",
        "host": "here",
        "packages": {"keras": "3"},
        "finished": "2026-01-01T00:00:00+00:00",
        "seconds": 60.0,
        **about,
    }
    (folder / "provenance.json").write_text(json.dumps(provenance))
    (folder / "metrics.json").write_text(
        json.dumps({k: v if isinstance(v, dict) else {"value": v} for k, v in metrics.items()})
    )
    for table, data in (tables or {}).items():
        data.to_csv(folder / "tables" / f"{table}.csv", index=False)
    return folder


def summary_of(root: Path, **where) -> pd.Series:
    from deepfake_nb.runs.collect import run_numbers, summarise_runs

    table = summarise_runs(run_numbers(collect_runs(root)))
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table) == 1, table
    return table.iloc[0]


def test_mean_and_interval_over_seeds_are_those_of_scipy(tmp_path):
    from scipy import stats

    values = np.random.default_rng(0).normal(0.8, 0.05, 5)
    for seed, value in enumerate(values):
        write_run(
            tmp_path, seed, {"AUC": {"value": value, "low": value - 0.1, "high": value + 0.1}}
        )
    row = summary_of(tmp_path, number="AUC")
    low, high = stats.t.interval(0.95, 4, loc=values.mean(), scale=stats.sem(values))
    np.testing.assert_allclose(
        [row["n"], row["mean"], row["low"], row["high"], row["run low"]],
        [5, values.mean(), low, high, values.mean() - 0.1],
    )


def test_interval_covers_the_mean_as_often_as_it_says():
    from deepfake_nb.runs.collect import summarise_runs

    rng, trials, seeds = np.random.default_rng(1), 2000, 4
    about = dict(
        paper="demo",
        dataset="d",
        profile="quick",
        variant="",
        source="metrics",
        low=np.nan,
        high=np.nan,
    )
    numbers = pd.DataFrame(
        {
            "number": np.repeat(np.arange(trials).astype(str), seeds),
            "value": rng.normal(3, 1, trials * seeds),
        }
    ).assign(**about)
    table = summarise_runs(numbers, confidence_level=0.9)
    assert abs(((table["low"] < 3) & (table["high"] > 3)).mean() - 0.9) < 0.025


def test_one_seed_and_missing_values_have_no_interval(tmp_path):
    write_run(tmp_path, 0, {"AUC": 0.5, "gone": None})
    row = summary_of(tmp_path, number="AUC")
    assert row["n"] == 1 and np.isnan(row["low"]) and np.isnan(row["high"])
    assert summary_of(tmp_path, number="gone")["n"] == 0


def test_only_what_differs_in_the_seed_alone_is_put_together(tmp_path):
    for seed in (0, 1):
        write_run(tmp_path, seed, {"AUC": 0.5})
    write_run(tmp_path, 0, {"AUC": 0.6}, code="0ther", commit="bbbbbbbb")
    write_run(tmp_path, 0, {"AUC": 0.7}, epochs=9)
    write_run(tmp_path, 0, {"AUC": 0.7}, dataset="synthetic-dfdc")
    from deepfake_nb.runs.collect import run_numbers, summarise_runs

    table = (
        summarise_runs(run_numbers(collect_runs(tmp_path)))
        .set_index(["dataset", "variant"])["n"]
        .to_dict()
    )
    assert table == {
        ("synthetic-faces", "epochs=7, code=aaaaaaaa"): 2,
        ("synthetic-faces", "epochs=7, code=bbbbbbbb"): 1,
        ("synthetic-faces", "epochs=9, code=aaaaaaaa"): 1,
        ("synthetic-dfdc", ""): 1,
    }


def test_hidden_failed_and_half_made_folders_are_no_runs(tmp_path):
    keep = write_run(tmp_path, 0, {"AUC": 0.5})
    for name in (".demo.host.1.partial", "demo.failed"):
        write_run(tmp_path, 1, {"AUC": 0.1}).rename(tmp_path / "demo" / name)
    (tmp_path / "demo" / "without-provenance").mkdir()
    assert collect_runs(tmp_path)["folder"].tolist() == [keep]


def test_folders_of_several_machines_are_told_apart(tmp_path):
    for machine in ("left", "right"):
        write_run(tmp_path / machine, 0, {"AUC": 0.5})
    runs = collect_runs(tmp_path)
    assert runs["where"].tolist() == ["left", "right"] and runs["variant"].tolist() == [
        "where=left",
        "where=right",
    ]


def test_tables_over_seeds(tmp_path):
    for seed in range(3):
        table = pd.DataFrame(
            {
                "model": ["I", "II", "II"],
                "AUC": [f"0.{70 + seed} [0.60, 0.80]", "–", "0.5"],
                "images": [1000 + seed, 20, 30],
                "note": ["a", f"b{seed}", "c"],
            }
        )
        write_run(
            tmp_path,
            seed,
            {},
            tables={
                "test": table.replace("–", ""),
                "words": pd.DataFrame({"a": ["x"]}),
                "chosen_by_us": pd.DataFrame({"n": [1]}),
            },
        )
    row = summary_of(tmp_path, number="I · AUC")
    assert (row["n"], row["mean"], row["run low"], row["run high"]) == pytest.approx(
        (3, 0.71, 0.6, 0.8)
    )
    assert summary_of(tmp_path, number="I · images")["mean"] == 1001
    assert summary_of(tmp_path, number="II #2 · AUC")["mean"] == 0.5
    from deepfake_nb.runs.collect import run_numbers

    assert set(run_numbers(collect_runs(tmp_path))["number"]) == {
        "I · AUC",
        "II #2 · AUC",
        "I · images",
        "II #1 · images",
        "II #2 · images",
    }


def test_matrix_across_datasets(tmp_path):
    from deepfake_nb.runs.collect import cross_dataset, run_numbers

    for seed in range(2):
        for trained in ("a", "b"):
            entries = {
                f"AUC {trained} → {tested}": {
                    "value": (trained == tested) * 0.4 + 0.5 + seed * 0.02,
                    "trained_on": trained,
                    "tested_on": tested,
                }
                for tested in ("a", "b")
            }
            write_run(tmp_path, seed, entries, dataset=f"synthetic-{trained}")
    matrix = cross_dataset(run_numbers(collect_runs(tmp_path)))
    assert set(matrix["measure"]) == {"AUC"} and (matrix["n"] == 2).all()
    np.testing.assert_allclose(
        matrix.pivot(index="trained on", columns="tested on", values="mean"),
        [[0.91, 0.51], [0.51, 0.91]],
    )


def test_report_from_the_command_line(tmp_path, capsys):
    ledger = pd.DataFrame(
        {
            "no.": [1],
            "claim": ["<b>x</b> is best"],
            "verdict": ["not comparable"],
            "stand-in": ["agrees"],
        }
    )
    for seed in range(3):
        write_run(
            tmp_path,
            seed,
            {"AUC": 0.8 + seed / 100, "parameters": 123.0},
            tables={"verdicts": ledger},
        )
    assert main(["report", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert "3 complete runs of demo" in capsys.readouterr().out
    files = {str(f.relative_to(tmp_path / "out")) for f in (tmp_path / "out").rglob("*.*")}
    assert files == {
        "runs.csv",
        "numbers.csv",
        "summary.csv",
        "cross_dataset.csv",
        "verdicts.csv",
        "index.html",
        *(f"figures/demo-seeds.{e}" for e in ("png", "svg", "csv")),
    }
    page = (tmp_path / "out" / "index.html").read_text()
    assert (
        "0.81 [0.7852, 0.8348] (3)" in page
        and "agrees 3" in page
        and "<b>x</b>" not in page
        and "data:image/png" in page
    )
    assert pd.read_csv(tmp_path / "out" / "figures" / "demo-seeds.csv")["number"].tolist() == [
        "AUC"
    ]


@pytest.mark.slow
def test_report_of_the_grid_that_was_run(undisturbed, tmp_path):
    from deepfake_nb.runs.report import write_report

    page = write_report(collect_runs(undisturbed), tmp_path)
    row = pd.read_csv(tmp_path / "summary.csv").set_index("number").loc["AUC"]
    assert (
        row["n"] == RUNS
        and abs(row["mean"] - 0.5) < 0.2
        and row["low"] < row["mean"] < row["high"]
        and "<h2>draw</h2>" in page.read_text()
    )


def test_comparison_names_what_moved_and_what_is_missing(tmp_path, capsys):
    for seed in range(3):
        write_run(
            tmp_path / "a",
            seed,
            {
                "AUC": {"value": 0.8, "low": 0.7, "high": 0.85},
                "parameters": 1e6,
                "seconds an epoch": 1.0,
                "old": 1.0,
            },
        )
        write_run(
            tmp_path / "b",
            seed,
            {
                "AUC": {"value": 0.8 + 0.06 * (seed == 1)},
                "parameters": 1e6 + 0.5,
                "seconds an epoch": 2.0,
                "new": 1.0,
            },
            code="n3w",
            commit="bbbbbbbb",
            epochs=9,
        )
    write_run(tmp_path / "a", 3, {"AUC": 0.5})
    words = [
        "report",
        "--out",
        str(tmp_path / "out"),
        "--compare",
        str(tmp_path / "a"),
        str(tmp_path / "b"),
    ]
    assert main(words) == 1
    said = capsys.readouterr().out
    assert (
        "3 pairs of runs, 6 numbers: 1 moved by more than 1e-06" in said
        and "1 of them out of A's own interval; 7 runs or numbers on one side only" in said
    )
    moved = pd.read_csv(tmp_path / "out" / "comparison.csv").query("moved")
    assert moved[["number", "seed"]].values.tolist() == [["AUC", 1]] and moved["difference"].iloc[
        0
    ] == pytest.approx(0.06)
    missing = pd.read_csv(tmp_path / "out" / "missing.csv")
    assert missing["only in"].value_counts().to_dict() == {"A": 4, "B": 3} and missing.loc[
        0, "name"
    ].startswith("demo on synthetic-faces (quick, seed 3)")
    different = pd.read_csv(tmp_path / "out" / "provenance.csv").set_index("what")
    assert (
        different.loc["commit"].tolist() == ["aaaaaaaa", "bbbbbbbb"]
        and different.loc["demo parameter epochs"].tolist() == ["7", "9"]
        and "package keras" not in different.index
    )
    over = (
        pd.read_csv(tmp_path / "out" / "comparison_over_seeds.csv").set_index("number").loc["AUC"]
    )
    assert (
        over["n"] == 3
        and over["difference"] == pytest.approx(0.02)
        and over["low"] < 0 < over["high"]
    )
    assert main([*words, "--tolerance", "0.1"]) == 1  # still missing
    assert (
        main(
            [
                "report",
                "--out",
                str(tmp_path / "out"),
                "--compare",
                str(tmp_path / "a"),
                str(tmp_path / "a"),
            ]
        )
        == 0
    )


def test_two_commits_in_one_folder(tmp_path, capsys):
    for commit, code, value in (("aaaaaaaa", "c0de", 0.8), ("bbbbbbbb", "n3w", 0.9)):
        write_run(tmp_path, 0, {"AUC": value}, commit=commit, code=code)
    assert main(["report", str(tmp_path), "--compare", "commit=aaaa", "commit=bbbb"]) == 1
    assert "1 pair of runs, 1 numbers: 1 moved" in capsys.readouterr().out
    assert main(["report", str(tmp_path), "--compare", "commit=aaaa", "commit=cccc"]) == 2
    assert "no run with commit=cccc; there are ['aaaaaaaa', 'bbbbbbbb']" in capsys.readouterr().err


def test_varied_parameters_find_their_partners(tmp_path):
    from deepfake_nb.runs.compare import compare_runs

    for side in ("a", "b"):
        for epochs in (3, 15):
            write_run(
                tmp_path / side,
                0,
                {"AUC": epochs / 20 + 0.01 * (side == "b" and epochs == 3)},
                epochs=epochs,
            )
    found = compare_runs(collect_runs(tmp_path / "a"), collect_runs(tmp_path / "b"))
    assert (
        found.moved["varied"].tolist() == ["epochs=3"]
        and len(found.numbers) == 2
        and found.missing.empty
    )


def test_a_number_that_became_nothing_has_moved(tmp_path):
    from deepfake_nb.runs.compare import compare_runs

    write_run(tmp_path / "a", 0, {"AUC": 0.5, "both": None})
    write_run(tmp_path / "b", 0, {"AUC": None, "both": None})
    found = compare_runs(collect_runs(tmp_path / "a"), collect_runs(tmp_path / "b"))
    assert found.moved["number"].tolist() == ["AUC"] and found.missing.empty


def test_runs_without_partners_and_folders_without_runs(tmp_path, capsys):
    write_run(tmp_path / "a", 0, {"AUC": 0.5})
    write_run(tmp_path / "b", 1, {"AUC": 0.5})
    assert main(["report", "--compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 2
    assert "no run of A has a partner in B" in capsys.readouterr().err
    assert (
        main(["report", str(tmp_path / "nothing")]) == 2
        and "no complete run below" in capsys.readouterr().err
    )


def test_help_loads_nothing_heavy():
    for words in (["report", "--help"], ["run", "--help"]):
        code = (
            "import sys; from deepfake_nb.cli import main\n"
            f"try: main({words!r})\n"
            "except SystemExit as e: print(e.code, sorted({'tensorflow', 'keras', 'pandas', "
            "'matplotlib', 'rich', 'papermill'} & set(sys.modules)), file=sys.stderr)"
        )
        assert (
            subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            ).stderr.strip()
            == "0 []"
        )


@pytest.mark.slow
def test_refreshed_outputs_come_home(tmp_path):
    from deepfake_nb.runs.refresh import refresh_papers

    papers = paper(paper(tmp_path / "papers"), "fails")
    book = nbformat.read(papers / "draw.ipynb", 4)
    book.cells[1].source += "\nprint('drawn')"
    nbformat.write(book, papers / "draw.ipynb")
    book = nbformat.read(papers / "fails.ipynb", 4)
    book.cells[2].source = "1 / 0"
    nbformat.write(book, papers / "fails.ipynb")
    with pytest.raises(RunFailed, match="fails on synthetic-faces .*ZeroDivisionError"):
        refresh_papers(root=tmp_path / "runs", jobs=2, papers=papers)
    home = nbformat.read(papers / "draw.ipynb", 4)
    assert (
        "drawn" in str(home.cells[1].outputs)
        and len(home.cells) == 4
        and not nbformat.read(papers / "fails.ipynb", 4).cells[2].outputs
    )
    assert refresh_papers(["draw"], tmp_path / "runs", papers=papers) == [papers / "draw.ipynb"]
