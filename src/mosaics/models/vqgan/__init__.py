"""The image tokenizer of the VQGAN."""

from mosaics.lazy_imports import lazy_names

# Lazy, because registration needs the configuration before `transformers.PreTrainedModel` can be imported.
__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "VQGAN": "mosaics.models.vqgan.modeling_vqgan",
        "VQGANConfig": "mosaics.models.vqgan.configuration_vqgan",
        "VQGANOutput": "mosaics.models.vqgan.modeling_vqgan",
    },
)
