"""Types of the names that are imported on first use; written by `tests/write_stubs.py`."""

from mosaics.models.wavenet.configuration_wavenet import WaveNetConfig as WaveNetConfig
from mosaics.models.wavenet.modeling_wavenet import WaveNet as WaveNet
from mosaics.models.wavenet.modeling_wavenet import WaveNetOutput as WaveNetOutput
