"""Types of the names that are imported on first use; written by `tests/write_stubs.py`."""

from mosaics.models.dalle_pytorch_vae.configuration_dalle_pytorch_vae import (
    DallePytorchVAEConfig as DallePytorchVAEConfig,
)
from mosaics.models.dalle_pytorch_vae.modeling_dalle_pytorch_vae import DallePytorchVAE as DallePytorchVAE
from mosaics.models.dalle_pytorch_vae.modeling_dalle_pytorch_vae import DallePytorchVAEOutput as DallePytorchVAEOutput
