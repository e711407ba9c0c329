"""The gated PixelCNN: configuration, layers, model and decode loop."""

from mosaics.lazy_imports import lazy_names

# Lazy, because registration needs the configuration before `transformers.PreTrainedModel` can be imported.
__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "PixelCNN": "mosaics.models.pixelcnn.modeling_pixelcnn",
        "PixelCNNConfig": "mosaics.models.pixelcnn.configuration_pixelcnn",
        "PixelCNNOutput": "mosaics.models.pixelcnn.modeling_pixelcnn",
    },
)
