"""Lazy names are visible to type checkers."""

import ast

import pytest

from write_stubs import PACKAGE, lazy_packages


@pytest.mark.parametrize("path", lazy_packages(), ids=lambda path: str(path.parent.relative_to(PACKAGE.parent)))
def test_the_stub_of_a_package_has_its_lazy_names(path):
    stub = ast.parse(path.with_suffix(".pyi").read_text())
    imports = {
        alias.asname: node.module
        for node in ast.walk(stub)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname == alias.name
    }
    assert imports == lazy_packages()[path], "run `make style`, which writes the stubs"


def test_the_package_declares_its_types():
    assert (PACKAGE / "py.typed").is_file()
