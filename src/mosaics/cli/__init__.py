"""The command line: `mosaics generate | reconstruct | convert | evaluate | info | demo`."""

from mosaics.lazy_imports import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__, {"main": "mosaics.cli.app"})
