"""ZeRO-1: each rank sums and updates its own pieces of the weights, and all gather the results.

    backward of the last micro-batch    layer 19 ─ layer 18 ─ …             ─ layer 0 ─ embedding
    reduce-scatter of a group                └► 19 ─► 18 ─► …                      └► 0 ─► …
    norm, guard, update of own pieces                                                      ■
    all-gather of a group                 0 ─► 1 ─► 2 ─► …
    forward of the next step                └► layer 0 ─ layer 1 ─ …

The groups are those of optimizer.py. A group's gradients are summed as soon as the last of its
parameters has its gradient, and a layer waits for its own weights only, so that computing goes on
meanwhile. All ranks start collectives in one fixed order, that of the model's parameters.

An example: 40 matrices of a shape on 4 ranks are 10 groups. Rank 1 gets the sums of matrices 1, 5,
9, …, holds their momentum, and makes these 10 orthogonal. A step moves each weight twice, once as
gradient and once as weight, as one all-reduce would.

Paper: ZeRO, Rajbhandari et al. 2020 (arXiv 1910.02054), stage 1.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from groundup.model.transformer import Transformer
from groundup.train.distributed import DistributedContext, Pending
from groundup.train.optimizer import FlatParameters, Optimizer, Stack

# Sums that may be under way without a GPU. Each holds a second copy of its group.
MAX_SUMS = 8


@dataclass
class Group:
    """One piece per rank of a stack."""

    weights: Tensor  # [ranks, piece]
    gradients: Tensor
    members: frozenset[int]  # positions in the model of the parameters that it has numbers of
    missing: int = 0  # how many of them have no gradient of this step yet


class Sharding:
    """Sums gradients and gathers weights between the ranks; with one rank it does nothing.

    For a module that is no Transformer, such as an adapter, nothing goes on meanwhile: the caller
    waits for the weights before it uses them.
    """

    def __init__(
        self, model: nn.Module, parameters: FlatParameters, ranks: DistributedContext
    ) -> None:
        self.parameters, self.ranks = parameters, ranks
        # Bytes of all groups that were summed or gathered so far.
        self.payload_bytes = 0
        # In the order in which a forward pass needs them; empty if there is nothing to share.
        self._groups: list[Group] = []
        # Groups of this step whose sum was not started, the next one last.
        self._unstarted: list[Group] = []
        # What is under way. A gather has the number of its group.
        self._sums: deque[Pending] = deque()
        self._gathers: deque[tuple[int, Pending]] = deque()
        if ranks.world > 1:
            names = [name for name, _ in model.named_parameters()]
            groups = [group for stack in parameters.stacks for group in _groups_of(stack, names)]
            self._groups = sorted(groups, key=lambda group: min(group.members))
            if isinstance(model, Transformer):
                self._register_hooks(model)

    def _register_hooks(self, model: Transformer) -> None:
        positions = {weight: position for position, weight in enumerate(model.parameters())}
        for weight, position in positions.items():
            groups = [group for group in self._groups if position in group.members]
            weight.register_post_accumulate_grad_hook(partial(self._have_gradient, groups))
        for module in (model.model.embed_tokens, *model.model.layers):
            own = {positions[weight] for weight in module.parameters()}
            last = max(n for n, group in enumerate(self._groups) if own & group.members)
            module.register_forward_pre_hook(lambda *_, last=last: self.wait_for_weights(last))
        # The head comes after the last norm, and is not called as a module.
        model.model.norm.register_forward_pre_hook(lambda *_: self.wait_for_weights())

    def expect_gradients(self) -> None:
        """Sum gradients as they come: the next backward pass is the last of a step."""
        self._unstarted = list(self._groups)
        for group in self._groups:
            group.missing = len(group.members)

    def _have_gradient(self, groups: list[Group], weight: Tensor) -> None:
        if not self._unstarted:
            # An earlier micro-batch, or the pass over one sequence of an incident.
            return
        for group in groups:
            group.missing -= 1
        # All ranks in the same order, so a group also waits for those of later layers.
        while self._unstarted and not self._unstarted[-1].missing:
            self._start_sum()

    def _start_sum(self) -> None:
        if self.ranks.device.type == "cpu" and len(self._sums) >= MAX_SUMS:
            self._sums.popleft().wait()
        gradients = self._unstarted.pop().gradients
        self._sums.append(self.ranks.start_reduce_scatter(gradients))
        self.payload_bytes += gradients.nbytes

    def finish_gradients(self) -> None:
        """Wait until the gradients of this rank's pieces are the sums over all ranks."""
        while self._unstarted:
            self._start_sum()
        while self._sums:
            self._sums.popleft().wait()

    def gather_weights(self) -> None:
        """Start to replace the other ranks' pieces of the weights by the updated ones."""
        for number, group in enumerate(self._groups):
            self._gathers.append((number, self.ranks.start_all_gather(group.weights)))
            self.payload_bytes += group.weights.nbytes

    def wait_for_weights(self, last: int | None = None) -> None:
        """Wait for the groups up to number `last`, or for all."""
        while self._gathers and (last is None or self._gathers[0][0] <= last):
            self._gathers.popleft()[1].wait()

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Tensor]:
        """Return the optimizer's state of all ranks, as one that trains alone has it.

        All ranks must call it. Rank 0 gets the tensors, the others get an empty dictionary.
        """
        if not self._groups:
            return optimizer.state_dict()
        state = {"steps": torch.tensor(optimizer.steps)}
        for name, (stack, own) in optimizer.state.items():
            row = own.shape[1:] if stack.has_whole_parameters else stack.shape
            shape = torch.Size((len(stack.names), *row))
            pieces = own.new_empty(self.ranks.world, own[0].numel())
            whole = torch.empty(len(own) * self.ranks.is_first, *pieces.shape, dtype=own.dtype)
            # A group at a time: a GPU may have no room for a whole stack.
            for group, piece in enumerate(own):
                pieces[self.ranks.rank] = piece.flatten()
                self.ranks.start_all_gather(pieces).wait()
                if self.ranks.is_first:
                    whole[group] = pieces
            if self.ranks.is_first:
                state[name] = whole.flatten()[: shape.numel()].view(shape)
        return state if self.ranks.is_first else {}

    def norms(self) -> dict[str, dict[str, float]]:
        """Return the norms `gradient` and `weights` of each parameter, by name.

        All ranks must call it, when the gradients are summed.
        """
        norms: dict[str, dict[str, float]] = {}
        for stack in self.parameters.stacks:
            squares = self.ranks.sum(_square_norms(stack))
            weights = torch.linalg.vector_norm(stack.stacked(stack.all_weights).flatten(1), dim=1)
            pairs = zip(squares.sqrt().tolist(), weights.tolist(), strict=True)
            for name, (gradient, weight) in zip(stack.names, pairs, strict=True):
                norms[name] = {"gradient": gradient, "weights": weight}
        return norms


