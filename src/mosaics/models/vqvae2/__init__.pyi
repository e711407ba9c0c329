"""Types of the names that are imported on first use; written by `tests/write_stubs.py`."""

from mosaics.models.vqvae2.configuration_vqvae2 import VQVAE2Config as VQVAE2Config
from mosaics.models.vqvae2.modeling_vqvae2 import VQVAE2 as VQVAE2
from mosaics.models.vqvae2.modeling_vqvae2 import VQVAE2Output as VQVAE2Output
