"""Share the tests out between processes so that none is left alone at the end.

`make test` runs `pytest -n 2 --dist loadgroup --no-loadscope-reorder`: a group goes to one process, in the order given here,
the longest first. Tests of a file share their fixtures and are one group; notebooks and papers are groups of their own.
"""
import pytest

SECONDS = {  # processor seconds of the groups that take longest, roughly; the others follow in the order of their names
    "test_backends": 100,
}


def group_of(item) -> str:
    "The name of a test's group: its paper or notebook, else its file."
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    of = parameters.get("run") or getattr(parameters.get("path"), "stem", None)
    return of if of and item.path.stem in ("test_papers", "test_notebooks") else item.path.stem


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items):
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of(item)))
    items.sort(key=lambda item: -SECONDS.get(group_of(item), 0))
