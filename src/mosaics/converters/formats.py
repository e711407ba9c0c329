"""What a format of another project is to the converters."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import PreTrainedModel

from mosaics.converters.foreign_files import ForeignFile
from mosaics.converters.key_ledger import KeyLedger


@dataclass
class ConvertedPart:
    """One model of a conversion.

    Attributes:
        model: The model, on the meta device: its class and config.
        ledger: Where its weights come from.
        subfolder: Where in the output it is written; `""` for the folder itself.
    """

    model: PreTrainedModel
    ledger: KeyLedger
    subfolder: str = ""


@dataclass
class Conversion:
    """What a [`ForeignFormat`] makes of its files.

    Attributes:
        parts: The models.
        write_others: Writes what is not a model into the output folder, and checks it.
        left_out: What else the files held and the output does not, and why.
        use: Lines of Python for the card that load the result, if it takes more than loading its only model.
        is_pipeline: Whether the output folder as a whole is a `DallePipeline`.
    """

    parts: list[ConvertedPart]
    write_others: Callable[[Path], None] = lambda folder: None
    left_out: dict[str, str] = field(default_factory=dict)
    use: str = ""
    is_pipeline: bool = False


class ForeignFormat(ABC):
    """The checkpoints of one project.

    Attributes:
        name: Short name, such as `"openai-dvae"`.
        description: One line: whose weights, and which model of Mosaics they become.
        sources: The files it needs, each in a few words.
        project: Address of the project.
        license: License of the published weights, as the Hub names licenses.
        weights_license: A sentence about that license, for the card.
        inert_classes: Classes that its pickles hold, which become stubs; `"package.*"` for a whole package.
    """

    name: str
    description: str
    sources: tuple[str, ...]
    project: str
    license: str = "other"
    weights_license: str
    inert_classes: frozenset[str] = frozenset()

    @abstractmethod
    def recognizes(self, files: Sequence[ForeignFile]) -> bool:
        """Whether the files are of this format, or a part of them: by keys and shapes, not by names."""

    @abstractmethod
    def convert(self, files: Sequence[ForeignFile]) -> Conversion:
        """Says where every tensor goes.

        Raises:
            ConversionError: A file or a key is missing or left over, or an option is not supported.
        """


def weight_files(files: Sequence[ForeignFile]) -> list[ForeignFile]:
    """Those that hold weights."""
    return [file for file in files if file.kind != "other"]
