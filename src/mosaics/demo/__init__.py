"""A page in the browser: draw, complete, paint with codes, reconstruct: `pip install "mosaics[demo]"`."""

from mosaics.lazy_imports import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "build": "mosaics.demo.page",
        "launch": "mosaics.demo.serving",
    },
)
