"""Collectives: how long xPUs take to exchange activations over the link that joins them.

An all-reduce is done in one shot (each xPU reads all peers) or in two (reduce-scatter, then all-gather), whichever is
faster: the two algorithms of vLLM's own kernels, and NCCL's tree and ring in the limits of small and of large messages.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from sim.errors import number


@dataclass(frozen=True, slots=True)
class Interconnect:
    """What joins xPUs.

    Attributes:
        id: name, such as ``pcie_4``.
        bytes_per_s: what an xPU moves in a collective, in each direction at once [bytes/s].
        latency_s: of one exchange, launch and synchronisation included [s].
        source: where the numbers come from.
    """

    id: str
    bytes_per_s: float
    latency_s: float
    source: str = ""

    def __post_init__(self) -> None:
        number(f"interconnect.{self.id}.bytes_per_s", self.bytes_per_s, "a speed > 0 bytes/s", above=0.0)
        number(f"interconnect.{self.id}.latency_s", self.latency_s, "a time >= 0 s", low=0.0)


def all_reduce_s(nbytes: float, ranks: int, link: Interconnect) -> float:
    """Sum `nbytes` that each of `ranks` xPUs holds, and give all the sum [s]."""
    if ranks < 2:
        return 0.0
    one_shot = link.latency_s + (ranks - 1) * nbytes / link.bytes_per_s
    return min(one_shot, 2.0 * link.latency_s + 2.0 * (ranks - 1) / ranks * nbytes / link.bytes_per_s)


def all_gather_s(nbytes: float, ranks: int, link: Interconnect) -> float:
    """Give all `ranks` xPUs `nbytes`, of which each holds its part; a reduce-scatter takes as long [s]."""
    return 0.0 if ranks < 2 else link.latency_s + (ranks - 1) / ranks * nbytes / link.bytes_per_s


def all_to_all_s(nbytes: float, ranks: int, a_node: int, link: Interconnect, internode: Interconnect) -> float:
    """Let each of `ranks` xPUs, `a_node` to a node, send `nbytes` to the others in equal parts [s].

    Those in its node and those beyond are reached over links of their own, both at once.
    """
    if ranks < 2:
        return 0.0
    within = min(ranks, a_node) - 1
    near = send_s(nbytes * within / (ranks - 1), link) if within else 0.0
    far = send_s(nbytes * (ranks - 1 - within) / (ranks - 1), internode) if ranks > a_node else 0.0
    return max(near, far)


def send_s(nbytes: float, link: Interconnect) -> float:
    """From one xPU to another [s]."""
    return link.latency_s + nbytes / link.bytes_per_s


def grouped_all_reduce_s(nbytes: float, ranks: int, a_node: int, link: Interconnect, internode: Interconnect) -> float:
    """An all-reduce of `ranks` xPUs that stand `a_node` to a node [s].

    Reduce-scatter within each node, all-reduce of the parts across nodes, all-gather within each node.
    """
    if ranks <= a_node:
        return all_reduce_s(nbytes, ranks, link)
    within = 2.0 * all_gather_s(nbytes, a_node, link)
    return within + all_reduce_s(nbytes / a_node, -(-ranks // a_node), internode)


def most_loaded(mean: float, variance: float, ranks: int) -> float:
    """Expected load of the most loaded of `ranks` alike, over the mean: at least 1.

    The maximum of independent normal variables by Blom's approximation of their order statistics; for loads with a
    fixed sum give the variance that they would have without it. Source: Blom, Statistical Estimates and Transformed
    Beta-Variables (1958).
    """
    if ranks < 2 or mean <= 0.0:
        return 1.0
    quantile = NormalDist().inv_cdf((ranks - 0.375) / (ranks + 0.25))
    return 1.0 + quantile * math.sqrt(max(variance, 0.0)) / mean
