"""How much of a recorded pass is alive at each moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kovar.models.forward import Bytes, Operation, Recording, Value, total


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
    forward = _forward(changes(recording, keeps_saved=True))
    moments = [Alive(activations, stay) for activations in forward]
    backward = _Backward(recording, stay)
    backward.run()
    return _largest([*moments, *backward.moments, Alive(Bytes(), everything)])


def inference_moments(recording: Recording) -> tuple[Alive, ...]:
    """Return what is alive at each step of a forward pass that nothing follows."""
    forward = _forward(changes(recording, keeps_saved=False))
    return _largest([Alive(activations) for activations in forward])


def saved_bytes(recording: Recording) -> Bytes:
    """Return what autograd keeps when the forward pass ends."""
    return _total(_kept(recording))


def _total(values: Iterable[Value]) -> Bytes:
    return total(value.size for value in values)


def _kept(recording: Recording) -> set[Value]:
    """Find what autograd keeps; of blocks that are computed again, their inputs."""
    operations = recording.operations
    kept = {operations[block.start].inputs[0].root for block in _recomputed(recording)}
    for index in _outside(recording):
        kept.update(value.root for value in operations[index].saved)
    return kept


def _recomputed(recording: Recording) -> Sequence[range]:
    return recording.blocks if recording.recomputes else ()


def _outside(recording: Recording) -> Iterator[int]:
    """List the operations whose saved tensors stay until the backward pass comes to them."""
    inside = {index for block in _recomputed(recording) for index in block}
    return (index for index in range(len(recording.operations)) if index not in inside)


@dataclass(frozen=True, slots=True)
class Change:
    """What one operation of the forward pass creates and what is freed after it."""

    operation: Operation
    born: tuple[Value, ...]
    dead: tuple[Value, ...]


def changes(recording: Recording, *, keeps_saved: bool) -> tuple[Change, ...]:
    """Follow the tensors of a forward pass, in the order in which they are created.

    Args:
        recording: the pass.
        keeps_saved: whether a backward pass follows; without one only the copies that autocast
            caches and what the caller holds stay until the end.
    """
    kept = {value.root for value in recording.held}
    if keeps_saved:
        kept |= _kept(recording)
    return _follow(recording.operations, kept, there=())


def _follow(
    operations: Sequence[Operation], kept: set[Value], *, there: Iterable[Value]
) -> tuple[Change, ...]:
    """Follow tensors through operations; those of `there` exist before."""
    last_use: dict[Value, int] = {}
    kept = kept | {one.root for operation in operations for one in operation.saved if one.cached}
    for index, operation in enumerate(operations):
        for value in (*operation.inputs, *operation.holds, operation.output):
            last_use[value.root] = index
    dead: list[list[Value]] = [[] for _ in operations]
    for value, index in last_use.items():
        if value not in kept:
            dead[index].append(value)
    seen = set(there)
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


def _forward(steps: Iterable[Change]) -> list[Bytes]:
    alive = Bytes()
    moments = []
    for change in steps:
        alive = alive.plus(_total(change.born))
        moments.append(alive.plus(change.operation.forward_scratch))
        alive = alive.plus(_total(change.dead).times(-1))
    return moments


class _Backward:
    """Walks back: saved tensors go, gradients come.

    A tensor's gradient is a buffer that several tensors may share, as the two sides of a sum do.
    """

    def __init__(self, recording: Recording, stay: float) -> None:
        self.moments: list[Alive] = []
        self._recording = recording
        self._stay = stay
        self._users: Counter[Value] = Counter()
        self._saved = Bytes()
        self._buffers: dict[Value, Value] = {}
        self._gradients = 0.0

    def run(self) -> None:
        """Walk from the last operation to the first."""
        operations = self._recording.operations
        starts = {block.stop - 1: block for block in _recomputed(self._recording)}
        self._keep(value.root for value in self._recording.held)
        for index in _outside(self._recording):
            self._keep({value.root for value in operations[index].saved})
        self._keep(operations[one.start].inputs[0].root for one in starts.values())
        index = len(operations) - 1
        while index >= 0:
            if (block := starts.get(index)) is not None:
                self._recompute(operations[block.start : block.stop])
                index = block.start
            else:
                self._step(operations[index])
            index -= 1

    def _recompute(self, block: Sequence[Operation]) -> None:
        """Compute a block again, then walk back through it."""
        incoming = block[0].inputs[0].root
        base = self._saved.plus(_total(set(self._buffers.values())))
        kept = {value.root for operation in block for value in operation.saved}
        for activations in _forward(_follow(block, kept | {incoming}, there=(incoming,))):
            gradients = self._stay or self._gradients
            self.moments.append(Alive(base.plus(activations), gradients))
        for operation in block:
            self._keep({value.root for value in operation.saved})
        for operation in reversed(block):
            self._step(operation)
        self._release([incoming])

    def _keep(self, roots: Iterable[Value]) -> None:
        for root in roots:
            if not self._users[root]:
                self._saved = self._saved.plus(root.size)
            self._users[root] += 1

    def _release(self, roots: Iterable[Value]) -> None:
        for root in roots:
            self._users[root] -= 1
            if not self._users[root]:
                self._saved = self._saved.plus(root.size.times(-1))

    def _step(self, operation: Operation) -> None:
        if not operation.output.needs_grad:
            return
        buffers = self._buffers
        incoming = buffers.pop(operation.output, None) or operation.output
        fresh: list[Value] = []
        for value in operation.inputs:
            if not value.needs_grad:
                continue
            if operation.passes_gradient and value.itemsize == operation.output.itemsize:
                buffer = incoming
            else:
                buffer = Value(value.size, value.itemsize, needs_grad=False)
            fresh.append(buffer)
            # What meets a gradient that exists is added to it.
            buffers.setdefault(value, buffer)
        self._gradients += operation.gradient_bytes
        alive = {incoming, *fresh, *buffers.values()}
        activations = self._saved.plus(_total(alive)).plus(operation.backward_scratch)
        own = operation.gradient_bytes if self._stay else 0.0
        gradients = self._stay + own if self._stay else self._gradients
        self.moments.append(Alive(activations, gradients))
        self._release({value.root for value in operation.saved})


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
