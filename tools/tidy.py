"""The style no linter knows: size budgets, banned words, import cycles, files nobody uses.

``python -m tools.tidy [ROOT]`` prints one line per finding, ``path:line: what``, and exits 1 when
there is any. Budgets are those of the project's style: a module has at most 400 lines (600 at the
very most, and then only with a reason in ``LONG_MODULES``), a function at most 70.
"""

from __future__ import annotations

import ast
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

MODULE_LINES = 400
MODULE_LINES_HARD = 600
FUNCTION_LINES = 70

LONG_MODULES: dict[str, str] = {
    "daemon/contract.py": "every value that crosses rooms, and who answers, in one place",
    # "engine/example.py": "why it is one thing, and longer than 400 lines",
    "engine/live/content.py": "one class: the layers of a file's content; its truncation wants them all in sight",
    "engine/store.py": "the facade of the engine: one short method per operation",
    "engine/live/tree.py": "the facade of the live tree: one short method per operation",
    "tests/live/test_crash.py": "the crash table of the live tree, a test per row",
    "tests/daemon/service/contract.py": "one suite for every Backend",
    "tools/location_rescue/rescue_location.py": "the formats of a location in one place, to be read beside its page",
    "tests/nodes/test_dirs.py": "one property family over one fixture",
}

# Words of the vocabulary that no name of ours may contain, and what to say instead.
BANNED_WORDS = {
    "blob": "chunk, node or data",
    "blobs": "chunks, nodes or data",
    "archive": "recovery point, pack or manifest",
    "archives": "recovery points, packs or manifests",
}
# Names banned when they stand alone.
BANNED_NAMES = {"backup": "recovery point or session", "backups": "recovery points or sessions"}

PRODUCT = ("engine", "fsmount", "daemon")
PLACES = (*PRODUCT, "tools", "tests")
# What can run a module without importing it. Pages that describe every module prove nothing.
TEXT_SUFFIXES = ("", ".sh", ".service", ".timer", ".socket")
TEXT_SIZE_MAX = 1 << 20  # bytes: nothing longer is a script or a page


