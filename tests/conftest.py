"The files that take longest begin first, so that no process is left alone with one of them at the end."
LONGEST = ("test_papers.py", "test_runs.py", "test_training.py", "test_predict.py", "test_faces.py", "test_house.py", "test_models.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
