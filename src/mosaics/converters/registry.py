"""The formats that can be converted, and which of them some files are."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from mosaics.converters.dalle_pytorch import DallePytorchFormat
from mosaics.converters.dalle_pytorch_vae import DallePytorchVAEFormat
from mosaics.converters.errors import UnknownFormatError
from mosaics.converters.foreign_files import ForeignFile, Sources, open_sources
from mosaics.converters.formats import ForeignFormat, weight_files
from mosaics.converters.mindalle import MinDalleFormat
from mosaics.converters.openai_dvae import FlavaCodebookFormat, OpenAIDvaeFormat
from mosaics.converters.rosinality import RosinalityVQVAE2Format
from mosaics.converters.rudalle import RuDalleV2Format, RuDalleV3Format
from mosaics.converters.taming import LlamaGenVQFormat, TamingVQGANFormat

_ALL: tuple[ForeignFormat, ...] = (
    OpenAIDvaeFormat(),
    FlavaCodebookFormat(),
    DallePytorchVAEFormat(),
    DallePytorchFormat(),
    TamingVQGANFormat(),
    LlamaGenVQFormat(),
    RosinalityVQVAE2Format(),
    MinDalleFormat(),
    RuDalleV3Format(),
    RuDalleV2Format(),
)
FORMATS: Mapping[str, ForeignFormat] = MappingProxyType({form.name: form for form in _ALL})
SHOWN_KEYS = 6


def detect(source: Sources) -> str:
    """The name of the format of a file, a folder, or several, by content.

    Raises:
        UnknownFormatError: It is none, or more than one.
        ForeignFileError: A file cannot be read.
    """
    return detect_format(open_all(source)).name


def open_all(source: Sources) -> list[ForeignFile]:
    """The files of a source, with the classes of every format stubbed."""
    return open_sources(source, frozenset().union(*(form.inert_classes for form in FORMATS.values())))


def detect_format(files: Sequence[ForeignFile]) -> ForeignFormat:
    """The format of some files; see [`detect`]."""
    found = [form for form in FORMATS.values() if form.recognizes(files)]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(form.name for form in found)
        raise UnknownFormatError(f"the files could be {names}: name one of them as the format.")
    known = "; ".join(f"{form.name} ({', '.join(form.sources)})" for form in FORMATS.values())
    held = " ".join(f"{file.name} holds {_summary(file)}." for file in weight_files(files)) or "There are no weights."
    raise UnknownFormatError(f"the files are of no known format. {held} Known are: {known}.")


def _summary(file: ForeignFile) -> str:
    content = file.content
    keys = list(file.weights) or (list(content) if isinstance(content, dict) else [])
    if not keys:
        return f"an object of {getattr(content, 'foreign_class', type(content).__name__)}"
    shown = ", ".join(repr(key) for key in keys[:SHOWN_KEYS])
    return f"{len(keys)} entries: {shown}{', ...' if len(keys) > SHOWN_KEYS else ''}"
