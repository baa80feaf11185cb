"""The mechanical bar: which module may import which, how long things are, and that errors say what they saw."""

import ast
import io
import re
import tokenize
from functools import cache

import pytest

from paths import ROOT

SRC = ROOT / "src" / "foci"
MODULES = {
    ".".join(("foci", *path.relative_to(SRC).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(SRC.rglob("*.py"))
}

LINES, FUNCTION, ARGUMENTS = 400, 40, 7
LONGER: dict[str, int] = {}
"""Known exceptions and how long they may be; nothing is added here without a reason."""
WIDER = {"foci.gradients.influence:token_influence": 8}
"""Known exceptions and how many arguments they may take: the influence of a token has that many givens."""

MAY_IMPORT = {
    "errors": "",
    "seeds": "",
    "rows": "",
    "system": "",
    "report": "system",
    "config": "errors",
    "focus": "rows",
    "models": "focus rows config errors system",
    "documents": "",
    "corpus": "focus rows seeds system documents",
    "attention": "focus models system",
    "gradients": "focus config models",
    "training": "focus rows seeds system models attention",
    "probes": "focus rows errors seeds system corpus models",
    "data": "seeds system corpus models probes",
    "methods": "focus rows config errors seeds system corpus models attention gradients probes data",
    "study": "config errors seeds system corpus models probes data",
    "card": "config system models probes methods report",
    "learn": "focus rows config errors seeds system corpus models attention training probes methods report card",
    "meta": "focus config seeds system corpus models gradients probes methods report",
    "slide": "config system models probes learn report",
    "bench": "focus rows config errors system models training probes learn report slide",
    "advise": "rows config seeds system probes learn bench",
    "pretrain": "focus config seeds system corpus models attention training probes methods learn report",
    "watch": "system report",
    "chat": "focus config system models corpus learn",
    "export": "focus config system models probes report card learn",
    "cli": "config system corpus data models methods probes study learn slide bench pretrain meta report watch chat "
    "export advise",
    "__main__": "cli",
    "foci": "focus config models training",
}
"""Which wing (folder or module of src/foci) may import which others, from the ground up; "foci" is its __init__.

`report` reads files alone and needs no model, so that a page can be drawn anywhere. The trainer's wing knows no method.
"""
WITHOUT_TORCH = ("config", "errors", "report", "system.files", "system.folder", "system.signals", "system.checkpoint")
"""What starts in a moment: a wrong path or key is told before torch is imported."""
TOP = 8
"""Modules at the top of src/foci, at most."""

NAMED = {
    "foci.probes.probe:_around",  # 'prompt' with 'answer_start'
    "foci.probes.table:counted_by",  # the same id twice
}
"""Functions with an error about one value alone, which its words name; "got none" needs no value either."""
ABSENT = re.compile(r"\b(none|no|neither)\b")


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


@cache
def imports(module: str) -> frozenset[str]:
    """All modules that are imported anywhere in a module (names of foci are resolved to modules)."""
    found = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: write imports in full"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else str(node.module))
    return frozenset(found)


def below(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def functions(module: str):
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def public(module: str):
    """(name, node) of public functions, classes and methods."""
    for node in tree(module).body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        yield node.name, node
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                    yield f"{node.name}.{inner.name}", inner


def test_there_is_something_to_look_at():
    assert len(MODULES) > 30
    assert {"foci.focus", "foci.training.trainer", "foci.report", "foci.methods.oracle"} <= set(MODULES)


def wing(name: str) -> str:
    """The folder or module of src/foci that a module belongs to."""
    return name.split(".")[1] if "." in name else name


def crossings():
    """(module, what it imports) for every import from one wing into another."""
    for module in MODULES:
        for name in imports(module):
            if below(name, "foci") and name != "foci" and wing(name) != wing(module):
                yield module, name


def test_every_wing_imports_what_the_table_allows():
    assert {wing(module) for module in MODULES} == set(MAY_IMPORT)
    wrong = [f"{m} imports {name}" for m, name in crossings() if wing(name) not in MAY_IMPORT[wing(m)].split()]
    assert not wrong


def test_the_table_allows_nothing_that_is_not_used():
    used = {(wing(module), wing(name)) for module, name in crossings()}
    allowed = {(upper, lower) for upper, lowers in MAY_IMPORT.items() for lower in lowers.split()}
    assert allowed <= used, f"no longer imported: {sorted(allowed - used)}"


def test_the_table_has_no_cycle():
    order = list(MAY_IMPORT)
    for upper, lowers in MAY_IMPORT.items():
        assert all(order.index(lower) < order.index(upper) for lower in lowers.split()), upper


def test_nothing_imports_the_face_of_the_package():
    assert not [module for module in MODULES if "foci" in imports(module)]


def test_what_must_start_quickly_imports_no_torch():
    heavy = ("torch", "transformers", "peft", "accelerate")
    quick = [module for module in MODULES if any(below(module, f"foci.{name}") for name in WITHOUT_TORCH)]
    assert not [f"{m} imports {name}" for m in quick for name in imports(m) if name.partition(".")[0] in heavy]


def test_few_modules_stand_at_the_top():
    assert len(list(SRC.glob("*.py"))) <= TOP


def test_no_module_imports_itself_through_others():
    """No cycles, where a package's name stands for its __init__."""
    edges = {module: {name for name in imports(module) if name in MODULES and name != "foci"} for module in MODULES}
    state: dict[str, int] = {}

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert state.get(module) != 1, " -> ".join((*path, module))
        if module not in state:
            state[module] = 1
            for name in edges[module] - {module}:
                visit(name, (*path, module))
            state[module] = 2

    for module in edges:
        visit(module, ())


def test_the_trainer_names_no_method():
    shelves = (SRC / "methods", SRC / "methods" / "experimental")
    names = [path.stem for shelf in shelves for path in shelf.iterdir() if not path.stem.startswith("_")]
    words = set(re.findall(r"[a-z_]+", MODULES["foci.training.trainer"].read_text().lower()))
    assert "oracle" in names
    assert not words & set(names)


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_short(module):
    assert len(MODULES[module].read_text().splitlines()) <= LONGER.get(module, LINES)


def code_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    first = node.body[0]
    docstring = (
        isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    )
    return node.end_lineno - node.lineno + 1 - (first.end_lineno - first.lineno + 1 if docstring else 0)


def test_functions_are_short_and_take_few_arguments():
    wrong = []
    for module in MODULES:
        for node in functions(module):
            if (length := code_lines(node)) > LONGER.get(f"{module}:{node.name}", FUNCTION):
                wrong.append(f"{module}:{node.name} has {length} lines")
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = len([argument for argument in given if argument.arg not in ("self", "cls")])
            command = any("command" in ast.unparse(decorator) for decorator in node.decorator_list)
            if (
                count > WIDER.get(f"{module}:{node.name}", ARGUMENTS) and not command
            ):  # the flags of a command are its arguments
                wrong.append(f"{module}:{node.name} takes {count} arguments")
    assert not wrong


def test_what_is_public_is_annotated_and_documented():
    wrong = []
    for module, path in MODULES.items():
        if path.read_text().strip() and not ast.get_docstring(tree(module)):
            wrong.append(f"{module} has no docstring")
        for name, node in public(module):
            own = isinstance(node, ast.ClassDef) or "." not in name
            plain = any("property" in ast.unparse(d) or "override" in ast.unparse(d) for d in node.decorator_list)
            callback = name.rpartition(".")[2].startswith("on_") or name.endswith((".train_dataset",))
            if own and not ast.get_docstring(node):
                wrong.append(f"{module}:{name} is not documented")
            if isinstance(node, ast.ClassDef):
                continue
            if not own and not ast.get_docstring(node) and not callback and not plain and not inherited(module, name):
                wrong.append(f"{module}:{name} is not documented")
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            bare = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
            if bare or node.returns is None:
                wrong.append(f"{module}:{name} is not annotated: {', '.join(bare) or 'what it returns'}")
    assert not wrong


def inherited(module: str, name: str) -> bool:
    """Whether a method says in its class' bases what it does: a role's method, or one of a library's class."""
    kind = name.partition(".")[0]
    node = next(n for n in tree(module).body if isinstance(n, ast.ClassDef) and n.name == kind)
    return bool(node.bases)


def test_errors_say_what_they_saw():
    """Every error for people is told with a value in it, or with words that were computed."""
    wrong = []
    for module, path in MODULES.items():
        for function in functions(module):
            for node in ast.walk(function):
                if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
                    continue
                kind = ast.unparse(node.exc.func)
                if kind not in ("ValueError", "TypeError", "FileNotFoundError", "FileExistsError"):
                    continue
                constant = not node.exc.args or isinstance(node.exc.args[0], ast.Constant)
                told = f"{module}:{function.name}" in NAMED or ABSENT.search(ast.unparse(node.exc))
                if constant and not told:
                    wrong.append(f"{path.relative_to(SRC)}:{node.lineno} {ast.unparse(node.exc)[:90]}")
    assert not wrong


def test_nothing_is_left_to_do():
    wrong = []
    for module, path in MODULES.items():
        text = path.read_text()
        if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", text):
            wrong.append(f"{module} has work left over")
        if "from __future__ import annotations" in text:
            wrong.append(f"{module}: postponed annotations hide shapes from the checker")
        if re.search(r"^\s*from [\w.]+ import \*", text, re.MULTILINE):
            wrong.append(f"{module} imports *")
    assert not wrong


def test_no_code_runs_at_import():
    """A module's top level holds definitions, constants and imports only."""
    fine = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    wrong = []
    for module in MODULES:
        for node in tree(module).body if module != "foci.__main__" else ():
            constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            typing = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            commands = isinstance(node, ast.Expr) and ast.unparse(node).startswith("app.add_typer(")
            if not (isinstance(node, fine) or constant or typing or commands):
                wrong.append(f"{module}:{node.lineno} {ast.unparse(node)[:60]}")
    assert not wrong


def test_no_swallowed_errors():
    """`except Exception` that neither raises nor tells is how wrong numbers are made."""
    wrong = []
    for module in MODULES:
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.ExceptHandler):
                broad = node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
                raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
                wrong += [f"{module}:{node.lineno}"] * (broad and not raises)
    assert not wrong


def test_comments_are_about_the_code():
    """No commented-out code, and no machine's own paths."""
    wrong = []
    for module, path in MODULES.items():
        text = path.read_text()
        if re.search(r"/(home|root|work|Users)/\w", text):
            wrong.append(f"{module} names a path of one machine")
        dead = re.compile(r"#\s*((def|class|import|return) \S+[(:]|\w+ = \w+\()")
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        wrong += [
            f"{module}:{t.start[0]} {t.string}" for t in tokens if t.type == tokenize.COMMENT and dead.match(t.string)
        ]
    assert not wrong
