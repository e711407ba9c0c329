"""Writes `__init__.pyi` of every package whose names are imported on first use, for type checkers: `make style`."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "mosaics"
DOCSTRING = '"""Types of the names that are imported on first use; written by `tests/write_stubs.py`."""\n'


def lazy_packages() -> dict[Path, dict[str, str]]:
    """For each `__init__.py` with lazy names: the module that defines each name."""
    found = {}
    for path in sorted(PACKAGE.rglob("__init__.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "lazy_names":
                found[path] = ast.literal_eval(node.args[1])
    return found


def main() -> None:
    for path, modules in lazy_packages().items():
        imports = sorted(f"from {module} import {name} as {name}\n" for name, module in modules.items())
        version = "\n__version__: str\n" if path.parent == PACKAGE else ""
        path.with_suffix(".pyi").write_text(f"{DOCSTRING}\n{''.join(imports)}{version}")


if __name__ == "__main__":
    main()
