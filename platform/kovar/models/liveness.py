"""How much of a recorded pass is alive at each moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kovar.models.forward import Bytes, Operation, Recording, Value


@dataclass(frozen=True, slots=True)
class Alive:
    """What one moment of a pass holds beyond weights and optimizer.

    Args:
        activations: tensors of the pass, their gradients, and scratch.
        gradients: bytes of gradients of weights.
    """

    activations: Bytes
    gradients: float = 0.0

    def at(self, num_tokens: float) -> float:
        """Return all bytes for a batch of so many tokens."""
        return self.activations.at(num_tokens) + self.gradients


def training_moments(recording: Recording, *, gradients_stay: bool = False) -> tuple[Alive, ...]:
    """Return what is alive at each step of a forward and a backward pass.

    Args:
        recording: the forward pass.
        gradients_stay: whether gradients live in buckets that are never freed, as under
            DistributedDataParallel.
    """
    everything = sum(operation.gradient_bytes for operation in recording.operations)
    stay = everything if gradients_stay else 0.0
    forward = _forward(recording.operations, keeps_saved=True)
    moments = [Alive(activations, stay) for activations in forward]
    moments += _backward(recording.operations, stay)
    return _largest([*moments, Alive(Bytes(), everything)])


def inference_moments(recording: Recording) -> tuple[Alive, ...]:
    """Return what is alive at each step of a forward pass that nothing follows."""
    forward = _forward(recording.operations, keeps_saved=False)
    return _largest([Alive(activations) for activations in forward])


def saved_bytes(recording: Recording) -> Bytes:
    """Return what autograd keeps when the forward pass ends."""
    roots = {value.root for operation in recording.operations for value in operation.saved}
    return _total(roots)


def _total(values: Iterable[Value]) -> Bytes:
    total = Bytes()
    for value in values:
        total = total.plus(value.size)
    return total


@dataclass(frozen=True, slots=True)
class Change:
    """What one operation of the forward pass creates and what is freed after it."""

    operation: Operation
    born: tuple[Value, ...]
    dead: tuple[Value, ...]


def changes(operations: Sequence[Operation], *, keeps_saved: bool) -> tuple[Change, ...]:
    """Follow the tensors of a forward pass, in the order in which they are created.

    Args:
        operations: the pass.
        keeps_saved: whether a backward pass follows; without one only the copies that autocast
            caches stay until the end.
    """
    last_use: dict[Value, int] = {}
    kept: set[Value] = set()
    for index, operation in enumerate(operations):
        kept.update(one.root for one in operation.saved if keeps_saved or one.cached)
        for value in (*operation.inputs, *operation.holds, operation.output):
            last_use[value.root] = index
    dead: list[list[Value]] = [[] for _ in operations]
    for value, index in last_use.items():
        if value not in kept:
            dead[index].append(value)
    seen: set[Value] = set()
    found = []
    for operation, dying in zip(operations, dead, strict=True):
        roots = (
            *(value.root for value in operation.inputs),
            *(value.root for value in operation.saved if value.root in kept),
            operation.output.root,
        )
        born = tuple(root for root in dict.fromkeys(roots) if root not in seen)
        seen.update(born)
        found.append(Change(operation, born, tuple(dying)))
    return tuple(found)


def _forward(operations: Sequence[Operation], *, keeps_saved: bool) -> list[Bytes]:
    total = Bytes()
    moments = []
    for change in changes(operations, keeps_saved=keeps_saved):
        total = total.plus(_total(change.born))
        moments.append(total.plus(change.operation.forward_scratch))
        total = total.plus(_total(change.dead).times(-1))
    return moments


def _backward(operations: Sequence[Operation], stay: float) -> list[Alive]:
    """Walk back: saved tensors go, gradients come.

    A tensor's gradient is a buffer that several tensors may share, as the two sides of a sum do.
    """
    users = Counter(root for one in operations for root in {value.root for value in one.saved})
    saved = _total(users)
    buffers: dict[Value, Value] = {}
    moments: list[Alive] = []
    gradients = 0.0
    for operation in reversed(operations):
        if not operation.output.needs_grad:
            continue
        incoming = buffers.pop(operation.output, None) or operation.output
        targets = [value for value in operation.inputs if value.needs_grad]
        fresh: list[Value] = []
        for value in targets:
            if operation.passes_gradient and value.itemsize == operation.output.itemsize:
                buffer = incoming
            else:
                buffer = Value(value.size, value.itemsize, needs_grad=False)
            fresh.append(buffer)
            # What meets a gradient that exists is added to it.
            buffers.setdefault(value, buffer)
        gradients += operation.gradient_bytes
        alive = {incoming, *fresh, *buffers.values()}
        activations = saved.plus(_total(alive)).plus(operation.backward_scratch)
        own = operation.gradient_bytes if stay else 0.0
        moments.append(Alive(activations, stay + own if stay else gradients))
        for root in {value.root for value in operation.saved}:
            users[root] -= 1
            if not users[root]:
                saved = saved.plus(root.size.times(-1))
    return moments


def _largest(moments: Sequence[Alive]) -> tuple[Alive, ...]:
    """Keep the moments that are the largest for some number of tokens: an upper envelope."""
    best: list[Alive] = []
    for moment in sorted(
        moments,
        key=lambda one: (one.activations.per_token, one.activations.fixed + one.gradients),
        reverse=True,
    ):
        fixed = moment.activations.fixed + moment.gradients
        if not best or fixed > best[-1].activations.fixed + best[-1].gradients:
            best.append(moment)
    return tuple(best)
