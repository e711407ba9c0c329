"""The source of a class as one file: the modules of this package that it needs, one after the other."""

import ast
import importlib.util
import re
import textwrap
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = "mosaics"
WIDTH = 119


class ExportError(ValueError):
    """Source that cannot be put into one file: the message names the module, the line, and what to change."""


@dataclass
class FlatModule:
    """One module, taken apart.

    Args:
        name: Its name.
        docstring: Its docstring.
        body: Its source without docstring, imports and `__all__`.
        needs: (module, name) of what it imports from this package.
        imports: What it imports from elsewhere: bound name to statement.
        defines: The names it binds itself.
    """

    name: str
    docstring: str = ""
    body: str = ""
    needs: list[tuple[str, str]] = field(default_factory=list)
    imports: dict[str, str] = field(default_factory=dict)
    defines: set[str] = field(default_factory=set)


def flatten(module_name: str, left_out: Collection[str] = ()) -> str:
    """The source of a module and of all that it imports from this package.

    Comments and docstrings stay; imports of this package become definitions above, all others are gathered on top.

    Args:
        module_name: Such as `"mosaics.models.dvae.modeling_dvae"`.
        left_out: Names of base classes that the file does without, and that are not followed.

    Raises:
        ExportError: A module is missing, imports in a way that cannot be rewritten, or two define the same name.
    """
    modules = _in_order(module_name, left_out)
    _refuse_collisions(modules)
    sections = [f"{_heading(module)}\n\n\n{module.body.strip()}" for module in modules if module.body.strip()]
    code = "\n\n\n".join(sections) + "\n"
    imports = {
        statement
        for module in modules
        for name, statement in module.imports.items()
        if re.search(rf"\b{name.partition('.')[0]}\b", module.body)
    }
    source = f"{_import_block(sorted(imports))}\n\n\n{code}"
    _refuse_leftovers(source, module_name)
    return source


def _in_order(module_name: str, left_out: Collection[str]) -> list[FlatModule]:
    """Every module that is needed, each after those that it needs."""
    found: dict[str, FlatModule | None] = {}

    def visit(name: str) -> None:
        if name in found:
            return
        found[name] = None  # on the way; an import in a circle would be caught by Python
        module = _take_apart(name, left_out)
        for needed, imported in module.needs:
            visit(_defining_module(needed, imported, name))
        del found[name]
        found[name] = module

    visit(module_name)
    return [module for module in found.values() if module is not None]


def _take_apart(name: str, left_out: Collection[str]) -> FlatModule:
    path = _path(name)
    source = path.read_text(encoding="utf-8")
    tree, module = ast.parse(source), FlatModule(name)
    dropped: set[int] = set()  # line numbers, from 1
    for node in tree.body:
        if node is tree.body[0] and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            module.docstring = ast.get_docstring(tree) or ""
        elif isinstance(node, ast.ImportFrom) and (source_of_names := _ours(node)):
            module.needs += [
                (source_of_names, alias.name) for alias in _plain(node, path) if alias.name not in left_out
            ]
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module.imports |= _foreign(node)
        elif _is_for_type_checkers(node):
            if not any(isinstance(part, ast.ImportFrom) and _ours(part) for part in ast.walk(node)):
                continue
        elif not (isinstance(node, ast.Assign) and _names(node) == {"__all__"}):
            module.defines |= _names(node)
            _refuse_inner_imports(node, path)
            continue
        dropped |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = source.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") in left_out for base in node.bases):
            if not lines[node.lineno - 1].rstrip().endswith(":"):
                raise ExportError(f"{path}:{node.lineno}: the bases of {node.name} must stand in one line.")
            bases = ", ".join(ast.unparse(base) for base in node.bases if getattr(base, "id", "") not in left_out)
            lines[node.lineno - 1] = f"class {node.name}({bases}):"
    module.body = "\n".join(line for number, line in enumerate(lines, start=1) if number not in dropped)
    return module


