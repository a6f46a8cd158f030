"""Faults of everyday use: each is met with what is wrong and what to do."""

import numpy as np
import pandas as pd
import pytest
from planted import isolated, plant, write_image  # noqa: F401

from deepfake_nb.cli.commands import main
from deepfake_nb.core.errors import DatasetNotFoundError, ParameterError, SampleError
from deepfake_nb.core.paths import cache_dir, papers_dir
from deepfake_nb.data.datasets import load_samples
from deepfake_nb.data.samples import make_samples
from deepfake_nb.data.splits import check_split, split_samples


@pytest.mark.parametrize(
    ("words", "suggested"),
    [
        ("trian", "train"),
        ("data lst", "list"),
        ("judge a.csv --missing wrogn", "wrong"),
        ("train --datset x", "--dataset"),
        ("run kun --profil smoke --sedes 1", "--seeds"),
    ],
)
def test_a_typing_error_gets_a_suggestion(words, suggested, capsys):
    with pytest.raises(SystemExit):
        main(words.split())
    assert capsys.readouterr().err.endswith(f"; did you mean {suggested}?\n")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("run kun --seeds 3-1", "'3-1' is an empty range; did you mean 1-3?"),
        ("run kun --jobs 0", "'0': expected a whole number, at least 1"),
        ("run kun --seeds 0-999999999", "'0-999999999': more than 10,000 numbers"),
        (f"train --out x --seed {10**20}", "at least 0 and at most 4,294,967,295"),
        ("judge x.csv --seed -1", "'-1': expected a whole number, at least 0"),
    ],
)
def test_empty_ranges_and_counts_are_refused(words, message, capsys):
    with pytest.raises(SystemExit):
        main(words.split())
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("run kun -p profile=smoke --dry-run", "'smoke' is a name alone; `--profile smoke` sets"),
        ("extract celeba --out x --confidence 2", "expected a confidence from 0 to 1"),
        ("extract celeba --out x --form jpg --quality 101", "a quality from 1 to 100"),
        ("robustness x --dataset y --treatments jpeg", "did you mean 'JPEG'?"),
        ("data add nowhere --name mine", "nowhere: no such file or folder"),
        ("audit synthetic-faces+synthetic-faces", "a dataset is named twice"),
    ],
)
def test_values_that_cannot_be_are_refused_at_once(words, message, capsys):
    assert main(words.split()) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        "run kun --profile smoke --out",
        "robustness x --dataset y --out",
        "audit z --page",
        "judge x.csv --page",
    ],
)
def test_the_output_place_is_tried_before_anything_starts(words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("deepfake_nb.runs.commands.plan_grid", lambda *_, **__: 1 / 0)
    (tmp_path / "file").touch()
    folder, option = tmp_path / "file" / "folder", words.split()[-1]
    assert main([*words.split(), str(folder if option == "--out" else folder / "a.html")]) == 2
    said = capsys.readouterr().err
    assert f"cannot write to {folder}: " in said
    assert f"not a directory; choose another folder with {option}" in said


def test_an_audit_of_a_split_that_a_dataset_lacks_is_refused(capsys, monkeypatch):
    table = people(4).assign(split="train")
    monkeypatch.setattr("deepfake_nb.studies.audit_report.load_samples", lambda *_: table)
    assert main(["audit", "synthetic-faces", "--split", "test"]) == 2
    assert "no files in the split 'test'; there are train" in capsys.readouterr().err


def test_a_root_that_does_not_exist_is_named(capsys):
    with pytest.raises(DatasetNotFoundError, match="/nonexistent: no such folder; leave it out"):
        load_samples("synthetic-faces", "/nonexistent", identities=2)
    assert main("run kun --profile smoke --dry-run -p data_root=/nonexistent".split()) == 2
    error = capsys.readouterr().err
    assert "/nonexistent: no such folder; leave it out" in error
    assert "rendered already" not in error


def test_a_dry_run_renders_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main("run kun forbush --seeds 0-1 --profile smoke --dry-run".split()) == 0
    printed = capsys.readouterr().out
    assert "4 runs, 4 to do" in printed
    assert printed.count("runs/kun (named when its data are rendered)") == 2
    assert not (cache_dir() / "synthetic").exists()
    assert list(tmp_path.iterdir()) == []


def test_weights_below_the_root_are_found(tmp_path, monkeypatch):
    from deepfake_nb.core.paths import weights_dirs

    found = []
    monkeypatch.setattr(
        "deepfake_nb.faces.dataset.extract_command", lambda *_: found.append(weights_dirs()) or 0
    )
    assert main(["extract", "uadfv", "--root", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    assert main(["extract", "uadfv", "--out", str(tmp_path / "out")]) == 0
    assert found[0][0] == tmp_path / "weights"
    assert tmp_path / "weights" not in found[1]


# Loaders


@pytest.mark.parametrize("samples", ["folder", ["a.png"], None, pd.DataFrame({"file": ["a.png"]})])
def test_loaders_say_what_they_expect(samples):
    from deepfake_nb.training.loaders import ImageBatches, load_images

    for read in (lambda: ImageBatches(samples, "train"), lambda: load_images(samples)):
        with pytest.raises(SampleError, match="expected a sample table, as `load_samples` gives"):
            read()


def test_a_table_without_splits_says_so(tmp_path):
    from deepfake_nb.training.loaders import ImageBatches

    table = pd.DataFrame({"path": [str(write_image(tmp_path / "a.png"))], "label": [0]})
    with pytest.raises(SampleError, match=r"columns \['split'\] are missing"):
        ImageBatches(table, "train")


def test_batches_refuse_processes_which_would_hang(tmp_path):
    from deepfake_nb.training.batches import ArrayBatches
    from deepfake_nb.training.loaders import ImageBatches

    table = pd.DataFrame({"path": [str(write_image(tmp_path / "a.png"))], "label": [0]})
    for make in (
        lambda **options: ArrayBatches(np.zeros((4, 2)), **options),
        lambda **options: ImageBatches(table, size=8, cache=None, **options),
    ):
        with pytest.raises(ParameterError, match="use_multiprocessing=True: .*; leave it out"):
            make(workers=2, use_multiprocessing=True)
        assert len(make(workers=2)) == 1


# Splits


def people(n: int, per: int = 4) -> pd.DataFrame:
    ids = np.repeat(np.arange(n), per)
    return make_samples(
        pd.DataFrame(
            {
                "path": [f"{i}.png" for i in range(len(ids))],
                "kind": "image",
                "label": np.arange(len(ids)) % 2,
                "dataset": "made",
                "identity": [f"p{i}" for i in ids],
            }
        )
    )


def test_splits_of_many_people_take_seconds():
    import time

    start = time.process_time()
    split, _ = split_samples(people(50_000, 1))
    assert time.process_time() - start < 5  # 8.7 before; a million people take 42 s of processor
    check_split(split)


def test_a_given_split_with_people_in_two_parts_is_refused_unless_asked_for():
    from deepfake_nb.detectors.training import with_splits

    table = people(8)
    table["split"] = pd.array(["train", "train", "test", "test"] * 8, "string")
    message = (
        r"own split shares people between its parts: identity 'p0' is in \['test', 'train'\] "
        r"\(8 of 8 identity keys are in several splits\); pass given_split='replace'"
    )
    with pytest.raises(SampleError, match=message):
        with_splits(table, 0)
    kept, text = with_splits(table, 0, "keep")
    assert set(kept.loc[kept["split"] == "test", "path"]) == set(
        table["path"][table["split"] == "test"]
    )
    assert "shares people between its parts" in text
    made, text = with_splits(table, 0, "replace")
    check_split(made)
    assert text.startswith("identity-disjoint split")


# Profiles of papers


@pytest.mark.parametrize("paper", ["denholtz", "forbush", "kaminskyi", "kun", "torlapati"])
@pytest.mark.parametrize("profile", ["smoke", "full"])
def test_the_name_of_a_profile_without_its_sizes_is_refused(paper, profile):
    from deepfake_nb.runs.parameters import (
        check_profile,
        default_parameters,
        paper_path,
        profile_parameters,
    )

    defaults = default_parameters(paper_path(paper))
    message = f"profile='{profile}' is a name alone here: .*`deepfake-nb run {paper} --profile"
    with pytest.raises(ParameterError, match=message):
        check_profile(paper, profile, defaults | {"profile": profile})
    check_profile(paper, profile, defaults | profile_parameters(paper, profile))
    check_profile(paper, "quick", defaults)


def test_the_name_of_a_profile_is_unknown_or_of_the_users_own():
    from deepfake_nb.runs.parameters import check_profile, default_parameters, paper_path

    given = default_parameters(paper_path("kun")) | {"seed": 3, "output_dir": "."}
    with pytest.raises(ParameterError, match="unknown profile 'smke' of kun; did you mean 'smoke'"):
        check_profile("kun", "smke", given | {"profile": "smke"})
    check_profile("kun", "mine", given | {"profile": "mine", "n_images": 20})


@pytest.mark.slow
def test_plain_papermill_refuses_the_name_of_a_profile(tmp_path):
    import papermill

    paper, values = papers_dir() / "kun.ipynb", {"profile": "smoke"}
    with pytest.raises(papermill.PapermillExecutionError, match="'smoke' is a name alone here"):
        papermill.execute_notebook(paper, tmp_path / "kun.ipynb", values, kernel_name="python3")
