"The house: one version, agreeing pins, readable notebooks, commands that start at once."

import ast
import configparser
import doctest
import importlib
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = sorted([*ROOT.glob("nbs/[0-9]*/*.ipynb"), *ROOT.glob("nbs/[0-9]*.ipynb")])
PAPERS = sorted(ROOT.glob("nbs/papers/*.ipynb"))
TUTORIALS = sorted(ROOT.glob("nbs/tutorials/*.ipynb"))
MODULES = sorted(ROOT.glob("deepfake_nb/**/*.py"))


def settings() -> configparser.SectionProxy:
    parser = configparser.ConfigParser(delimiters=["="], interpolation=None)
    parser.read(ROOT / "settings.ini")
    return parser["DEFAULT"]


def pins(text: str) -> dict[str, str]:
    "Package → version specifier, from lines such as `name==1.2` or `- name[extra]>=1,<2`."
    found = re.findall(
        r"^[\s-]*([A-Za-z0-9_.-]+)(?:\[[a-z-]+\])?((?:[=<>!~]=?[0-9][^\s;#]*)+)\s*$", text, re.M
    )
    return {name.lower().replace("_", "-"): specifier for name, specifier in found}


def cells(path: Path, kind: str = "code") -> list[dict]:
    return [
        c | {"source": "".join(c["source"])}
        for c in json.loads(path.read_text())["cells"]
        if c["cell_type"] == kind
    ]


def exported(cell: dict) -> bool:
    return cell["source"].startswith(("#| export\n", "#| exporti"))


def run_python(code: str) -> str:
    "What a fresh interpreter prints."
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def public_symbols(cell: dict) -> list[str]:
    "Functions and classes that an exporting cell makes public."
    if not cell["source"].startswith("#| export\n"):
        return []
    return [
        n.name
        for n in ast.parse(cell["source"]).body
        if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not n.name.startswith("_")
    ]


def test_version_stands_in_one_place():
    version = settings()["version"]
    assert f'__version__ = "{version}"' in (ROOT / "deepfake_nb/__init__.py").read_text()
    assert f"version: {version}" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("name", ["environment.yml", "environment-gpu.yml"])
def test_conda_environment_is_the_lock(name):
    text = (ROOT / name).read_text()
    assert "- -r requirements.lock" in text
    assert set(pins(text)) == {"python"}
    assert ("tensorflow[and-cuda]" in text) == ("gpu" in name)


@pytest.mark.parametrize(
    "command",
    [
        "ruff format --check",
        "ruff check",
        "codespell",
        pytest.param("basedpyright", marks=pytest.mark.slow),
    ],
)
def test_lint_and_types(command):
    done = subprocess.run(command.split(), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


def test_lock_agrees_with_settings():
    from packaging.specifiers import SpecifierSet

    wanted = pins(settings()["requirements"]) | pins(settings()["dev_requirements"])
    locked = pins((ROOT / "requirements.lock").read_text())
    for name, specifier in wanted.items():
        assert locked.get(name, "").startswith("=="), f"{name} is not locked"
        assert locked[name][2:] in SpecifierSet(specifier), name
    assert settings()["min_python"] == "3.11"


def test_lock_is_what_is_installed():
    from importlib.metadata import version

    locked = pins((ROOT / "requirements.lock").read_text())
    for name in pins(settings()["requirements"]):
        assert version(name) == locked[name][2:], f"{name}: this environment is not the locked one"


def test_nothing_names_an_index_or_a_machine():
    for path in [
        *ROOT.glob("*"),
        *ROOT.glob("nbs/**/*"),
        *MODULES,
        *ROOT.glob("tests/*.py"),
        *ROOT.glob("data_manifests/*"),
    ]:
        skipped = path.suffix in {".png", ".pyc"} or path.name == ".git"  # a file in a worktree
        if not path.is_file() or skipped or path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8", errors="ignore")
        found = re.search(
            r"--(extra-)?index-url|/(home|Users|root|work)/[a-z0-9_.-]+/|pypi\.org|files\.pythonhosted",
            text,
        )
        assert not found, f"{path.relative_to(ROOT)}: {found[0]}"


@pytest.mark.parametrize("module", MODULES, ids=lambda p: p.stem)
def test_library_module(module):
    tree = ast.parse(module.read_text())
    imported = {
        alias.name.split(".")[0]
        for n in ast.walk(tree)
        if isinstance(n, ast.Import)
        for alias in n.names
    }
    imported |= {
        (n.module or "").split(".")[0]
        for n in ast.walk(tree)
        if isinstance(n, ast.ImportFrom) and n.level == 0
    }
    assert not imported & {"nbdev", "fastcore", "IPython.core"}
    assert not [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Assert)], (
        "use an error of its own"
    )
    top = {
        alias.name.split(".")[0]
        for n in tree.body
        if isinstance(n, ast.Import)
        for alias in n.names
    }
    assert "tensorflow" not in top
    for node in tree.body:
        if (
            not isinstance(node, (ast.FunctionDef, ast.ClassDef))
            or node.name.startswith("_")
            or module.stem.startswith("_")
        ):
            continue
        assert ast.get_docstring(node), f"{node.name} has no docstring"
        if isinstance(node, ast.FunctionDef):
            arguments = [*node.args.args, *node.args.kwonlyargs]
            untyped = [
                a.arg
                for a in arguments
                if a.annotation is None and a.arg not in ("self", "samples")
            ]
            assert not untyped, f"{node.name}: {untyped} have no type"


