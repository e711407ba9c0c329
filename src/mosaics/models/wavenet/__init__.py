"""WaveNet over sequences of codes: configuration, layers, model and decode loop."""

from mosaics.lazy_imports import lazy_names

# Lazy, because registration needs the configuration before `transformers.PreTrainedModel` can be imported.
__getattr__, __dir__, __all__ = lazy_names(
    __name__,
    {
        "WaveNet": "mosaics.models.wavenet.modeling_wavenet",
        "WaveNetConfig": "mosaics.models.wavenet.configuration_wavenet",
        "WaveNetOutput": "mosaics.models.wavenet.modeling_wavenet",
    },
)