def _groups_of(stack: Stack, names: list[str]) -> list[Group]:
    """Return the groups of a stack; `names` are those of all parameters, in order."""
    groups = []
    numbers = stack.shape.numel()
    for index, (weights, gradients) in enumerate(
        zip(stack.all_weights, stack.all_gradients, strict=True)
    ):
        begin, end = index * weights.numel(), (index + 1) * weights.numel()
        members = stack.names[begin // numbers : -(-end // numbers)]
        positions = frozenset(names.index(name) for name in members)
        groups.append(Group(weights, gradients, positions))
    return groups


def _square_norms(stack: Stack) -> Tensor:
    """Return the squared norm of what this rank holds of each parameter's gradient, [n] float64."""
    own, (_, ranks, size) = stack.gradients, stack.all_gradients.shape
    squares = torch.zeros(len(stack.names), dtype=torch.float64, device=own.device)
    if stack.has_whole_parameters:
        mine = squares[stack.rank :: ranks]
        mine += torch.linalg.vector_norm(own.flatten(1), dim=1)[: len(mine)].double() ** 2
        return squares
    numbers = stack.shape.numel()
    for group, piece in enumerate(own):
        begin = (group * ranks + stack.rank) * size
        # Cut where the next parameter begins.
        for member in range(begin // numbers, min(len(squares), -(-(begin + size) // numbers))):
            part = piece[max(0, member * numbers - begin) : (member + 1) * numbers - begin]
            squares[member] += torch.linalg.vector_norm(part).double() ** 2
    return squares