def library_imports(path: Path) -> Iterator[tuple[str, str]]:
    """Modules of the library that a module imports, and the names.

    Imports may be relative, absolute, within functions, by importlib or in another process's code.
    """
    own = path.relative_to(ROOT).with_suffix("").parts
    package = own if path.stem == "__init__" else own[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            parts = (
                (*package[: len(package) - node.level + 1], *(node.module or "").split("."))
                if node.level
                else (node.module or "").split(".")
            )
            if parts[0] == "deepfake_nb":
                yield from ((".".join(filter(None, parts)), alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (
                (alias.name, "") for alias in node.names if alias.name.startswith("deepfake_nb.")
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from (
                (name, "") for name in re.findall(r"\bdeepfake_nb(?:\.[a-z_]+)+", node.value)
            )


def test_a_module_imports_only_from_modules_above():
    order = [re.search(r"default_exp ([\w.]+)", path.read_text())[1] for path in LIBRARY]
    place = {f"deepfake_nb.{name}": number for number, name in enumerate(order)}
    for path in MODULES:
        here = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if path.stem in ("__init__", "_modidx"):
            continue
        for module, name in library_imports(path):
            target = f"{module}.{name}" if f"{module}.{name}" in place else module
            if target in ("deepfake_nb", here) or target not in place:
                assert (
                    target in ("deepfake_nb", here)
                    or (ROOT / Path(*target.split("."))).is_dir()
                    or target.rsplit(".", 1)[0] in place
                ), f"{here}: {target} is no module"
                continue
            assert place[target] < place[here], f"{here} imports {target}, which is below it"
            assert not name.startswith("_") or name.startswith("__"), (
                f"{here} imports the private {target}.{name}"
            )


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.stem)
def test_every_export_is_shown_within_two_cells(path):
    code = [
        c for c in cells(path) if not exported(c) or public_symbols(c)
    ]  # cells of private helpers do not count
    for i, cell in enumerate(code):
        for symbol in public_symbols(cell):
            following = [c["source"] for c in code[i + 1 :]][:2]
            shown = [
                s
                for s in following
                if not s.startswith("#| export") and re.search(rf"\b{symbol}\b", s)
            ]
            assert shown, f"{symbol} is not used in the two cells after its definition"


@pytest.mark.parametrize("path", [*LIBRARY, *PAPERS, *TUTORIALS], ids=lambda p: p.stem)
def test_every_cell_can_be_parsed(path):
    for cell in cells(path):
        source = "\n".join(
            line for line in cell["source"].splitlines() if not line.startswith(("%", "!"))
        )
        compile(source, f"{path.name}: {cell['id']}", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.stem)
def test_library_notebook_reads_well(path):
    first = cells(path, "markdown")[0]["source"].splitlines()
    assert first[0].startswith("# ") and first[2].startswith("> ")


@pytest.mark.parametrize(
    "path", [*LIBRARY, *PAPERS, *TUTORIALS, *ROOT.glob("nbs/[a-z]*.ipynb")], ids=lambda p: p.stem
)
def test_notebook_is_committed_executed_and_small(path):
    assert path.stat().st_size < 2 * 2**20
    outputs = [o for c in cells(path) for o in c["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error"]
    if path in PAPERS:
        assert any({"image/png", "image/jpeg"} & o.get("data", {}).keys() for o in outputs)
        assert not [o for o in outputs if o["output_type"] == "execute_result"], "a bare value"


@pytest.mark.parametrize("path", PAPERS, ids=lambda p: p.stem)
def test_paper_parameters_are_literals_and_those_of_quick(path):
    from deepfake_nb.runs.parameters import default_parameters, profile_parameters

    defaults = default_parameters(path)
    quick = profile_parameters(path.stem, "quick")
    assert {k: defaults[k] for k in quick} == quick
    assert not any("injected-parameters" in c["metadata"].get("tags", []) for c in cells(path))
    assert not any("#| export" in c["source"] for c in cells(path))


def test_cleaning_keeps_the_parameters_tag(tmp_path):
    import shutil

    copy = tmp_path / "nbs" / "paper.ipynb"
    copy.parent.mkdir()
    shutil.copy(ROOT / "settings.ini", tmp_path)
    shutil.copy(PAPERS[0], copy)
    subprocess.run(
        [Path(sys.executable).with_name("nbdev_clean"), "--fname", str(copy)],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    assert sum("parameters" in c["metadata"].get("tags", []) for c in cells(copy)) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["run", "--help"],
        ["train", "--help"],
        ["predict", "--help"],
        ["judge", "--help"],
        ["data", "--help"],
        ["data", "describe", "--help"],
        ["data", "verify", "--help"],
        ["data", "lock", "--help"],
    ],
)
def test_help_loads_nothing_heavy(words):
    code = (
        "import sys; from deepfake_nb.cli import main\n"
        f"try: main({words!r})\n"
        "except SystemExit as e: print(e.code, sorted({'tensorflow', 'keras', 'pandas', "
        "'matplotlib'} & set(sys.modules)), file=sys.stderr)"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stderr.strip()
        == "0 []"
    )


def test_import_loads_nothing_heavy():
    code = (
        "import sys, deepfake_nb; "
        "print(sorted({'tensorflow', 'keras', 'pandas', 'numpy'} & set(sys.modules)))"
    )
    assert run_python(code) == "[]"


PURE = (
    "core.errors core.files core.images core.memory core.parallel core.paths "
    "data.samples data.manifests data.croissant data.datasets data.folders data.lists data.custom "
    "evaluation.metrics evaluation.intervals evaluation.comparison evaluation.calibration "
    "evaluation.localization evaluation.frames evaluation.significance evaluation.power "
    "evaluation.repeats studies.map_tests "
    "forensics.spectrum forensics.spectrum_classifiers studies.factorial "
    "reporting.claims reporting.ledger reporting.crate reporting.scores reporting.judge "
    "reporting.judge_page reporting.commands reporting.rules reporting.verdicts reporting.evidence "
    "reporting.sources reporting.strips reporting.testable reporting.turning "
    "runs.collect runs.compare"
)
NOT_CORE = (
    "tensorflow keras keras_hub cv2 av mtcnn matplotlib seaborn papermill IPython jinja2 skops "
    "pooch pebble"
)


def test_pure_modules_need_the_core_requirements_alone():
    "Each imports in a process of its own, forked from one in which all else cannot be imported."
    code = (
        "import importlib, os, sys\n"
        f"for name in {NOT_CORE.split()}: sys.modules[name] = None\n"  # its import raises
        "import numpy, pandas, scipy, sklearn\n"
        f"for module in {PURE.split()}:\n"
        "    if os.fork() == 0:\n"
        "        importlib.import_module('deepfake_nb.' + module)\n"
        "        print(module, flush=True)\n"
        "        os._exit(0)\n"
        "    os.wait()"
    )
    assert run_python(code).split() == PURE.split()


def test_core_requirements_are_requirements_and_in_the_readme():
    core = settings()["core_requirements"].split()
    assert set(core) <= set(pins(settings()["requirements"]))
    assert f"pip install {' '.join(core)}" in (ROOT / "README.md").read_text()


def test_front_door_offers_names_without_importing_them():
    code = "import sys, deepfake_nb as dnb; print(*dir(dnb)); print('numpy' in sys.modules)"
    offered, heavy = run_python(code).splitlines()
    assert heavy == "False"
    assert {"load_samples", "fit", "build_classifier", "load_detector"} <= set(offered.split())
    assert [name for name in offered.split() if name.startswith("_")] == ["__version__"]


@pytest.mark.slow
@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_examples_run_as_pasted(path, tmp_path, monkeypatch):
    "With nothing imported but the object that they are of."
    if ">>> " not in path.read_text(encoding="utf-8"):
        return
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DEEPFAKE_NB_DATA", str(tmp_path))  # examples may set another
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    module = importlib.import_module(name)
    for test in doctest.DocTestFinder().find(module, name, globs={}):
        own = test.name.removeprefix(f"{name}.").split(".")[0]
        test.globs[own] = getattr(module, own, None)
        found = []
        assert doctest.DocTestRunner().run(test, out=found.append).failed == 0, "".join(found)


def test_a_missing_package_is_named_with_the_remedy():
    code = (
        "import sys; sys.modules |= {'av': None, 'cv2': None}; import deepfake_nb as dnb\n"
        "calls = (lambda: dnb.health_check, lambda: dnb.load_samples('synthetic-faces-crude'))\n"
        "for call in calls:\n"
        "    try: call()\n"
        "    except ModuleNotFoundError as e: print(e.name, 'pip install deepfake-nb' in str(e))"
    )
    assert run_python(code).split() == ["cv2", "True", "av", "True"]


@pytest.mark.slow
def test_front_door_names_exist():
    import deepfake_nb as dnb

    assert all(callable(getattr(dnb, name)) for name in dnb._FRONT_DOOR)
    assert not hasattr(dnb, "nonsense")


def test_profiles_and_claims_are_for_papers_that_exist():
    names = {p.stem for p in PAPERS}
    assert set(tomllib.loads((ROOT / "nbs/papers/profiles.toml").read_text())) == names
    assert {
        c["report"] for c in tomllib.loads((ROOT / "nbs/papers/claims.toml").read_text())["claim"]
    } <= names


def test_the_longest_groups_of_tests_exist():
    from conftest import LONGEST

    files = {path.stem for path in [*ROOT.glob("tests/test_*.py"), *PAPERS]}
    notebooks = {f"{path.parent.name}-{path.stem}" for path in [*LIBRARY, *TUTORIALS]}
    assert set(LONGEST) <= files | notebooks
