"""Published protocols: what they say is fixed by a hash, and no person is in two splits."""

import shutil
import warnings

import pandas as pd
import pytest
from planted import isolated, plant  # noqa: F401

from deepfake_nb.core.errors import ManifestError
from deepfake_nb.core.paths import manifests_dir
from deepfake_nb.data import protocols
from deepfake_nb.data.manifests import list_datasets
from deepfake_nb.data.protocols import apply_protocol, list_protocols, load_protocol, person_split
from deepfake_nb.data.samples import make_samples
from deepfake_nb.data.splits import check_split


def table(people: list[str], pairs: bool = True) -> pd.DataFrame:
    rows = []
    for target in people:
        row = {"path": f"{target}.mp4", "kind": "video", "label": 0, "dataset": "made"}
        rows.append(row | {"identity": target, "video": target})
        for source in people if pairs else ():
            if source != target:
                fake = {"path": f"{target}_{source}.mp4", "label": 1, "source": source}
                rows.append(row | {"identity": target, "video": f"{target}_{source}"} | fake)
    return make_samples(rows)


@pytest.mark.parametrize("name", list_protocols())
def test_a_protocol_is_what_was_published_for_a_known_dataset(name):
    assert load_protocol(name)["dataset"] in list_datasets()


@pytest.mark.parametrize(
    ("name", "people"),
    [
        ("dfd-people", [f"{i:02d}" for i in range(1, 29)]),
        ("celeb-df-people", [f"id{i}" for i in range(62)]),
    ],
)
def test_a_rule_keeps_people_apart_and_leaves_no_split_empty(name, people):
    with pytest.warns(UserWarning, match=f"{name}: .* people of two splits, and are left out"):
        split = apply_protocol(table(people), name)
    check_split(split)
    counts = split.drop_duplicates("identity")["split"].value_counts()
    assert set(counts.index) == {"train", "validation", "test"}
    assert counts.min() >= 2
    assert counts.sum() == len(people)
    again = [person_split(person, load_protocol(name)) for person in people]
    assert (
        again
        == split.drop_duplicates("identity").set_index("identity").loc[people, "split"].tolist()
    )


def test_a_list_gives_its_splits_and_is_compared_with_the_labels():
    samples = table(["0000", "0043"], pairs=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(apply_protocol(samples, "uadfv-lab")["split"]) <= {"train", "test"}
    fake = samples.assign(label=1)
    with pytest.raises(ManifestError, match="uadfv-lab.csv: video '0000' has label 0, and 1"):
        apply_protocol(fake, "uadfv-lab")
    with pytest.warns(UserWarning, match="2 of 2 samples are not in it"):
        assert apply_protocol(samples, "celeb-df-lab").empty


@pytest.mark.parametrize(
    ("name", "file"), [("uadfv-lab", "uadfv-lab.csv"), ("dfd-people", "dfd-people.toml")]
)
def test_a_changed_protocol_is_refused(name, file, tmp_path, monkeypatch):
    shutil.copytree(manifests_dir() / "protocols", tmp_path / "protocols")
    monkeypatch.setattr(protocols, "manifests_dir", lambda: tmp_path)
    load_protocol(name)
    changed = tmp_path / "protocols" / file
    text = changed.read_text()
    changed.write_text(text.replace("evaluation", "development", 1).replace("0.5", "0.6"))
    assert changed.read_text() != text
    with pytest.raises(ManifestError, match="its SHA-256 is .*, published was"):
        load_protocol(name)
    with pytest.raises(ManifestError, match="'dfd-peple'; did you mean 'dfd-people'"):
        load_protocol("dfd-peple")
