r"""Weights of other projects, turned into folders that Mosaics' `from_pretrained` loads.

    from mosaics.converters import convert, detect, FORMATS

    detect(["encoder.pkl", "decoder.pkl"])                    # "openai-dvae", by content, never by name
    report = convert(["encoder.pkl", "decoder.pkl"], "dvae")  # a folder for DiscreteVAE.from_pretrained

What happens on the way, and where it is written:

- `foreign_files`: a file is recognised by its first bytes and read. Pickles are read by `inert_pickle`: tensors, plain
  containers and numpy arrays come to life, classes that a format lists become inert stubs, anything else is refused
  by name. No code of the file is ever run.
- `formats`: a [`ForeignFormat`] recognises the files of one project, and says which tensor goes where.
- `key_ledger`: it says so to a [`KeyLedger`], which knows every key of the source. One that was neither moved nor
  dropped with a reason, a wrong shape, NaN or infinity are errors.
- `conversion`: the result is written beside its final place, loaded again, and compared with the source bit by bit;
  only then is it renamed.

**To add a format**, write a module with a subclass of [`ForeignFormat`] and put an instance into
`registry.FORMATS`. It needs `name`, `description`, `sources`, `project`, `weights_license`, `inert_classes` (names of
the classes that its pickles hold, `"package.*"` for a whole package), and two methods:

    def recognizes(self, files: Sequence[ForeignFile]) -> bool
    def convert(self, files: Sequence[ForeignFile]) -> Conversion

`files` are those the user gave, folders opened one after the other (subfolders too), each a [`ForeignFile`]: `kind`
is `"safetensors"`, `"torch"` (zip or legacy) or `"other"`; `content` is what the file holds (for safetensors a
dictionary of tensors, for torch whatever was saved, with stubs), and `weights` the flat dictionary of tensors of a
state dict or of a stubbed module. `recognizes` looks at keys and shapes, and must be true of partial sources as well
(an encoder without its decoder), so that `convert` can say what is missing with [`MissingSourceError`].

`convert` builds a `KeyLedger(weights, source=file.name)`, a config from the shapes (`ledger.shape(key)`), the model on
the meta device (`with torch.device("meta"): Model(config)`), moves or drops every key, and returns
`Conversion(parts=[ConvertedPart(model, ledger, subfolder="")])`. Several parts with subfolders make a pipeline's
folder; `write_others(folder)` writes what is not a model (a tokenizer, an image processor, model_index.json).
Moves are `ledger.move(key, target)`, with a `Layout` where the numbers are arranged otherwise, `ledger.join(keys,
target, dim)` and `ledger.split(key, targets, dim, sizes)`.
"""

from mosaics.lazy_imports import lazy_names

__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "FORMATS": "mosaics.converters.registry",
        "Conversion": "mosaics.converters.formats",
        "ConversionError": "mosaics.converters.errors",
        "ConversionReport": "mosaics.converters.conversion",
        "ConvertedPart": "mosaics.converters.formats",
        "ForeignFile": "mosaics.converters.foreign_files",
        "ForeignFormat": "mosaics.converters.formats",
        "KeyLedger": "mosaics.converters.key_ledger",
        "Layout": "mosaics.converters.key_ledger",
        "convert": "mosaics.converters.conversion",
        "detect": "mosaics.converters.registry",
    },
)
