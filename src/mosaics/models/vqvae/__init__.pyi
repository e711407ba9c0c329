"""Types of the names that are imported on first use; written by `tests/write_stubs.py`."""

from mosaics.models.vqvae.configuration_vqvae import VQVAEConfig as VQVAEConfig
from mosaics.models.vqvae.modeling_vqvae import VQVAE as VQVAE
from mosaics.models.vqvae.modeling_vqvae import VQVAEOutput as VQVAEOutput
