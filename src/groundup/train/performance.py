"""Predicts how long a training step takes on a device that is not here.

Each term is an exact count of the step (step_cost.py) over a rate of the data sheet (devices.toml),
times a share that such kernels reach; the shares are the constants below.

    term           count                                        over
    linear         products of the layers                       matrix rate, and their bytes in part
    attention      flash attention                              matrix rate × ATTENTION_SHARE
    head and loss  products with the vocabulary, eager softmax  matrix rate; bandwidth
    elementwise    all other kernels of the layers              bandwidth
    optimizer      Newton-Schulz, moments                       both; each rank has its share
    communication  gradients and weights, once each a step      link, as far as nothing hides it
    rest           zeroing, norm, host, launches                bandwidth; fixed times

An example: 20 layers of width 1,024 have 49 TFLOP of products for 32,768 tokens. An A100 reaches
79 % of 312 TFLOP/s, so they take 199 ms, and 16 more for what their memory traffic adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from groundup.model.config import ModelConfig
from groundup.runtime.devices import DeviceSpec
from groundup.train.step_cost import StepCost, Traffic

TERMS = (
    "linear",
    "attention",
    "head and loss",
    "elementwise",
    "optimizer",
    "exposed communication",
    "rest",
)
# Of the rate that large products reach: flash attention, forward and backward, causal, with heads
# of 64 and with wider ones (Dao 2023, arXiv 2307.08691, figure 5).
ATTENTION_SHARE, WIDE_ATTENTION_SHARE = 0.5, 0.6
# Of the memory's bandwidth: kernels that read and write long rows.
BANDWIDTH_SHARE = 0.85
# Of the time that the bytes of a matrix product would take alone, what computing does not hide.
UNHIDDEN_TRAFFIC = 0.45
# Of the link, in one direction: NCCL's rings over NVLink; and over PCIe, where peers may not reach
# each other's memory and data goes through the host.
LINK_SHARE, PCIE_SHARE, FASTEST_PCIE = 0.75, 0.4, 128
# Of the communication, if it runs beside the backward pass.
EXPOSED_SHARE = 0.25
# Seconds a step for the one read by the host, and a kernel for its launch.
HOST_SECONDS, LAUNCH_SECONDS = 1.5e-3, 5e-6
# Bytes of a gradient, and of a weight, that ranks exchange.
EXCHANGED_BYTES = 4


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step by term, and what comes of it."""

    terms: Mapping[str, float]
    tokens: int  # of the step, on all devices
    flops_per_token: float
    sheet_flops: float  # data-sheet rate of all devices together

    @property
    def seconds(self) -> float:
        """Seconds of a step."""
        return sum(self.terms.values())

    @property
    def tokens_per_second(self) -> float:
        """Tokens per second of all devices."""
        return self.tokens / self.seconds

    @property
    def utilization(self) -> float:
        """Share of the data-sheet rate that goes into the model (MFU)."""
        return self.tokens_per_second * self.flops_per_token / self.sheet_flops


@dataclass(frozen=True)
class DeviceRates:
    """Rates that kernels reach on a device, per second."""

    products: float  # operations of large matrix products
    attention: float  # operations
    memory: float  # bytes
    link: float  # bytes in one direction

    @classmethod
    def of(cls, spec: DeviceSpec, head_width: int, precision: str) -> DeviceRates:
        """Return the data-sheet rates times the shares of this module."""
        products = spec.flops(precision) * spec.share
        share = ATTENTION_SHARE if head_width <= 64 else WIDE_ATTENTION_SHARE
        link_share = PCIE_SHARE if spec.link <= FASTEST_PCIE else LINK_SHARE
        one_way = spec.link * 1e9 / 2
        memory = spec.bandwidth * 1e9
        return cls(products, products * share, memory, one_way * link_share)

    def product_seconds(self, traffic: Traffic) -> float:
        """Seconds of the matrix products of a part."""
        unhidden = UNHIDDEN_TRAFFIC * traffic.matrix_bytes / self.memory
        return traffic.matrix_flops / self.products + unhidden

    def moving_seconds(self, moved: float) -> float:
        """Seconds to read or write bytes in long rows."""
        return moved / (self.memory * BANDWIDTH_SHARE)


def predict_step(
    config: ModelConfig,
    cost: StepCost,
    spec: DeviceSpec,
    *,
    processes: int,
    sequences: int,
    passes: float,
    precision: str,
    compiled: bool,
) -> StepTime:
    """Predict a step of `sequences` on `processes` devices, the busiest of which makes `passes`.

    `cost` is that of one micro-batch; the last pass may be part of one. `compiled` says whether the
    layers' kernels are fused.
    """
    rates = DeviceRates.of(spec, config.head_width, precision)
    layers, head, update, rest = (cost.parts[p] for p in ("layers", "head", "optimizer", "rest"))
    linear, attention = rates.product_seconds(layers), layers.attention_flops / rates.attention
    head_seconds = rates.product_seconds(head) + rates.moving_seconds(head.bytes)
    moved = layers.fused_bytes if compiled else layers.bytes
    elementwise = rates.moving_seconds(moved)
    one_pass = linear + attention + head_seconds + elementwise
    # Between two products stands one fused kernel.
    kernels = head.kernels + (2 * layers.products if compiled else layers.kernels)
    waiting = max(0.0, kernels * LAUNCH_SECONDS - one_pass)
    optimizer = rates.product_seconds(update) + rates.moving_seconds(update.bytes)
    terms = {
        "linear": passes * linear,
        "attention": passes * attention,
        "head and loss": passes * head_seconds,
        "elementwise": passes * elementwise,
        # Each rank updates its own weights (ZeRO-1).
        "optimizer": optimizer / processes,
        "exposed communication": exposed_seconds(cost.parameters, processes, rates, one_pass),
        "rest": rates.moving_seconds(rest.bytes) + HOST_SECONDS + passes * waiting,
    }
    tokens = sequences * config.context
    rate = processes * spec.flops(precision)
    return StepTime(terms, tokens, config.flops_per_token(), rate)


def exposed_seconds(parameters: int, processes: int, rates: DeviceRates, hiding: float) -> float:
    """Seconds in which a device waits for the others.

    A ring moves (n - 1) / n of all gradients and then of all weights through each link. `hiding` is
    the time of the pass that runs meanwhile.
    """
    if processes == 1:
        return 0.0
    moved = 2 * (processes - 1) / processes * EXCHANGED_BYTES * parameters
    whole = moved / rates.link
    return max(EXPOSED_SHARE * whole, whole - hiding)
