"""Why weights of another project could not be converted."""


class ConversionError(ValueError):
    """A conversion that was refused; the message names the file or the key, and what to do. Nothing was written."""


class ForeignFileError(ConversionError):
    """A file that cannot be read: damaged, incomplete, or no weights at all."""


class RefusedGlobalsError(ForeignFileError):
    """A pickle that asks for functions or classes which no weights need. None of them was touched.

    Attributes:
        names: All of them, sorted.
    """

    def __init__(self, message: str, names: tuple[str, ...]):
        super().__init__(message)
        self.names = names


class UnknownFormatError(ConversionError):
    """Files that are no known format, or more than one."""


class MissingSourceError(ConversionError):
    """A format of several files of which one is missing."""


class UnsupportedVariantError(ConversionError):
    """A known format with an option that no model of Mosaics has."""


class KeyMismatchError(ConversionError):
    """Tensors that are missing, left over, of a wrong shape, not finite, or changed by the conversion."""


class OutputError(ConversionError):
    """The output folder cannot be written, or holds something already."""
