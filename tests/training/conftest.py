import pytest
import torch
from accelerate.state import AcceleratorState, GradientState

from mosaics.training.randomness import preserved_rng


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Accelerate keeps its state in singletons, and a run sets the seeds and the precision of its process."""
    precision, threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    torch.set_num_threads(1)  # as in the processes of training_programs: sums depend on how they are split
    with preserved_rng():
        yield
    torch.set_float32_matmul_precision(precision)
    torch.set_num_threads(threads)
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
