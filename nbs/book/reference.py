"The library reference: every public symbol with its docstring, and each parameter with the comment that stands beside it."
import ast
import io
import re
import textwrap
import tokenize
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Entry:
    "A documented symbol."
    name: str                                      # as it is written after its module or class
    kind: str                                      # function, class, exception, data, method, attribute or property
    signature: str = ""                            # parameters with their types and defaults, in brackets, and `-> type`
    doc: str = ""                                  # docstring
    parameters: list = field(default_factory=list)  # (name, type, comment)
    returns: tuple = ("", "")                      # type, comment
    value: str = ""                                # of data
    members: list = field(default_factory=list)    # entries of a class


@dataclass
class Module:
    "A module, its first line, and its public symbols in the order of the source."
    name: str
    doc: str
    notebook: str  # file that it is exported from
    entries: list


def comments(source: str) -> dict[int, str]:
    "Comment by line number."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string for t in tokens if t.type == tokenize.COMMENT}


def read_module(
    path: Path,  # of the exported module
) -> Module:
    "A module's public symbols, read from its source without importing it."
    source = path.read_text(encoding="utf-8")
    tree, notes = ast.parse(source), comments(source)
    notebook = re.search(r"File to edit: \.\./nbs/(\S+\.ipynb)", source)
    public = next((ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__"), [])
    classes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
    entries = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in public: entries.append(read_function(node, notes))
        elif isinstance(node, ast.ClassDef) and node.name in public: entries.append(read_class(node, notes, classes))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if getattr(target, "id", None) in public and target.id != "__all__": entries.append(read_data(node, target.id, notes))
    return Module(path.stem, ast.get_docstring(tree) or "", notebook[1] if notebook else "", entries)


def read_data(node: ast.stmt, name: str, notes: dict[int, str]) -> Entry:
    "A constant; its comment stands beside it or, beginning with `#:`, above it."
    above, beside = notes.get(node.lineno - 1, ""), notes.get(node.lineno, "")
    doc = above[2:] if above.startswith("#:") else beside.lstrip("#")
    value = ast.unparse(node.value) if node.value is not None else ""
    kind = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else ""
    return Entry(name, "data", doc=doc.strip(), value=value if len(value) <= 160 else "", returns=(kind, ""))


def read_function(node: ast.FunctionDef, notes: dict[int, str], kind: str = "function") -> Entry:
    "A function with its parameters; `self` and `cls` are left out."
    listed = []
    a = node.args
    positional = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(positional) - len(a.defaults)) + list(a.defaults)
    static = any(getattr(d, "id", "") == "staticmethod" for d in node.decorator_list)
    if kind == "method" and not static: positional, defaults = positional[1:], defaults[1:]
    listed += [("", p, d) for p, d in zip(positional, defaults)]
    if a.vararg: listed.append(("*", a.vararg, None))
    elif a.kwonlyargs: listed.append(("*", None, None))
    listed += [("", p, d) for p, d in zip(a.kwonlyargs, a.kw_defaults)]
    if a.kwarg: listed.append(("**", a.kwarg, None))
    words, parameters = [], []
    for stars, p, default in listed:
        if p is None:
            words.append("*")
            continue
        annotation = ast.unparse(p.annotation) if p.annotation else ""
        word = stars + p.arg + (f": {annotation}" if annotation else "")
        if default is not None: word += (" = " if annotation else "=") + ast.unparse(default)
        words.append(word)
        parameters.append((stars + p.arg, annotation, note_of(p, notes)))
    returned = ast.unparse(node.returns) if node.returns else ""
    last = max([node.lineno, *(p.end_lineno for p in [*a.posonlyargs, *a.args, *a.kwonlyargs, *filter(None, [a.vararg, a.kwarg])])])
    at = node.returns.end_lineno if node.returns else last
    beside = notes.get(at, "").lstrip("#").strip() if at > last or not parameters else ""
    signature = f"({', '.join(words)})" + (f" -> {returned}" if returned else "")
    return Entry(node.name, kind, signature, ast.get_docstring(node) or "", parameters, (returned, beside))


def note_of(p: ast.arg, notes: dict[int, str]) -> str:
    "The comment beside a parameter."
    return notes.get(p.end_lineno, "").lstrip("#").strip()


def read_class(node: ast.ClassDef, notes: dict[int, str], classes: dict[str, ast.ClassDef]) -> Entry:
    "A class: its parameters, fields, and public methods, those of private bases in the same module included."
    bases = [ast.unparse(b) for b in node.bases]
    family = [node] + [classes[b] for b in bases if b in classes and b.startswith("_")]
    body = [n for cls in family for n in cls.body]
    init = next((n for n in body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    error = any(b.endswith(("Error", "Exception")) for b in bases)
    entry = Entry(node.name, "exception" if error else "class", doc=ast.get_docstring(node) or "")
    if init:
        made = read_function(init, notes, "method")
        entry.signature, entry.parameters = made.signature.split(" -> ")[0], made.parameters
    fields = [n for n in body if isinstance(n, ast.AnnAssign) and not n.target.id.startswith("_")]
    if fields and not init: entry.signature = "(" + ", ".join(ast.unparse(n) for n in fields) + ")"
    for n in fields:
        note = notes.get(n.end_lineno, "").lstrip("#").strip()
        if init: entry.members.append(Entry(n.target.id, "attribute", doc=note, returns=(ast.unparse(n.annotation), "")))
        else: entry.parameters.append((n.target.id, ast.unparse(n.annotation), note))
    for n in body:
        if not isinstance(n, ast.FunctionDef) or n.name.startswith("_") and n.name not in ("__call__", "__getitem__", "__len__", "__iter__"): continue
        if n.name.startswith("_") and not ast.get_docstring(n): continue
        is_property = any(ast.unparse(d) in ("property", "cached_property") for d in n.decorator_list)
        member = read_function(n, notes, "method")
        if is_property: member.kind, member.signature = "property", ""
        entry.members.append(member)
    return entry


def read_library(
    folder: Path,  # of the package
) -> list[Module]:
    "All modules with public symbols, in the order of the notebooks."
    modules = [read_module(p) for p in sorted(folder.glob("[a-z]*.py"))]
    return sorted((m for m in modules if m.entries), key=lambda m: m.notebook)


def names(
    modules: list[Module],
) -> dict[str, str]:  # name → full name, with its role
    "Every way in which a symbol can be named without doubt: in full, from its module on, and alone where no other has that name."
    full: dict[str, str] = {}
    alone: dict[str, set] = {}
    for m in modules:
        full[f"deepfake_nb.{m.name}"] = f"deepfake_nb.{m.name}"
        for e in m.entries:
            for short in (e.name, *(f"{e.name}.{i.name}" for i in e.members)):
                target = f"deepfake_nb.{m.name}.{short}"
                full[target] = full[f"{m.name}.{short}"] = target
                alone.setdefault(short, set()).add(target)
    return {**{k: v.pop() for k, v in alone.items() if len(v) == 1}, **full}


def rst(text: str, known: dict[str, str], cite: Callable[[str], str]) -> str:
    "A docstring's or comment's text, whose backticks mean code, as reStructuredText; names of the library become links."
    parts = re.split(r"(`[^`]+`)", text)
    for i, part in enumerate(parts):
        if part.startswith("`") and len(part) > 2:
            code = part[1:-1]
            target = known.get(code.removesuffix("()"))
            parts[i] = f":py:obj:`{code} <{target}>`" if target else f":code:`{code.replace(chr(92), chr(92) * 2)}`"
            if i and parts[i - 1][-1:].isalnum(): parts[i] = "\\ " + parts[i]
            if i + 1 < len(parts) and parts[i + 1][:1].isalnum(): parts[i] += "\\ "
        else: parts[i] = cite(re.sub(r"([*_|\\`])", r"\\\1", part))
    return "".join(parts)


def write_module(
    module: Module,
    known: dict[str, str],           # from `names`
    cite: Callable[[str], str],      # puts citations behind arXiv numbers
) -> str:  # reStructuredText
    "The reference page of a module."
    say = lambda text: rst(" ".join(text.split()), known, cite)
    title = f"deepfake_nb.{module.name}"
    page = [title, "=" * len(title), "", say(module.doc), "", f".. py:module:: {title}", "",
            f"The chapter :doc:`/{module.notebook.removesuffix('.ipynb')}` explains it, and shows each of these at work.", ""]
    for entry in module.entries: page += write_entry(entry, say, "")
    return "\n".join(page) + "\n"


def write_entry(entry: Entry, say: Callable[[str], str], indent: str) -> list[str]:
    "The lines of one symbol."
    lines = [f"{indent}.. py:{entry.kind}:: {entry.name}{entry.signature}"]
    if entry.kind in ("data", "attribute", "property"):
        if entry.returns[0]: lines.append(f"{indent}   :type: {entry.returns[0]}")
        if entry.value: lines.append(f"{indent}   :value: {entry.value}")
    inner = indent + "   "
    lines += ["", inner + say(paragraph(entry.doc)[0]) if entry.doc else "", ""]
    for rest in paragraph(entry.doc)[1:]: lines += [inner + say(rest), ""]
    fields = [f":param {name.replace('*', chr(92) + '*')}: {say(note)}" for name, _, note in entry.parameters if note]
    if entry.returns[1]: fields.append(f":returns: {say(entry.returns[1])}")
    lines += [inner + f for f in fields] + [""]
    for member in entry.members: lines += write_entry(member, say, inner)
    return lines


def paragraph(doc: str) -> list[str]:
    "Paragraphs of a docstring."
    return [p for p in re.split(r"\n\s*\n", textwrap.dedent(doc)) if p.strip()] or [""]
