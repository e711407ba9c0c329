"""The rotation trick: a gradient through quantization that turns with the code."""

import torch


def rotation_trick(features: torch.Tensor, entries: torch.Tensor) -> torch.Tensor:
    r"""The values of `entries`, with a gradient to `features` that is rotated and scaled as the vectors were.

    Implements Section 4 of *Restructuring Vector Quantization with the Rotation Trick*
    (https://arxiv.org/abs/2410.06424). Encoder output e becomes code q through the rotation R in the plane of the two
    and a change of length, both held constant in the backward pass:

        q = (||q|| / ||e||) R e,   R = I - 2 r r^T + 2 q' e'^T,   r = (e' + q') / ||e' + q'||

    with e', q' the unit vectors of e and q. So the angle between gradient and code before the decoder is that between
    gradient and encoder output after it, where straight-through would keep the gradient itself. The values are exactly
    `entries`. Vectors of length zero have no direction: their gradient passes unchanged.

    Args:
        features: `(B, D, ...)` encoder outputs e, vectors along the second axis.
        entries: `(B, D, ...)` their codes q; no gradient goes to them.
    """
    entries = entries.detach()
    unit_vectors, lengths = _direction(features.detach())
    unit_entries, entry_lengths = _direction(entries)
    halfway, _ = _direction(unit_vectors + unit_entries)

    def dot(constant: torch.Tensor) -> torch.Tensor:
        return (features * constant).sum(dim=1, keepdim=True)

    rotated = features - 2 * dot(halfway) * halfway + 2 * dot(unit_vectors) * unit_entries
    defined = (lengths > 0) & (entry_lengths > 0)
    moved = torch.where(defined, entry_lengths / lengths.where(lengths > 0, 1), 1) * torch.where(
        defined, rotated, features
    )
    return entries + (moved - moved.detach())


def _direction(vectors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors and lengths; a vector of length zero stays zero."""
    lengths = vectors.norm(dim=1, keepdim=True)
    return vectors / lengths.where(lengths > 0, 1), lengths
