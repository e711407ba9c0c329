"""Types of the names that are imported on first use; written by `tests/write_stubs.py`."""

from mosaics.models.dalle.dalle_pytorch.configuration_dalle_pytorch import (
    DallePytorchTransformerConfig as DallePytorchTransformerConfig,
)
from mosaics.models.dalle.dalle_pytorch.modeling_dalle_pytorch import (
    DallePytorchTransformer as DallePytorchTransformer,
)
