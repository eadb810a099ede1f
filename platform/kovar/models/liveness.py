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


def _forward(operations: Sequence[Operation], *, keeps_saved: bool) -> list[Bytes]:
    last_use: dict[Value, int] = {}
    for index, operation in enumerate(operations):
        for value in (*operation.inputs, *operation.holds, operation.output):
            last_use[value.root] = index
    kept: set[Value] = set()
    alive: set[Value] = set()
    total = Bytes()
    moments = []
    for index, operation in enumerate(operations):
        new = {value.root for value in (*operation.inputs, operation.output)}
        if keeps_saved:
            saved = {value.root for value in operation.saved}
            kept |= saved
            new |= saved
        else:
            # Copies that autocast caches stay until the pass ends.
            cached = {value for value in operation.saved if value.cached}
            kept |= cached
            new |= cached
        for value in new - alive:
            total = total.plus(value.size)
        alive |= new
        moments.append(total.plus(operation.forward_scratch))
        for value in [v for v in alive if v not in kept and last_use.get(v, -1) <= index]:
            alive.remove(value)
            total = total.plus(value.size.times(-1))
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
