"""The gate of PixelCNN and WaveNet."""

import torch


def gated_activation(features: torch.Tensor, dim: int = 1) -> torch.Tensor:
    r"""`tanh(f) * sigmoid(g)` for the first half f and the second half g of the channels.

    Eq. 2 of *Conditional Image Generation with PixelCNN Decoders* (https://arxiv.org/abs/1606.05328) and of *WaveNet*
    (https://arxiv.org/abs/1609.03499).

    Args:
        features: Any shape with an even number of channels.
        dim: The dimension of the channels.

    Example:
    ```python
    >>> gated_activation(torch.tensor([[100.0, 0.0]]))
    tensor([[0.5000]])

    ```
    """
    filters, gates = features.chunk(2, dim=dim)
    return torch.tanh(filters) * torch.sigmoid(gates)
