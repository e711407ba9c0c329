"""The transformer of DALLE-pytorch, for checkpoints trained with it."""

from mosaics.lazy_imports import lazy_names

# Lazy, because registration needs the configuration before `transformers.PreTrainedModel` can be imported.
__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "DallePytorchTransformer": "mosaics.models.dalle.dalle_pytorch.modeling_dalle_pytorch",
        "DallePytorchTransformerConfig": "mosaics.models.dalle.dalle_pytorch.configuration_dalle_pytorch",
    },
)
