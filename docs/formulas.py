"""Formulas of the pages as MathML, made while the site is built: a browser shows them without scripts or a network.

A hook of MkDocs. Pages write LaTeX between `$` or `$$`, which `pymdownx.arithmatex` (generic) marks.
"""

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

MARKED = re.compile(r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL)
UNKNOWN = re.compile(r"<m[ior]>\\[a-zA-Z]+")  # a command that the converter does not know is left as it is


def to_mathml(latex: str, is_block: bool) -> str:
    r"""A formula as MathML.

    Raises:
        ValueError: The formula is not understood.
    """
    try:
        mathml = convert(latex.strip(), display="block" if is_block else "inline")
    except Exception as error:  # the converter's errors have no common class
        raise ValueError(f"{latex!r}: {type(error).__name__} {error}") from error
    unknown = UNKNOWN.search(mathml)
    if unknown:
        raise ValueError(f"{latex!r}: unknown command {unknown.group().partition('>')[2]}")
    return mathml


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Replaces every marked formula of a page."""

    def replace(found: re.Match) -> str:
        try:
            is_block = found["tag"] == "div"
            mathml = to_mathml(html.unescape(found["latex"]), is_block)
        except ValueError as error:
            raise PluginError(f"{page.file.src_uri}: formula {error}") from error
        return f'<div class="formula">{mathml}</div>' if is_block else mathml

    return MARKED.sub(replace, content)
