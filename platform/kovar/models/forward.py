"""What a forward pass allocates and what autograd keeps of it, written down without running it.

A `Recording` lists operations with the tensors that they read, write and save for the backward
pass, each as a number of bytes that is linear in the tokens of the batch; the length of a row is
fixed. What an operation saves is taken from torch's derivatives.yaml
(https://github.com/pytorch/pytorch/blob/main/tools/autograd/derivatives.yaml) and held against
`torch.autograd.graph.saved_tensors_hooks` by the tests. models/recorder.py records whole models,
models/liveness.py finds the moment at which the most is alive.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Final, Literal, NamedTuple

from kovar.models.size import Linear, LoraShape

FP32_BYTES: Final = 4
BF16_BYTES: Final = 2
INT64_BYTES: Final = 8

NORM_STATISTICS_BYTES: Final = 8
"""Mean and reciprocal deviation of each normalized row, in fp32."""

# By name in config.json: what is saved, the input or the output.
ACTIVATIONS: Final[dict[str, Literal["input", "output"]]] = {
    "gelu": "input",
    "gelu_new": "input",
    "gelu_pytorch_tanh": "input",
    "relu": "output",
    "silu": "input",
    "swish": "input",
    "tanh": "output",
}

DeviceKind = Literal["cpu", "cuda", "xla"]


class Bytes(NamedTuple):
    """A number of bytes: `fixed + per_token × tokens`."""

    fixed: float = 0.0
    per_token: float = 0.0

    def plus(self, other: Bytes) -> Bytes:
        """Return the sum."""
        return Bytes(self.fixed + other.fixed, self.per_token + other.per_token)

    def times(self, factor: float) -> Bytes:
        """Return a multiple."""
        return Bytes(self.fixed * factor, self.per_token * factor)

    def at(self, num_tokens: float) -> float:
        """Return the bytes of a batch of so many tokens."""
        return self.fixed + self.per_token * num_tokens


NOTHING: Final = Bytes()


def total(sizes: Iterable[Bytes]) -> Bytes:
    """Return the sum of any number of sizes."""
    return reduce(Bytes.plus, sizes, NOTHING)


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """Number formats of a pass.

    Args:
        weight_bytes: bytes of one weight, and of the stream between matrices.
        matrix_bytes: bytes of what matrices are multiplied in; fewer than `weight_bytes` under
            autocast, which casts inputs and weights anew for each matrix.
    """

    weight_bytes: int
    matrix_bytes: int

    @property
    def autocast(self) -> bool:
        """Whether matrices work on copies."""
        return self.matrix_bytes < self.weight_bytes

    @classmethod
    def training(cls, precision: str, weights: str = "fp32") -> Arithmetic:
        """Return what the engine does: fp32 weights and autocast below fp32, or all in bf16."""
        if weights == "bf16":
            return cls(BF16_BYTES, BF16_BYTES)
        return cls(FP32_BYTES, FP32_BYTES if precision in ("fp32", "tf32") else 2)

    @classmethod
    def serving(cls, precision: str) -> Arithmetic:
        """Return what a runtime does: everything in one format."""
        size = FP32_BYTES if precision in ("fp32", "tf32") else 2
        return cls(size, size)


@dataclass(eq=False, slots=True)
class Value:
    """One tensor of the pass.

    Args:
        size: its bytes.
        itemsize: bytes of one element.
        needs_grad: whether the backward pass reaches it.
        cached: whether autocast holds it until the pass ends.
        base: the tensor that it is a view of.
    """

    size: Bytes
    itemsize: int
    needs_grad: bool
    cached: bool = False
    base: Value | None = None

    @property
    def root(self) -> Value:
        """The tensor that owns the memory."""
        return self if self.base is None else self.base.root


@dataclass(eq=False, slots=True)
class Operation:
    """One step of the pass.

    Args:
        inputs: tensors that it reads and sends gradients to.
        output: the tensor that it writes.
        saved: tensors that autograd keeps until its backward step.
        gradient_bytes: gradients of weights that its backward step makes for the first time.
        forward_scratch: bytes that it needs besides, while it runs.
        backward_scratch: the same for its backward step.
        passes_gradient: the output's gradient becomes that of inputs of its format, uncopied.
        holds: tensors that Python still refers to, though nothing reads them any more.
    """

    inputs: tuple[Value, ...]
    output: Value
    saved: tuple[Value, ...] = ()
    gradient_bytes: float = 0.0
    forward_scratch: Bytes = NOTHING
    backward_scratch: Bytes = NOTHING
    passes_gradient: bool = False
    holds: tuple[Value, ...] = ()


@dataclass
class Recording:
    """Operations in the order of the forward pass.

    Args:
        length: tokens of each row.
        arithmetic: number formats.
        device: decides how attention and dropout are computed.
        training: whether dropout is active and a backward pass follows.
        lora: trains adapters and the classifier in place of all weights.
        recomputes: whether blocks keep their input alone and are computed again in the backward
            pass.
        operations: what has been recorded.
        blocks: of each block, its first operation and the one after its last.
        held: tensors that the caller refers to until the backward pass has ended.
    """

    length: int
    arithmetic: Arithmetic
    device: DeviceKind
    training: bool
    lora: LoraShape | None = None
    recomputes: bool = False
    operations: list[Operation] = field(default_factory=list)
    blocks: list[range] = field(default_factory=list)
    held: list[Value] = field(default_factory=list)
    _with_gradient: set[object] = field(default_factory=set)
    _copies: dict[object, Value] = field(default_factory=dict)

    @property
    def trains_all(self) -> bool:
        """Whether every weight gets a gradient."""
        return self.training and self.lora is None

    def tokens(self, width: float, itemsize: int, *, needs_grad: bool = True) -> Value:
        """Return a tensor with so many elements for each token."""
        return Value(Bytes(0.0, width * itemsize), itemsize, needs_grad and self.training)

    def add(self, operation: Operation) -> Value:
        """Append an operation and return its output."""
        self.operations.append(operation)
        return operation.output

    def embed(self, num_parameters: int, width: int, *, tied: int = 0) -> Value:
        """Look rows of tables up and add them; the ids are kept for the gradient.

        Args:
            num_parameters: of all tables.
            width: features of a row.
            tied: parameters of a table that is the last layer's matrix, too: that one's gradient
                is there by then, and another one is added to it.
        """
        grad = self.trains_all
        size = self.arithmetic.weight_bytes
        # Blocks that are computed again need an input with a gradient.
        output = self.tokens(width, size, needs_grad=grad or self.recomputes)
        second = Bytes(tied * self._gradient_size) if grad else NOTHING
        ids = self.tokens(1, INT64_BYTES, needs_grad=False)
        return self.add(
            Operation(
                (ids,),
                output,
                saved=(ids,) if grad else (),
                gradient_bytes=(num_parameters - tied) * self._gradient_size if grad else 0,
                # The sum so far and the next table's rows.
                forward_scratch=output.size,
                backward_scratch=second,
            )
        )

    def linear(self, x: Value, linear: Linear, *, trained: bool, key: object = None) -> Value:
        """Multiply with a matrix, and with an adapter where there is one.

        Args:
            x: the input.
            linear: the matrix.
            trained: whether its weights get a gradient.
            key: names weights that are used more than once.
        """
        itemsize = self.arithmetic.matrix_bytes
        read = self.cast(x)
        grad = x.needs_grad or trained
        width = x.size.per_token / x.itemsize * linear.num_out / linear.num_in
        output = self.tokens(width, itemsize, needs_grad=grad)
        saved = [read] if trained else []
        scratch = backward = NOTHING
        if self.arithmetic.autocast:
            # Autocast caches copies of weights that need a gradient; others last for one product.
            copy = Bytes(linear.num_parameters * itemsize)
            weight = Value(copy, itemsize, needs_grad=False, cached=trained)
            if trained and key is not None:
                weight = self._copies.setdefault(key, weight)
            saved += [weight] if x.needs_grad or trained else []
            scratch = copy if not saved else NOTHING
            backward = copy if trained else NOTHING
        inputs = (read,)
        gradient = self._once(key, linear.num_parameters * self._gradient_size) if trained else 0.0
        return self.add(
            Operation(
                inputs,
                output,
                saved=tuple(saved),
                gradient_bytes=gradient,
                forward_scratch=scratch,
                backward_scratch=backward,
            )
        )

    def adapted(
        self, x: Value, linear: Linear, defaults: tuple[str, ...], *, key: object = None
    ) -> Value:
        """Multiply with a matrix of a layer: trained, or frozen with an adapter if LoRA says so."""
        output = self.linear(x, linear, trained=self.trains_all, key=key)
        if self.lora is None or not self.lora.adapts(linear, defaults):
            return output
        rank, name = self.lora.rank, linear.name
        first = Linear(f"{name}.lora_A", linear.num_in, rank, bias=False)
        second = Linear(f"{name}.lora_B", rank, linear.num_out, bias=False)
        # peft gives adapters an input of their own format, whatever autocast makes of it then.
        own = x
        if x.itemsize < FP32_BYTES:
            wide = x.size.times(FP32_BYTES / x.itemsize)
            own = self.add(Operation((x,), Value(wide, FP32_BYTES, x.needs_grad)))
        low = self.dropout(own, self.lora.dropout)
        low = self.linear(low, first, trained=True, key=(key, "A") if key else None)
        high = self.linear(low, second, trained=True, key=(key, "B") if key else None)
        scaled = self.elementwise(high)
        return self.sum(output, scaled, holds=(x, own))

    @property
    def _gradient_size(self) -> int:
        """Bytes of one weight's gradient: adapters are in fp32 whatever their base is."""
        return self.arithmetic.weight_bytes if self.trains_all else FP32_BYTES

    def cast(self, x: Value) -> Value:
        """Return a tensor in the format that matrices are multiplied in."""
        itemsize = self.arithmetic.matrix_bytes
        if x.itemsize == itemsize:
            return x
        factor = itemsize / x.itemsize
        return self.add(Operation((x,), Value(x.size.times(factor), itemsize, x.needs_grad)))

    def _once(self, key: object, num_bytes: float) -> float:
        """Return the bytes of a gradient unless this key's gradient exists by then.

        The backward pass runs from the end, but which use of shared weights pays does not matter
        much: one layer's gradients are small beside the rest.
        """
        if key is None:
            return num_bytes
        if key in self._with_gradient:
            return 0.0
        self._with_gradient.add(key)
        return num_bytes

    def dropout(self, x: Value, probability: float) -> Value:
        """Multiply with a random mask: of bytes, but of `x`'s format on TPUs."""
        if not (self.training and probability):
            return x
        mask = self.mask(x)
        output = Value(x.size, x.itemsize, x.needs_grad)
        return self.add(
            Operation(
                (x,),
                output,
                saved=(mask,) if x.needs_grad else (),
                forward_scratch=self._words(mask),
            )
        )

    def mask(self, x: Value) -> Value:
        """Return which elements stay."""
        factor = 1.0 if self.device == "xla" else 1 / x.itemsize
        return Value(x.size.times(factor), x.itemsize, needs_grad=False)

    def _words(self, mask: Value) -> Bytes:
        """Return the random numbers that a mask is made of: two bytes each (models/dropout.py)."""
        return mask.size.times(2) if self.device == "cpu" else NOTHING

    def normalize(self, x: Value, num_parameters: int, width: int, *, key: object = None) -> Value:
        """Normalize the `width` features of each token; `key` names weights used more than once."""
        trained = self.trains_all
        grad = x.needs_grad or trained
        output = Value(x.size, x.itemsize, grad)
        per_token = x.size.per_token / x.itemsize / width * NORM_STATISTICS_BYTES
        statistics = Value(Bytes(0.0, per_token), FP32_BYTES, needs_grad=False)
        return self.add(
            Operation(
                (x,),
                output,
                saved=(x, statistics) if grad else (),
                gradient_bytes=self._once(key, num_parameters * self._gradient_size)
                if trained
                else 0.0,
            )
        )

    def normalize_by_squares(
        self,
        x: Value,
        num_parameters: int,
        width: int,
        *,
        key: object = None,
        keeps_format: bool = False,
    ) -> Value:
        """RMSNorm as transformers computes it: in fp32, one operation after the other.

        Args:
            x: the input.
            num_parameters: weights.
            width: features of what is normalized together.
            key: names weights that are used more than once.
            keeps_format: whether the weights multiply in fp32 and the product has the input's
                format; else they multiply what has the input's format.
        """
        trained = self.trains_all
        wide = x.size.times(FP32_BYTES / x.itemsize)
        squared = x if x.itemsize == FP32_BYTES else Value(wide, FP32_BYTES, needs_grad=False)
        scales = x.size.per_token / x.itemsize / width * FP32_BYTES
        deviation = Value(Bytes(0.0, scales), FP32_BYTES, needs_grad=False)
        inner = FP32_BYTES if keeps_format else x.itemsize
        normed = Value(wide.times(inner / FP32_BYTES), inner, needs_grad=False)
        itemsize = x.itemsize if keeps_format else max(x.itemsize, self.arithmetic.weight_bytes)
        output = Value(wide.times(itemsize / FP32_BYTES), itemsize, x.needs_grad or trained)
        saved = (*((squared, deviation) if x.needs_grad else ()), *((normed,) if trained else ()))
        scratch = NOTHING if normed in saved else normed.size
        if squared is not x and squared not in saved:
            scratch = scratch.plus(wide)
        gradient = num_parameters * self._gradient_size if trained else 0
        return self.add(
            Operation(
                (x,),
                output,
                saved=saved,
                gradient_bytes=self._once(key, gradient),
                forward_scratch=scratch,
                backward_scratch=wide.times(2),
            )
        )

    def activate(self, x: Value, name: str) -> Value:
        """Apply an activation function of `ACTIVATIONS`."""
        if name == "gelu_new":
            return self._activate_in_python(x)
        output = Value(x.size, x.itemsize, x.needs_grad)
        saved = (x if ACTIVATIONS[name] == "input" else output,)
        return self.add(Operation((x,), output, saved=saved if x.needs_grad else ()))

    def _activate_in_python(self, x: Value) -> Value:
        """`gelu_new`: 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))), each product saving a factor.

        Autocast for CUDA raises to powers in fp32, so there all but 0.5 x becomes fp32
        (https://docs.pytorch.org/docs/stable/amp.html#cuda-ops-that-autocast-to-float32).
        """
        widens = self.arithmetic.autocast and self.device == "cuda"
        itemsize = FP32_BYTES if widens else x.itemsize
        wide = x.size.times(itemsize / x.itemsize)
        output = Value(wide, itemsize, x.needs_grad)
        base, tanh, shifted = (Value(wide, itemsize, needs_grad=False) for _ in range(3))
        half = Value(x.size, x.itemsize, needs_grad=False)
        saved = (base, tanh, shifted, half)
        return self.add(
            Operation(
                (x,),
                output,
                saved=saved if x.needs_grad else (),
                forward_scratch=wide.times(1 if x.needs_grad else 4),
                backward_scratch=wide.times(2),
            )
        )

    def elementwise(self, x: Value) -> Value:
        """Multiply with a number: a new tensor, nothing saved."""
        return self.add(Operation((x,), Value(x.size, x.itemsize, x.needs_grad)))

    def sum(self, x: Value, y: Value, *, holds: Sequence[Value] = ()) -> Value:
        """Add two tensors; nothing is saved, and the gradient goes to both as it is."""
        wide = x if x.itemsize >= y.itemsize else y
        output = Value(wide.size, wide.itemsize, x.needs_grad or y.needs_grad)
        return self.add(Operation((x, y), output, passes_gradient=True, holds=tuple(holds)))

    def gate(self, x: Value, gate: Value) -> Value:
        """Multiply two tensors, both of which are saved."""
        needs_grad = x.needs_grad or gate.needs_grad
        output = Value(x.size, x.itemsize, needs_grad)
        return self.add(Operation((x, gate), output, saved=(x, gate) if needs_grad else ()))

    def view(self, x: Value, share: float) -> Value:
        """Return a part of a tensor, which keeps the whole of it alive; its gradient is whole."""
        output = Value(x.size.times(share), x.itemsize, x.needs_grad, base=x.root)
        return self.add(Operation((x,), output))
