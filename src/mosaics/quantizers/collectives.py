"""What the quantizers of all processes agree on: sums, and a choice among everybody's vectors.

Without `torch.distributed`, or before it is initialised, a process is on its own.
"""

import torch
import torch.distributed as dist

# 2^31 over the golden ratio: n * GOLDEN mod 2^31 spreads any run of numbers n evenly (a Weyl sequence).
GOLDEN, RANGE_BITS = 1_327_217_885, 31


def rank_and_world() -> tuple[int, int]:
    """Number of this process and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def sum_over_processes_(tensor: torch.Tensor) -> torch.Tensor:
    """Sums a tensor over all processes, in place and on each of them."""
    if rank_and_world()[1] > 1:
        dist.all_reduce(tensor)
    return tensor


def broadcast_(tensor: torch.Tensor) -> torch.Tensor:
    """Overwrites a tensor by that of process 0."""
    if rank_and_world()[1] > 1:
        dist.broadcast(tensor, src=0)
    return tensor


def spread_choice(vectors: torch.Tensor, count: int, start: torch.Tensor) -> torch.Tensor:
    """This process's part of `count` vectors chosen among those of all processes: sum it over processes to have them.

    The places are numbers `start` to `start + count` of a sequence that spreads evenly over the vectors and does not
    repeat. It needs no random state, so processes agree, a resumed run goes on alike, and several processes with
    equally many vectors choose what one process with all of them would.

    Args:
        vectors: `(N, D)`, those of this process; of all processes, one after the other, a place is a share.
        count: How many to choose.
        start: A non-negative integer, equal on all processes.

    Returns:
        `(count, D)`, zero where the choice lies on another process.
    """
    rank, world = rank_and_world()
    numbers = start + torch.arange(count, device=vectors.device)
    share = (numbers % 2**RANGE_BITS) * GOLDEN % 2**RANGE_BITS * world  # in units of 2^-31 processes
    owner, rest = share >> RANGE_BITS, share % 2**RANGE_BITS
    chosen = vectors[rest * len(vectors) >> RANGE_BITS]
    return chosen if world == 1 else torch.where((owner == rank)[:, None], chosen, 0)


def gather_vectors(vectors: torch.Tensor, limit: int) -> tuple[torch.Tensor, int]:
    """The vectors of all processes, or `limit` of them if they are more; and how many there are in all.

    Waits for the device; meant for the start of training.
    """
    rank, world = rank_and_world()
    sizes = torch.zeros(world, dtype=torch.int64, device=vectors.device)
    sizes[rank] = len(vectors)
    ends = sum_over_processes_(sizes).cumsum(0).tolist()
    total, first = ends[-1], ends[rank] - len(vectors)
    if total > limit:  # every n-th would be from the same columns of every picture
        gathered = spread_choice(vectors, limit, torch.zeros_like(sizes[0]))
    else:
        gathered = vectors.new_zeros(total, vectors.shape[1])
        gathered[first : first + len(vectors)] = vectors
    return sum_over_processes_(gathered), total