def _path(name: str) -> Path:
    try:
        spec = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise ExportError(f"The module {name}, which the exported code needs, is missing. Install {PACKAGE} again.")
    return Path(spec.origin)


def _defining_module(module_name: str, imported: str, importer: str) -> str:
    """The module whose own code binds a name: a package passes on what its `__init__` imports."""
    path = _path(module_name)
    if path.name != "__init__.py":
        return module_name
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and any(alias.name == imported for alias in node.names):
            return _defining_module(node.module, imported, importer)
    raise ExportError(f"{importer} imports {imported} from {module_name}, whose __init__ does not import it by name.")


def _ours(node: ast.ImportFrom) -> str | None:
    """The module of this package that names are imported from; `None` if it is another's."""
    return node.module if node.level == 0 and node.module and node.module.partition(".")[0] == PACKAGE else None


def _plain(node: ast.ImportFrom, path: Path) -> list[ast.alias]:
    if any(alias.asname or alias.name == "*" for alias in node.names):
        raise ExportError(f"{path}:{node.lineno}: an import of {PACKAGE} under another name cannot be rewritten.")
    return node.names


def _foreign(node: ast.Import | ast.ImportFrom) -> dict[str, str]:
    """Bound name to statement, for an import of another package."""
    source = f"from {'.' * node.level}{node.module or ''} import " if isinstance(node, ast.ImportFrom) else "import "
    return {
        alias.asname or alias.name: source + alias.name + (f" as {alias.asname}" if alias.asname else "")
        for alias in node.names
    }


def _is_for_type_checkers(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _names(node: ast.stmt) -> set[str]:
    """The names that a statement at the top of a module binds."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {part.id for target in targets if target for part in ast.walk(target) if isinstance(part, ast.Name)}


def _refuse_inner_imports(node: ast.stmt, path: Path) -> None:
    for part in ast.walk(node):
        if isinstance(part, ast.ImportFrom) and _ours(part):
            raise ExportError(
                f"{path}:{part.lineno}: an import of {part.module} inside a function cannot be rewritten; move it to "
                "the top of the module, or leave the class out."
            )


def _refuse_collisions(modules: Iterable[FlatModule]) -> None:
    owner: dict[str, str] = {}
    for module in modules:
        for name in sorted(module.defines | set(module.imports)):
            here = module.imports.get(name, module.name)
            if name not in module.defines and owner.get(name, here) == here:
                owner[name] = here
            elif name in owner:
                raise ExportError(
                    f"{name} means two things in one file: {owner[name]!r} and {here!r}. Rename one of them."
                )
            else:
                owner[name] = here


def _refuse_leftovers(source: str, module_name: str) -> None:
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if (isinstance(node, ast.ImportFrom) and _ours(node)) or PACKAGE in {n.partition(".")[0] for n in names}:
            raise ExportError(f"The code exported from {module_name} still imports {PACKAGE}: {ast.unparse(node)}")


def _heading(module: FlatModule) -> str:
    """A comment with the module's name and what its docstring says."""
    text = textwrap.dedent(module.docstring).strip()
    lines = [f"# {line}".rstrip() for line in text.splitlines()]
    return "\n".join([f"# {'-' * 20} {module.name}", *lines])


def _import_block(statements: Iterable[str]) -> str:
    """Imports one name a line become one statement a module, plain ones first."""
    plain, names = [], {}
    for statement in statements:
        if statement.startswith("import "):
            plain.append(statement)
        else:
            module, _, name = statement.removeprefix("from ").partition(" import ")
            names.setdefault(module, []).append(name)
    lines = list(plain)
    for module, imported in sorted(names.items()):
        line = f"from {module} import {', '.join(imported)}"
        if len(line) > WIDTH:
            line = f"from {module} import (\n" + "".join(f"    {name},\n" for name in imported) + ")"
        lines.append(line)
    return "\n".join(lines)
