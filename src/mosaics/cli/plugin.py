"""A Python file of the user's own, with data sets and a judge for `mosaics evaluate`."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from mosaics.cli.checkpoints import without_loading_bars
from mosaics.data.training_data import Composer
from mosaics.evaluation.correctness import Judge

MODULE = "mosaics_plugin"
DATASETS, LOAD_JUDGE = "DATASETS", "load_judge"


@dataclass(frozen=True)
class Plugin:
    """What a plugin file offers.

    Args:
        path: The file.
        datasets: Its `DATASETS`: by name what makes a data set, called as `make(split, size=..., **options)`.
        judge_loader: Its `load_judge`, called as `load_judge(folder, dataset)`; `None` if it has none.
    """

    path: Path
    datasets: Mapping[str, Composer]
    judge_loader: Callable[[Path, Any], Judge] | None

    def load_judge(self, folder: Path, dataset: Any) -> Judge:
        """The judge in a folder, for the captions of a data set.

        Raises:
            ValueError: The file has no `load_judge`.
            TypeError: What it returns is no function.
        """
        if self.judge_loader is None:
            raise ValueError(f"{self.path} has no {LOAD_JUDGE}(folder, dataset), which --judge needs.")
        with without_loading_bars():
            judge = self.judge_loader(folder, dataset)
        if not callable(judge):
            raise TypeError(
                f"{LOAD_JUDGE} of {self.path} must return a function of sample numbers and pictures, got {judge!r}."
            )
        return judge


def load_plugin(path: Path) -> Plugin:
    """Runs a Python file and takes what it offers.

    Raises:
        ImportError: The file raises an error.
        ValueError: It offers neither data sets nor a judge.
        TypeError: What it offers is of another kind.
    """
    module = _run(path)
    datasets, judge_loader = getattr(module, DATASETS, {}), getattr(module, LOAD_JUDGE, None)
    if not isinstance(datasets, Mapping):
        raise TypeError(f"{DATASETS} of {path} must map names to functions, got {datasets!r}.")
    for name, make in datasets.items():
        if not isinstance(name, str) or not callable(make):
            raise TypeError(f"{DATASETS} of {path} must map names to functions, got {make!r} for {name!r}.")
    if judge_loader is not None and not callable(judge_loader):
        raise TypeError(f"{LOAD_JUDGE} of {path} must be a function, got {judge_loader!r}.")
    if not datasets and judge_loader is None:
        raise ValueError(
            f"{path} offers nothing: it must set {DATASETS}, define {LOAD_JUDGE}(folder, dataset), or both."
        )
    return Plugin(path, datasets, judge_loader)


def _run(path: Path) -> ModuleType:
    """The module of a file; known to Python under `MODULE`, as what looks up a class's module needs it."""
    loader = SourceFileLoader(MODULE, str(path))
    spec = ModuleSpec(MODULE, loader, origin=str(path))
    spec.has_location = True  # gives the module its __file__
    module = module_from_spec(spec)
    sys.modules[MODULE] = module
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[MODULE]
        raise ImportError(f"{path} cannot be run: {type(error).__name__}: {error}") from error
    return module
