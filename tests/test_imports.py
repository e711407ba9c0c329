"""Who may import whom. Read from the source, so that a lazy import counts too."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "mosaics"
MODULES = sorted(PACKAGE.rglob("*.py"))
# For each part of the package, the parts it may import. `lazy_imports` and `outputs` are open to all.
ALLOWED = {
    "quantizers": {"quantizers"},
    "layers": {"layers"},
    "likelihoods": set(),
    "outputs": set(),
    "sampling": set(),
    "hub": {"hub", "cards", "export"},
    "cards": {"cards"},
    "export": {"export"},
    "models": {"models", "hub", "quantizers", "layers", "likelihoods", "sampling"},
    "data": {"data"},
    "training": {"training", "data", "hub", "cards"},
    "pipelines": {"pipelines", "models", "data", "sampling", "hub", "cards"},
    "evaluation": {"evaluation", "data", "likelihoods", "pipelines"},
    "lazy_imports": set(),
    "registration": {"pipelines", "models"},
    "__init__": {"registration"},
    "converters": {"converters", "models", "cards", "__version__"},
    "demo": {"demo", "pipelines", "data", "sampling"},
    "cli": {"cli", "pipelines", "models", "data", "evaluation", "training", "converters", "demo"},
}


def imported(path: Path) -> set[tuple[str, ...]]:
    """Names of the modules of the package that a file imports, without the leading `mosaics`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            names.add(node.module)
            if node.module == "mosaics":
                names |= {f"mosaics.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return {tuple(name.split(".")[1:]) for name in names if name.split(".")[0] == "mosaics"} - {()}


def place(path: Path) -> tuple[str, ...]:
    return path.relative_to(PACKAGE).with_suffix("").parts


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_lies_below_it(path):
    part = place(path)[0]
    assert part in ALLOWED, f"{part} is new: say in ALLOWED what it may import"
    for name in imported(path):
        assert name[0] in ALLOWED[part] | {part, "lazy_imports", "outputs"}, f"{path} imports mosaics.{'.'.join(name)}"


@pytest.mark.parametrize("path", [path for path in MODULES if len(place(path)) == 3], ids=lambda path: path.stem)
def test_no_model_imports_another_model(path):
    folder, model, _ = place(path)
    if folder == "models":
        others = [name for name in imported(path) if name[0] == "models" and len(name) > 2 and name[1] != model]
        assert not others


def test_nothing_in_the_package_prints_but_the_command_line():
    for path in MODULES:
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        prints = [call.lineno for call in calls if getattr(call.func, "id", "") == "print"]
        assert place(path)[0] == "cli" or not prints, f"{path}: print in line {prints}"
