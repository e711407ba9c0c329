"""Types of the names that are imported on first use; written by `tests/write_stubs.py`."""

from mosaics.models.audio_vqvae.configuration_audio_vqvae import AudioVQVAEConfig as AudioVQVAEConfig
from mosaics.models.audio_vqvae.modeling_audio_vqvae import AudioVQVAE as AudioVQVAE
from mosaics.models.audio_vqvae.modeling_audio_vqvae import AudioVQVAEOutput as AudioVQVAEOutput
