"""The diagrams of the documentation are those that the script draws, the one of the package from its imports."""

import importlib.util
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_diagrams", ROOT / "docs" / "make_diagrams.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_diagram_is_kept_as_it_is_drawn_now(script):
    kept = {path.stem: path.read_text() for path in script.DIAGRAMS.glob("*.svg")}
    assert kept.keys() == script.DIAGRAM_OF.keys()
    for name, draw in script.DIAGRAM_OF.items():
        assert kept[name] == draw(), f"{name}: run python docs/make_diagrams.py"


def test_a_diagram_is_svg_that_asks_for_nothing_from_elsewhere(script):
    for draw in script.DIAGRAM_OF.values():
        root = ElementTree.fromstring(draw())
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        for element in root.iter():
            assert not element.tag.endswith(("image", "script"))
            assert not any(key.endswith("href") for key in element.attrib)


def test_arrows_that_follow_from_others_are_left_out(script):
    arrows = {"top": {"middle", "bottom"}, "middle": {"bottom"}, "bottom": set()}
    assert script.without_shortcuts(arrows) == {"top": {"middle"}, "middle": {"bottom"}, "bottom": set()}


def test_the_package_is_read_from_its_imports(script):
    parts = script.imports_of_parts()
    assert {"quantizers", "layers"} <= parts["models"]
    assert parts["layers"] == set() and "training" not in parts["models"]
