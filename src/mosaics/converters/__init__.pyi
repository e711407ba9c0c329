"""Types of the names that are imported on first use; written by `tests/write_stubs.py`."""

from mosaics.converters.conversion import ConversionReport as ConversionReport
from mosaics.converters.conversion import convert as convert
from mosaics.converters.errors import ConversionError as ConversionError
from mosaics.converters.foreign_files import ForeignFile as ForeignFile
from mosaics.converters.formats import Conversion as Conversion
from mosaics.converters.formats import ConvertedPart as ConvertedPart
from mosaics.converters.formats import ForeignFormat as ForeignFormat
from mosaics.converters.key_ledger import KeyLedger as KeyLedger
from mosaics.converters.key_ledger import Layout as Layout
from mosaics.converters.registry import FORMATS as FORMATS
from mosaics.converters.registry import detect as detect
