"""Share the tests out between processes so that none is left alone at the end.

A group goes to one process, the longest group first. Tests of a file share their fixtures and are
one group; notebooks and papers are groups of their own.
"""

import re

import pytest
from forks import Forks

LONGEST = (
    "kaminskyi",
    "torlapati",
    "denholtz",
    "test_backends",
    "test_book",
    "test_training",
    "test_runs",
    "kun",
    "forbush",
    "test_papers",
    "01_synthetic-11_datasets",
    "test_detectors",
    "test_models",
    "10_studies-14_planted",
    "tutorials-bring_your_own_dataset",
    "05_forensics-06_masks",
    "test_audit",
    "test_faces",
    "test_readme",
    "10_studies-25_uses",
    "test_losses",
    "test_synthetic",
    "test_people",
    "test_views",
    "test_samples",
)


def group_of(nodeid: str) -> str:
    "The name of a test's group: its notebook or paper, else its file."
    file = re.search(r"(\w+)\.py", nodeid)[1]
    of = re.search(r"\[([\w-]+)\]$", nodeid)
    return (
        of[1]
        if of and (file == "test_notebooks" or (file == "test_papers" and of[1] in LONGEST))
        else file
    )


@pytest.hookimpl(trylast=True)  # after pytest has put tests of one parameter together
def pytest_collection_modifyitems(items):
    place = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(group_of(item.nodeid), len(LONGEST)))


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config, log):
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group_of(nodeid)

    return ByGroup(config, log)


@pytest.fixture(scope="session")
def forks():
    forks = Forks()
    yield forks
    forks.close()