@dataclass(frozen=True, order=True)
class Finding:
    """One thing to put right: where (a path from the root, a line from 1) and what."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


class Mentions:
    """What a text names: looked up once for each module, so the text is taken apart only once."""

    def __init__(self, text: str) -> None:
        self._names = set(re.findall(r"[\w.]+", text))
        # A path may follow anything, as in "../tools/tidy.py".
        self._paths = "\n".join(word for word in set(text.split()) if ".py" in word)

    def of(self, module: Module) -> bool:
        """Does it name the module, as a path or as ``python -m`` and entry points do?"""
        if module.name in self._names:
            return True
        path = rf"{re.escape(module.path)}(?!\w)"
        return module.path in self._paths and re.search(path, self._paths) is not None


@dataclass
class Module:
    """One Python file: ``name`` as it is imported, ``path`` from the root, parsed."""

    name: str
    path: str
    lines: int
    nodes: list[ast.AST]  # all of its syntax tree
    imports: dict[str, int] = field(default_factory=dict)  # module of this project -> first line
    mentions: Mentions = field(default_factory=lambda: Mentions(""))  # in strings but docstrings

    @property
    def is_package(self) -> bool:
        return self.path.endswith("/__init__.py")

    @property
    def place(self) -> str:
        return self.name.partition(".")[0]


@dataclass
class Tree:
    """The project as the checks see it: its modules by name, and its other text by path."""

    modules: dict[str, Module]
    texts: dict[str, Mentions]


Check = Callable[[Tree], Iterable[Finding]]


# --- reading the project ------------------------------------------------------------------------


def read_tree(root: Path) -> Tree:
    """Parse every Python file of the known places; keep the text of scripts beside them."""
    modules = {}
    texts = {}
    for path in _files(root):
        relative = path.relative_to(root).as_posix()
        if path.suffix == ".py" and relative.split("/")[0] in PLACES:
            source = path.read_text(encoding="utf-8")
            name = relative.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            nodes = list(ast.walk(ast.parse(source, relative)))
            modules[name] = Module(name, relative, source.count("\n"), nodes)
        elif relative == "pyproject.toml":
            project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
            texts[relative] = Mentions("\n".join(project.get("scripts", {}).values()))
        elif relative == "README.md" or (
            path.suffix in TEXT_SUFFIXES and path.stat().st_size <= TEXT_SIZE_MAX
        ):
            texts[relative] = Mentions(path.read_text(encoding="utf-8", errors="replace"))
    for module in modules.values():
        module.imports = _imports(module, modules)
        module.mentions = Mentions("\n".join(_strings(module.nodes)))
    return Tree(modules, texts)


def _files(root: Path) -> Iterator[Path]:
    for directory, folders, names in os.walk(root):
        # .ci is a place of scripts; other hidden folders are caches and tools' own.
        folders[:] = sorted(
            name
            for name in folders
            if (not name.startswith(".") or name == ".ci") and name not in ("__pycache__", "var")
        )
        yield from (path for name in sorted(names) if (path := Path(directory, name)).is_file())


def _imports(module: Module, known: dict[str, Module]) -> dict[str, int]:
    """Modules of this project that one imports, wherever in it the statement stands."""
    found: dict[str, int] = {}
    for node in module.nodes:
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                names.append(inner if inner in known else base)
        for name in names:
            if name in known and isinstance(node, ast.stmt):
                found.setdefault(name, node.lineno)
    return found


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parts = module.name.split(".")
    parts = parts[: len(parts) - node.level + module.is_package]
    return ".".join([*parts, *([node.module] if node.module else [])])


def _strings(nodes: list[ast.AST]) -> Iterator[str]:
    prose = {
        id(node.value)
        for node in nodes
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield node.value


# --- the checks ---------------------------------------------------------------------------------


def long_modules(tree: Tree) -> Iterator[Finding]:
    """A module has one subject; what outgrows the budget is cut, or says why not."""
    for module in tree.modules.values():
        if module.lines > MODULE_LINES_HARD:
            yield Finding(module.path, 1, f"{module.lines} lines; at most {MODULE_LINES_HARD}")
        elif module.lines > MODULE_LINES and not LONG_MODULES.get(module.path):
            what = f"{module.lines} lines; over {MODULE_LINES} needs a reason in tools/tidy.py"
            yield Finding(module.path, 1, what)
    by_path = {module.path: module for module in tree.modules.values()}
    for path in LONG_MODULES:
        if path not in by_path or by_path[path].lines <= MODULE_LINES:
            yield Finding("tools/tidy.py", 1, f"LONG_MODULES names {path}, which is not long")


def long_functions(tree: Tree) -> Iterator[Finding]:
    """A function fits a screen."""
    for module in tree.modules.values():
        for node in module.nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                lines = node.end_lineno - node.lineno + 1
                if lines > FUNCTION_LINES:
                    what = f"{node.name}() has {lines} lines; at most {FUNCTION_LINES}"
                    yield Finding(module.path, node.lineno, what)


def star_imports(tree: Tree) -> Iterator[Finding]:
    """Where a name comes from can be read."""
    for module in tree.modules.values():
        for node in module.nodes:
            if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
                yield Finding(module.path, node.lineno, f"star import of {node.module}")


def banned_words(tree: Tree) -> Iterator[Finding]:
    """One meaning per word; names are judged where they are defined."""
    for module in tree.modules.values():
        stem = module.name.rpartition(".")[2]
        for line, name in [(1, stem), *_defined(module.nodes)]:
            for word in _words(name):
                if word in BANNED_WORDS:
                    what = f"the name {name} says {word!r}; say {BANNED_WORDS[word]}"
                    yield Finding(module.path, line, what)
            if name.lower() in BANNED_NAMES:
                what = f"the name {name} alone says nothing; say {BANNED_NAMES[name.lower()]}"
                yield Finding(module.path, line, what)


def _defined(nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    for node in nodes:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.lineno, node.name
            case ast.arg():
                yield node.lineno, node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.lineno, node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.lineno, node.attr
            case ast.alias(asname=str(name)):
                yield node.lineno, name


def _words(name: str) -> list[str]:
    """``read_PackHeader2`` -> read, pack, header."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def cycles(tree: Tree) -> Iterator[Finding]:
    """Imports point one way, also those inside functions: a late import hides a cycle, no more."""
    done: set[str] = set()
    for start in tree.modules:
        path: list[str] = []
        work: list[tuple[str, Iterator[str]]] = []
        if start not in done:
            path.append(start)
            work.append((start, iter(tree.modules[start].imports)))
        while work:
            name, rest = work[-1]
            target = next(rest, None)
            if target is None:
                work.pop()
                done.add(path.pop())
            elif target in path:
                loop = [*path[path.index(target) :], target]
                module = tree.modules[name]
                yield Finding(module.path, module.imports[target], "cycle: " + " -> ".join(loop))
            elif target not in done:
                path.append(target)
                work.append((target, iter(tree.modules[target].imports)))


def dead_files(tree: Tree) -> Iterator[Finding]:
    """A module is imported, run or named by something; the product's, by more than its tests."""
    for module in tree.modules.values():
        base = module.path.rpartition("/")[2]
        if module.is_package or base in ("__main__.py", "conftest.py") or base.startswith("test_"):
            continue
        users = [other for other in tree.modules.values() if _uses(other, module)]
        if module.place in PRODUCT:
            users = [other for other in users if other.place != "tests"]
        named = any(text.of(module) for text in tree.texts.values())
        if not users and not named:
            by = "but its tests" if module.place in PRODUCT else "at all"
            yield Finding(module.path, 1, f"used by nothing {by}")


def _uses(other: Module, module: Module) -> bool:
    if other is module:
        return False
    return module.name in other.imports or other.mentions.of(module)


CHECKS: tuple[Check, ...] = (
    long_modules,
    long_functions,
    star_imports,
    banned_words,
    cycles,
    dead_files,
)


def findings(root: Path) -> list[Finding]:
    """All there is to put right in the tree at ``root``, in the order of its files."""
    tree = read_tree(root)
    return sorted({finding for check in CHECKS for finding in check(tree)})


def main(arguments: list[str]) -> int:
    """Print the findings; the exit status."""
    ours = Path(__file__).resolve().parent.parent
    root = Path(arguments[0]) if arguments else ours
    # The table of long modules speaks of this project, not of another tree.
    found = [f for f in findings(root) if root.resolve() == ours or f.path != "tools/tidy.py"]
    for finding in found:
        print(finding)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
