"""What other programs read: runs as RO-Crates, datasets as Croissant and BibTeX."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest

from deepfake_nb.core.errors import ReportError
from deepfake_nb.data.commands import describe_command
from deepfake_nb.data.croissant import croissant_metadata
from deepfake_nb.data.manifests import list_datasets, load_manifest
from deepfake_nb.data.samples import COLUMNS, make_samples
from deepfake_nb.reporting.crate import CRATE_NAME, write_crate

NAMES = list_datasets()
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PROVENANCE = {
    "backend": "tensorflow",
    "code": "0123456789abcdef",
    "commit": COMMIT,
    "cores": 2,
    "data": "fedcba9876543210",
    "dataset": "synthetic-faces",
    "device": "a processor",
    "finished": "2026-01-02T03:04:05+00:00",
    "further data": {"other_dataset": "aaaabbbbccccdddd"},
    "host": "a-host-of-mine",
    "packages": {"deepfake_nb": "0.1.0", "keras": "3.12.0", "papermill": "2.6.0"},
    "paper": "kun",
    "parameters": {
        "dataset": "synthetic-faces",
        "dataset_options": {"identities": 8},
        "epsilon": 1e-8,
        "lengths": [80, 300],
        "limit": None,
        "other_dataset": "uadfv",
        "seed": 3,
        "tuned": True,
    },
    "platform": "Linux",
    "profile": "quick",
    "python": "3.12.1",
    "seconds": 65.4,
    "seed": 3,
    "weights": {},
}
FILES = {
    "kun.ipynb": json.dumps(
        {
            "cells": [
                {"cell_type": "code", "metadata": {}, "source": "# no heading", "outputs": []},
                {"cell_type": "markdown", "metadata": {}, "source": ["# A spectrum\n", "Text."]},
            ]
        }
    ),
    "figures/curve 1.csv": "x,y\n1,2\n",
    "figures/curve 1.png": "not really a picture",
    "figures/curve 1.svg": "<svg/>",
    "tables/verdicts.csv": "no.,verdict\n1,reproduced\n",
    "metrics.json": "{}",
    "verdicts.json": "{}",
    "model.weights": "numbers",
}


def make_run(folder: Path, **changes) -> Path:
    "A folder such as `deepfake-nb run` leaves."
    about = PROVENANCE | changes
    for name, text in (FILES | {"provenance.json": json.dumps(about)}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def entities(folder: Path) -> dict[str, dict]:
    "The crate's entities by their id."
    crate = json.loads(write_crate(folder).read_text(encoding="utf-8"))
    assert set(crate) == {"@context", "@graph"}
    assert crate["@context"][0] == "https://w3id.org/ro/crate/1.1/context"
    found = {entity["@id"]: entity for entity in crate["@graph"]}
    assert len(found) == len(crate["@graph"]), "an id is used twice"
    return found


def ids(value: dict | list) -> list[str]:
    return [reference["@id"] for reference in (value if isinstance(value, list) else [value])]


def of_type(found: dict[str, dict], name: str) -> list[dict]:
    return [e for e in found.values() if name in (e["@type"], *e["@type"])]


@pytest.fixture
def run(tmp_path) -> Path:
    return make_run(tmp_path / "run")


def test_the_graph_is_flat_and_each_reference_resolves(run):
    found = entities(run)
    for entity in found.values():
        assert entity["@type"]
        for key, value in entity.items():
            for item in value if isinstance(value, list) else [value]:
                assert isinstance(item, str | int | float | dict), key
                if isinstance(item, dict):
                    assert set(item) == {"@id"}
                    known = item["@id"] in found or item["@id"] == "https://w3id.org/ro/crate/1.1"
                    assert known, f"{key} → {item['@id']}"


def test_descriptor_and_root_say_what_ro_crate_requires(run):
    found = entities(run)
    descriptor, root = found["ro-crate-metadata.json"], found["./"]
    assert descriptor["@type"] == "CreativeWork" and descriptor["about"] == {"@id": "./"}
    assert "https://w3id.org/ro/crate/1.1" in ids(descriptor["conformsTo"])
    assert root["@type"] == "Dataset" and root["name"] and root["description"]
    assert root["datePublished"] == PROVENANCE["finished"]
    assert ids(root["conformsTo"]) == [
        "https://w3id.org/ro/wfrun/process/0.5",
        "https://w3id.org/ro/wfrun/workflow/0.5",
        "https://w3id.org/workflowhub/workflow-ro-crate/1.0",
    ]
    for profile in ids(root["conformsTo"]):
        assert found[profile]["@type"] == "CreativeWork" and found[profile]["version"] in profile


def test_each_file_is_a_part_and_a_result_with_its_hash(run):
    found = entities(run)
    parts = ids(found["./"]["hasPart"])
    there = {str(f.relative_to(run)) for f in run.rglob("*") if f.is_file()} - {CRATE_NAME}
    assert {unquote(part) for part in parts} == there and len(parts) == len(there)
    assert "figures/curve%201.svg" in parts
    (action,) = of_type(found, "CreateAction")
    assert ids(action["result"]) == parts
    for part in parts:
        content = (run / unquote(part)).read_bytes()
        assert "File" in (found[part]["@type"], *found[part]["@type"])
        assert found[part]["sha256"] == hashlib.sha256(content).hexdigest()
        assert found[part]["contentSize"] == str(len(content))
    media = {Path(part).suffix: found[part]["encodingFormat"] for part in parts}
    assert media == {
        ".ipynb": "application/x-ipynb+json",
        ".csv": "text/csv",
        ".png": "image/png",
        ".svg": "image/svg+xml",
        ".json": "application/json",
        ".weights": "application/octet-stream",
    }


def test_the_notebook_is_the_workflow(run):
    found = entities(run)
    workflow = found[found["./"]["mainEntity"]["@id"]]
    assert workflow["@id"] == "kun.ipynb" and workflow["name"] == "A spectrum"
    assert set(workflow["@type"]) == {"File", "SoftwareSourceCode", "ComputationalWorkflow"}
    language = found[workflow["programmingLanguage"]["@id"]]
    assert language["@type"] == "ComputerLanguage" and "papermill" in language["name"]
    assert workflow["version"] == COMMIT and workflow["runtimePlatform"] == "Python 3.12.1"
    software = [found[name] for name in ids(workflow["softwareRequirements"])]
    assert [s["name"] for s in software] == ["deepfake_nb", "keras", "papermill"]
    assert software[0]["url"].endswith(f"/tree/{COMMIT}") and software[0]["version"] == "0.1.0"
    assert software[1]["softwareVersion"] == "3.12.0"


def test_the_action_has_instrument_times_and_inputs(run):
    found = entities(run)
    (action,) = of_type(found, "CreateAction")
    assert ids(found["./"]["mentions"]) == [action["@id"]]
    assert action["instrument"] == found["./"]["mainEntity"]
    assert action["startTime"] == "2026-01-02T03:02:59+00:00"
    assert action["endTime"] == "2026-01-02T03:04:05+00:00"
    assert action["actionStatus"] == "http://schema.org/CompletedActionStatus"
    assert action["name"] == "kun on synthetic-faces (quick, seed 3)" and action["description"]
    assert found["provenance.json"]["about"] == {"@id": action["@id"]}

    inputs = ids(found["kun.ipynb"]["input"])
    values = [found[i] for i in ids(action["object"]) if found[i]["@type"] == "PropertyValue"]
    assert [v["exampleOfWork"]["@id"] for v in values] == inputs
    assert {v["name"]: v["value"] for v in values} == {
        "dataset": "synthetic-faces",
        "dataset_options": '{"identities": 8}',
        "epsilon": 1e-8,
        "lengths": "[80, 300]",
        "limit": "null",
        "other_dataset": "uadfv",
        "seed": 3,
        "tuned": True,
    }
    types = {found[i]["name"]: found[i]["additionalType"] for i in inputs}
    assert {found[i]["@type"] for i in inputs} == {"FormalParameter"}
    assert (types["seed"], types["tuned"], types["epsilon"]) == ("Integer", "Boolean", "Float")

    data = [found[i] for i in ids(action["object"]) if found[i]["@type"] == "Dataset"]
    assert [(d["name"], d["identifier"]) for d in data] == [
        ("synthetic-faces", "fedcba9876543210"),
        ("uadfv", "aaaabbbbccccdddd"),
    ]


def test_the_terms_of_the_data_are_terms_of_the_crate(run):
    found = entities(run)
    licences = [found[name] for name in ids(found["./"]["license"])]
    assert [licence["name"] for licence in licences] == [
        "Apache-2.0",
        load_manifest("uadfv").terms["licence"],
    ]
    joined = make_run(run, dataset="celeba+million-fake-faces", **{"further data": {}})
    found = entities(joined)
    assert len(ids(found["./"]["license"])) == 3
    assert len(ids(found["#data-dataset"]["license"])) == 2


def test_another_notebook_has_the_licence_of_its_author(run):
    (run / "kun.ipynb").rename(run / "mine.ipynb")
    shutil.copy(run / "mine.ipynb", run / "kept.ipynb")
    make_run(run, paper="mine", dataset="a-dataset-that-is-not-here", commit=None)
    found = entities(run)
    licence = found[found["mine.ipynb"]["license"]["@id"]]
    assert "not stated" in licence["name"] and "license" not in found["#data-dataset"]
    assert "version" not in found["mine.ipynb"], "the library's commit is not the notebook's"
    assert entities(make_run(run, commit=None))["kun.ipynb"]["version"] == "0.1.0"


def test_nobody_is_named(run):
    text = write_crate(run).read_text()
    assert PROVENANCE["host"] not in text and str(run) not in text
    for word in ("Person", "Organization", "agent", "author", "creator"):
        assert f'"{word}"' not in text


def test_the_same_run_gives_the_same_crate(run, tmp_path):
    first = write_crate(run).read_bytes()
    assert write_crate(run).read_bytes() == first
    moved = shutil.copytree(run, tmp_path / "elsewhere")
    (moved / CRATE_NAME).unlink()
    assert write_crate(moved).read_bytes() == first
    (run / "metrics.json").write_text('{"AUC": 1}')
    assert write_crate(run).read_bytes() != first


def test_a_folder_that_is_no_complete_run_is_refused(run):
    (run / "kun.ipynb").unlink()
    with pytest.raises(ReportError, match="lacks kun.ipynb"):
        write_crate(run)
    with pytest.raises(ReportError, match="no provenance.json"):
        write_crate(run / "figures")
    assert not list(run.rglob("*.partial*"))


@pytest.mark.parametrize("name", NAMES)
def test_croissant_has_what_the_format_requires(name):
    manifest, described = load_manifest(name), croissant_metadata(name)
    required = {"@context", "@type", "name", "conformsTo", "description", "license", "url"}
    required |= {"creator", "datePublished", "citeAs", "distribution"}
    unknown = {"million-fake-faces": {"creator"}, "dfdc-faces": {"datePublished"}}
    assert required - set(described) == unknown.get(name, set())
    assert described["@type"] == "sc:Dataset" and described["name"] == name
    assert described["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert described["license"]["name"] == manifest.terms["licence"]
    assert described["license"]["url"] == manifest.terms["url"]
    assert described["url"] == manifest.homepage
    assert described["citeAs"] == manifest.citation.strip()
    assert all(caveat in described["description"] for caveat in manifest.caveats)
    assert re.fullmatch(r"\d{4}", described.get("datePublished", "2019"))
    for creator in described.get("creator", []):
        assert creator["@type"] in ("Person", "Organization")
        assert creator["name"] and not re.search(r"[\\{}]", creator["name"])
    generated = "Generated by the Python package deepfake_nb" in described["description"]
    assert generated == bool(manifest.embedded) == ("version" in described)
    assert json.loads(json.dumps(described)) == described


@pytest.mark.parametrize("name", NAMES)
def test_croissant_describes_the_files_and_the_sample_table(name):
    manifest, described = load_manifest(name), croissant_metadata(name)
    resources = {r["@id"]: r for r in described["distribution"]}
    assert len(resources) == len(described["distribution"])
    for resource in resources.values():
        assert resource["name"] and resource["description"]
        assert re.fullmatch(r"\w+/[\w.+-]+", resource["encodingFormat"])
        if resource["@type"] == "cr:FileObject":
            assert resource["contentUrl"].startswith("https://")
            assert re.fullmatch("[0-9a-f]{64}", resource["sha256"])
        else:
            assert resource["@type"] == "cr:FileSet" and resource["includes"]
    for number, expected in enumerate(manifest.expected, 1):
        resource = resources[f"{expected.role}-{number}"]
        assert resource.get("includes", [*expected.globs]) == [*expected.globs]
        assert expected.what in resource["description"]
        if expected.count is not None:
            assert f"{expected.count:,}" in resource["description"]
    if manifest.kind == "arrays":
        assert "recordSet" not in described
        return
    (records,) = described["recordSet"]
    assert [field["name"] for field in records["field"]] == [*COLUMNS]
    identifiers = [records["@id"], *(f["@id"] for f in records["field"]), *resources]
    assert len(set(identifiers)) == len(identifiers)
    (source,) = (field["source"] for field in records["field"] if "source" in field)
    files = resources[source["fileSet"]["@id"]]
    samples = [f"{e.role}-{n}" for n, e in enumerate(manifest.expected, 1) if e.role == "sample"]
    assert ids(files["containedIn"]) == samples


@pytest.mark.parametrize("name", NAMES)
def test_the_citation_is_printed_alone(name, capsys):
    assert describe_command(name, bibtex=True) == 0
    assert capsys.readouterr().out == load_manifest(name).citation.strip() + "\n"


def test_a_custom_dataset_without_a_citation_says_so(tmp_path, monkeypatch, capsys):
    from deepfake_nb.data.custom import register_dataset

    monkeypatch.setenv("DEEPFAKE_NB_DATA", str(tmp_path))
    row = {"path": tmp_path / "a.png", "kind": "image", "label": 0, "dataset": "mine"}
    register_dataset("mine", make_samples([row]), source="my own photographs", licence="none")
    assert describe_command("mine", bibtex=True) == 0
    assert capsys.readouterr().out.startswith("% mine: its manifest gives no citation")
    assert describe_command("mine", croissant=True) == 0
    described = json.loads(capsys.readouterr().out)
    assert not {"citeAs", "creator", "datePublished", "url"} & set(described)
    assert described["license"] == {"@type": "CreativeWork", "name": "none"}
    source = described["recordSet"][0]["field"][0]["source"]
    assert source == {"fileSet": {"@id": "sample-files"}, "extract": {"column": "path"}}
    assert described["distribution"][-1]["includes"] == ["samples.csv"]


def test_a_run_on_a_custom_dataset_carries_its_terms(run, tmp_path, monkeypatch):
    from deepfake_nb.data.custom import register_dataset

    monkeypatch.setenv("DEEPFAKE_NB_DATA", str(tmp_path))
    row = {"path": tmp_path / "a.png", "kind": "image", "label": 0, "dataset": "mine"}
    register_dataset("mine", make_samples([row]), source="my own photographs", licence="mine alone")
    found = entities(make_run(run, dataset="mine", **{"further data": {}}))
    assert found["#data-dataset"]["license"] == {"@id": "#licence-of-mine"}
    assert found["#licence-of-mine"]["name"] == "mine alone"
    assert "#licence-of-mine" in ids(found["./"]["license"])


def test_one_form_at_a_time(capsys):
    from deepfake_nb.cli import main

    with pytest.raises(SystemExit):
        main(["data", "describe", "uadfv", "--json", "--bibtex"])
    assert "not allowed with" in capsys.readouterr().err
