"""The common tests that transformers and diffusers run on every class of theirs, from their source distributions.

Nothing of them is in this repository. `make test-hf` fetches those of transformers into `.cache/hf_tests`, the version
and the hash of `sources.txt`; the source distribution of diffusers has none, so that a checkout has to be named.
"""

import importlib
import os
import sys
import types
from pathlib import Path

import pytest

FETCHED = Path(__file__).parents[2] / ".cache" / "hf_tests"
TRANSFORMERS = "MOSAICS_TRANSFORMERS_TESTS"  # environment variables: the folder `tests` of a source tree
DIFFUSERS = "MOSAICS_DIFFUSERS_TESTS"
# What test_modeling_common.py imports and the source distribution leaves out; no class of ours needs them.
LEFT_OUT = {"exporters.test_export": "ExportTesterMixin", "generation.test_utils": "GenerationTesterMixin"}


def transformers_tests() -> types.ModuleType:
    """The module with `ModelTesterMixin`; skips the calling test file if it is not there."""
    import transformers

    fetched = FETCHED / f"transformers-{transformers.__version__}" / "tests"
    folder = _folder(TRANSFORMERS, fetched, "test_modeling_common.py")
    pytest.importorskip("parameterized", reason="transformers' common tests need the package parameterized")
    name = _as_package("transformers_tests", folder)
    for module, mixin in LEFT_OUT.items():
        if not (folder / f"{module.replace('.', '/')}.py").is_file():
            parent, leaf = module.split(".")
            _module(f"{name}.{parent}").__path__ = []
            setattr(_module(f"{name}.{parent}.{leaf}"), mixin, type(mixin, (), {}))
    return importlib.import_module(f"{name}.test_modeling_common")


def diffusers_tests() -> types.ModuleType:
    """The module with `PipelineTesterMixin`; skips the calling test file if it is not there."""
    folder = _folder(DIFFUSERS, FETCHED / "diffusers" / "tests", "pipelines/testing_utils/common.py")
    name = _as_package("diffusers_tests", folder)
    for package in ("pipelines", "pipelines/testing_utils"):  # not their `__init__`, which imports all other mixins
        _as_package(f"{name}.{package.replace('/', '.')}", folder / package)
    return importlib.import_module(f"{name}.pipelines.testing_utils.common")


def _folder(variable: str, default: Path, needed: str) -> Path:
    folder = Path(os.environ.get(variable, default))
    if not (folder / needed).is_file():
        if variable in os.environ:
            raise FileNotFoundError(f"{variable}={folder} has no {needed}: name the folder `tests` of a source tree.")
        remedy = "run `make test-hf`, or set" if variable == TRANSFORMERS else "set"
        pytest.skip(f"{needed} is not in {folder}: {remedy} {variable}", allow_module_level=True)
    return folder


def _module(name: str) -> types.ModuleType:
    module = sys.modules[name] = types.ModuleType(name)
    return module


def _as_package(name: str, folder: Path) -> str:
    """Makes a folder importable as a package of another name: both libraries call theirs `tests`, as we do ours."""
    _module(name).__path__ = [str(folder)]
    return name
