"""The library reference: every public symbol with its docstring, read without an import."""

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sphinx.ext.napoleon import Config, NumpyDocstring

NAPOLEON = Config(
    napoleon_use_rtype=False, napoleon_use_ivar=True, napoleon_use_admonition_for_examples=False
)
SHOWN = ("__call__", "__getitem__", "__len__", "__iter__")


@dataclass
class Entry:
    """A documented symbol."""

    name: str
    kind: str  # function, class, exception, data, method or property
    signature: str = ""
    doc: str = ""
    type: str = ""  # of data
    value: str = ""  # of data
    members: list["Entry"] = field(default_factory=list)


@dataclass
class Module:
    """A module and its public symbols, in the order of the source."""

    name: str  # without the package's name: data.samples
    doc: str
    notebook: str  # that it is exported from, relative to nbs/
    entries: list[Entry]


def read_library(folder: Path) -> list[Module]:
    """Read all modules with public symbols, in the order of the notebooks."""
    files = [p for p in sorted(folder.rglob("*.py")) if not p.stem.startswith("_")]
    modules = [read_module(p, ".".join(p.relative_to(folder).with_suffix("").parts)) for p in files]
    return sorted((m for m in modules if m.entries), key=lambda m: m.notebook)


def read_module(path: Path, name: str) -> Module:
    """Read a module's public symbols from its source."""
    source = path.read_text(encoding="utf-8")
    tree, lines = ast.parse(source), source.splitlines()
    notebook = re.search(r"File to edit: (?:\.\./)+nbs/(\S+\.ipynb)", source)
    public, entries = [], []
    for node in tree.body:
        named = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if getattr(named, "id", "") == "__all__":
            public = ast.literal_eval(node.value)
        elif getattr(named, "id", None) in public:
            entries.append(read_data(node, named.id, lines))
        elif getattr(node, "name", None) in public:
            entries.append(read_symbol(node))
    return Module(name, ast.get_docstring(tree) or "", notebook[1] if notebook else "", entries)


def read_data(node: ast.stmt, name: str, lines: list[str]) -> Entry:
    """Read a constant; its comment stands beside it or, beginning with `#:`, above it."""
    above, beside = lines[node.lineno - 2], lines[node.lineno - 1].partition("  # ")[2]
    doc = above.lstrip()[2:].strip() if above.lstrip().startswith("#:") else beside
    value = ast.unparse(node.value) if node.value is not None else ""
    type_ = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else ""
    return Entry(name, "data", doc=doc, type=type_, value=value if len(value) <= 160 else "")


def read_symbol(node: ast.FunctionDef | ast.ClassDef) -> Entry:
    """Read a function, or a class with its public methods."""
    doc = ast.get_docstring(node) or ""
    if isinstance(node, ast.FunctionDef):
        return Entry(node.name, "function", signature(node), doc)
    error = any(ast.unparse(base).endswith(("Error", "Exception")) for base in node.bases)
    entry = Entry(node.name, "exception" if error else "class", doc=doc)
    fields = [n for n in node.body if isinstance(n, ast.AnnAssign) and n.target.id[0] != "_"]
    if fields:
        entry.signature = "(" + ", ".join(ast.unparse(n) for n in fields) + ")"
    for method in node.body:
        if not isinstance(method, ast.FunctionDef):
            continue
        if method.name == "__init__":
            entry.signature = signature(method, bound=True).partition(" -> ")[0]
        shown = not method.name.startswith("_") or method.name in SHOWN
        if shown and ast.get_docstring(method):
            entry.members.append(read_method(method))
    return entry


def read_method(node: ast.FunctionDef) -> Entry:
    """Read a method or property of a class."""
    decorators = [ast.unparse(d) for d in node.decorator_list]
    if {"property", "cached_property"} & set(decorators):
        return Entry(node.name, "property", doc=ast.get_docstring(node))
    static = "staticmethod" in decorators
    return Entry(node.name, "method", signature(node, bound=not static), ast.get_docstring(node))


def signature(node: ast.FunctionDef, bound: bool = False) -> str:
    """The parameters with types and defaults, in brackets, and the type that is returned."""
    arguments = ast.unparse(node.args)
    if bound:
        arguments = re.sub(r"^(self|cls)(, )?", "", arguments)
    return f"({arguments})" + (f" -> {ast.unparse(node.returns)}" if node.returns else "")


def names(modules: list[Module]) -> dict[str, str]:
    """Every unambiguous way to name a symbol, with its full name."""
    full: dict[str, str] = {}
    alone: dict[str, set] = {}
    for module in modules:
        full[f"deepfake_nb.{module.name}"] = f"deepfake_nb.{module.name}"
        for entry in module.entries:
            for short in (entry.name, *(f"{entry.name}.{m.name}" for m in entry.members)):
                target = f"deepfake_nb.{module.name}.{short}"
                full[target] = full[f"{module.name}.{short}"] = target
                alone.setdefault(short, set()).add(target)
    return {**{k: v.pop() for k, v in alone.items() if len(v) == 1}, **full}


def linked(text: str, known: dict[str, str], cite: Callable[[str], str]) -> str:
    """Turn backquoted names into links or code, and works into citations."""

    def link(match: re.Match) -> str:
        target = known.get(match[1].removesuffix("()"))
        return f":py:obj:`{match[1]} <{target}>`" if target else f"``{match[1]}``"

    return cite(re.sub(r"(?<![`:\w])`([^`\n]+)`(?![`_])", link, text))


def write_module(module: Module, known: dict[str, str], cite: Callable[[str], str]) -> str:
    """The reference page of a module, as reStructuredText."""
    title = f"deepfake_nb.{module.name}"
    chapter = module.notebook.removesuffix(".ipynb")
    page = [title, "=" * len(title), "", linked(module.doc, known, cite), ""]
    page += [
        f".. py:module:: {title}",
        "",
        f"Explained and shown at work in :doc:`/{chapter}`.",
        "",
    ]
    for entry in module.entries:
        page += write_entry(entry, lambda text: linked(text, known, cite), "")
    return "\n".join(page) + "\n"


def escaped(line: str) -> str:
    """Escape what reStructuredText would take for markup, except in examples and literals."""
    if line.lstrip().startswith((">>>", "...")):
        return line
    parts = re.split(r"(`[^`]*`)", line)
    for i in range(0, len(parts), 2):
        plain = parts[i].replace("\\", "\\\\").replace("|", "\\|")
        parts[i] = re.sub(r"(?<=\S)\*(?=\S)", r"\\*", plain)
    return "".join(parts)


def write_entry(entry: Entry, say: Callable[[str], str], indent: str) -> list[str]:
    """The lines of one symbol."""
    lines = [f"{indent}.. py:{entry.kind}:: {entry.name}{entry.signature}"]
    if entry.type:
        lines.append(f"{indent}   :type: {entry.type}")
    if entry.value:
        lines.append(f"{indent}   :value: {entry.value}")
    doc = "\n".join(map(escaped, entry.doc.splitlines()))
    text = say("\n".join(NumpyDocstring(doc, NAPOLEON).lines()))
    lines += ["", *(f"{indent}   {line}".rstrip() for line in text.splitlines()), ""]
    for member in entry.members:
        lines += write_entry(member, say, indent + "   ")
    return lines
