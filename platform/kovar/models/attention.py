"""What scaled dot-product attention allocates and keeps, on each kind of device."""

from __future__ import annotations

from kovar.models.forward import FP32_BYTES, NOTHING, Operation, Recording, Value, total


def attend(
    tape: Recording,
    query: Value,
    key: Value,
    value: Value,
    *,
    num_heads: int,
    dropout: float,
    masked: bool = True,
) -> Value:
    """Record scaled dot-product attention.

    A GPU takes a fused kernel; so does a CPU without dropout. The others form all products of
    queries and keys, in fp32.

    Args:
        tape: where it is recorded.
        query: of all heads.
        key: of as many heads as the queries have, or under no mask of fewer.
        value: as the keys.
        num_heads: of the queries.
        dropout: of the attention weights.
        masked: whether there is a mask of padding; without one each token sees those before it,
            which needs no mask.
    """
    drops = tape.training and dropout > 0
    grad = query.needs_grad or key.needs_grad or value.needs_grad
    if tape.device == "cuda" or (tape.device == "cpu" and not drops):
        return _attend_fused(tape, query, key, value, num_heads, masked=masked, grad=grad)
    if tape.device == "cpu" and masked:
        return _attend_on_cpu(tape, query, key, value, num_heads, grad=grad)
    return _attend_plainly(tape, query, key, value, num_heads, dropout, grad=grad)


def _attend_fused(
    tape: Recording,
    query: Value,
    key: Value,
    value: Value,
    num_heads: int,
    *,
    masked: bool,
    grad: bool,
) -> Value:
    """Flash or memory-efficient attention (https://arxiv.org/abs/2205.14135)."""
    output = Value(query.size, query.itemsize, grad)
    sums = tape.tokens(num_heads, FP32_BYTES, needs_grad=False)
    # The boolean mask becomes a bias of the queries' format, one for all heads.
    bias = tape.tokens(tape.length, query.itemsize, needs_grad=False)
    besides = (sums, bias) if masked else (sums,)
    saved = (query, key, value, output, *besides) if grad else ()
    scratch = NOTHING if grad else total(one.size for one in besides)
    return tape.add(Operation((query, key, value), output, saved=saved, forward_scratch=scratch))


def _attend_on_cpu(
    tape: Recording, query: Value, key: Value, value: Value, num_heads: int, *, grad: bool
) -> Value:
    """Attention with dropout, as models/dropout.py computes it."""
    products = tape.tokens(num_heads * tape.length, query.itemsize, needs_grad=False)
    softmax = tape.tokens(num_heads * tape.length, FP32_BYTES, needs_grad=False)
    mask = tape.mask(softmax)
    scaled_query, copied_key, copied_value = (
        Value(x.size, x.itemsize, needs_grad=False) for x in (query, key, value)
    )
    weights = Value(products.size, products.itemsize, needs_grad=False)
    scored = query.needs_grad or key.needs_grad
    saved = (
        *([scaled_query] if key.needs_grad else []),
        *([copied_key] if query.needs_grad else []),
        *([copied_value, softmax, mask] if scored else []),
        *([weights] if value.needs_grad else []),
    )
    # Besides: the products, in two formats under autocast, and the output before its copy.
    besides = softmax.size.plus(products.size)
    return tape.add(
        Operation(
            (query, key, value),
            Value(query.size, query.itemsize, grad),
            saved=saved if grad else (),
            forward_scratch=besides.plus(query.size),
            backward_scratch=besides.plus(query.size),
        )
    )


def _attend_plainly(
    tape: Recording,
    query: Value,
    key: Value,
    value: Value,
    num_heads: int,
    dropout: float,
    *,
    grad: bool,
) -> Value:
    scaled_query, scaled_key, wide_value = (
        Value(x.size.times(FP32_BYTES / x.itemsize), FP32_BYTES, needs_grad=False)
        for x in (query, key, value)
    )
    products = tape.tokens(num_heads * tape.length, FP32_BYTES, needs_grad=False)
    softmax, mask, weights = (Value(products.size, FP32_BYTES, needs_grad=False) for _ in range(3))
    drops = tape.training and dropout > 0
    scored = query.needs_grad or key.needs_grad
    saved = [
        *([scaled_query] if key.needs_grad else []),
        *([scaled_key] if query.needs_grad else []),
        *([wide_value, softmax, *([mask] if drops else [])] if scored else []),
        *([weights if drops else softmax] if value.needs_grad else []),
    ]
    # Besides: the products before softmax; in the backward pass the gradient of what has just
    # been read, and that of the scaled queries.
    besides = products.size.plus(scaled_query.size)
    forward = besides
    for one in (scaled_key, wide_value, softmax):
        forward = forward if one in saved else forward.plus(one.size)
    return tape.add(
        Operation(
            (query, key, value),
            Value(query.size, query.itemsize, grad),
            saved=tuple(dict.fromkeys(saved)) if grad else (),
            forward_scratch=forward,
            backward_scratch=besides,
        )
    )
