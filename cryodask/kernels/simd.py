"""A vector of 16 float32 lanes inside numba functions.

Numba leaves vectorisation to LLVM, which gives up on transforms in place. Here the vector is a type of its
own: ``load``, ``store``, ``fill``, ``+``, ``-`` and ``*`` become one instruction each (two with 256-bit
registers).
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import lower_builtin, models, register_model

# Its annotations describe the compiler's side of an intrinsic, not the call.
intrinsic: Any = numba_intrinsic

LANES = 16
ALIGNMENT = 64
FLOATS = ir.VectorType(ir.FloatType(), LANES)
FAST = ("contract", "nsz")


class Float32Lanes(types.Type):
    """The numba type of a vector."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


lanes = Float32Lanes()


@register_model(Float32Lanes)
class Float32LanesModel(models.PrimitiveModel):
    """A vector lives in a vector register."""

    def __init__(self, dmm: Any, fe_type: types.Type) -> None:
        super().__init__(dmm, fe_type, FLOATS)


class _TwoLanes(AbstractTemplate):
    def generic(self, args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
        return signature(lanes, lanes, lanes) if args == (lanes, lanes) and not kws else None


def _register(operation: Callable[..., Any], method: str) -> None:
    infer_global(operation)(type(f"Lanes_{method}", (_TwoLanes,), {}))

    @lower_builtin(operation, lanes, lanes)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, method)(*args, flags=FAST)


for _operation, _method in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _register(_operation, _method)


def _address(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    array = context.make_array(sig.args[0])(context, builder, args[0])
    return builder.gep(array.data, [args[1]])


@intrinsic
def load(typingctx: Any, array: Any, index: Any) -> Any:
    """Return 16 values of a contiguous float32 array from a flat index on."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.bitcast(_address(context, builder, sig, args), FLOATS.as_pointer())
        return builder.load(pointer, align=4)

    return lanes(array, types.intp), codegen


@intrinsic
def store(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Write 16 values to a contiguous float32 array from a flat index on."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.bitcast(_address(context, builder, sig, args), FLOATS.as_pointer())
        builder.store(args[2], pointer, align=4)

    return types.void(array, types.intp, lanes), codegen


@intrinsic
def stream(typingctx: Any, array: Any, index: Any, value: Any) -> Any:
    """Write 16 values past the caches; the address must be a multiple of 64 bytes."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        pointer = builder.bitcast(_address(context, builder, sig, args), FLOATS.as_pointer())
        instruction = builder.store(args[2], pointer, align=ALIGNMENT)
        one = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        instruction.set_metadata("nontemporal", one)

    return types.void(array, types.intp, lanes), codegen


@intrinsic
def fill(typingctx: Any, value: Any) -> Any:
    """Return a vector of 16 equal values."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        zero = ir.Constant(ir.IntType(32), 0)
        single = builder.insert_element(ir.Constant(FLOATS, ir.Undefined), args[0], zero)
        order = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(single, ir.Constant(FLOATS, ir.Undefined), order)

    return lanes(types.float32), codegen


@intrinsic
def where_greater(typingctx: Any, a: Any, b: Any, yes: Any, no: Any) -> Any:
    """Return, lane by lane, the value of one vector where a > b and of another elsewhere."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", args[0], args[1]), args[2], args[3])

    return lanes(lanes, lanes, lanes, lanes), codegen


@intrinsic
def larger(typingctx: Any, first: Any, second: Any) -> Any:
    """Return the larger of two values in each lane, the second where either is NaN."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return lanes(lanes, lanes), codegen


@intrinsic
def any_above(typingctx: Any, first: Any, second: Any) -> Any:
    """Say whether the first value is above the second in any lane."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(builder.fcmp_ordered(">", *args), ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(LANES), 0))

    return types.boolean(lanes, lanes), codegen


@intrinsic
def transpose(
    typingctx: Any, source: Any, start: Any, step: Any, target: Any, begin: Any, stride: Any
) -> Any:
    """Transpose 16 x 16 values: rows at start + i*step of one array to begin + i*stride of another."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        rows = []
        read = context.make_array(sig.args[0])(context, builder, args[0]).data
        write = context.make_array(sig.args[3])(context, builder, args[3]).data
        for i in range(LANES):
            index = builder.add(args[1], builder.mul(args[2], ir.Constant(args[2].type, i)))
            pointer = builder.bitcast(builder.gep(read, [index]), FLOATS.as_pointer())
            rows.append(builder.load(pointer, align=4))
        for i, row in enumerate(_transposed(builder, rows)):
            index = builder.add(args[4], builder.mul(args[5], ir.Constant(args[5].type, i)))
            pointer = builder.bitcast(builder.gep(write, [index]), FLOATS.as_pointer())
            builder.store(row, pointer, align=4)

    return types.void(source, types.intp, types.intp, target, types.intp, types.intp), codegen


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Exchange, for each bit, the off-diagonal blocks of that size."""
    integers = ir.VectorType(ir.IntType(32), LANES)
    width = LANES // 2
    while width:
        low = [i if not i & width else i - width + LANES for i in range(LANES)]
        high = [i + width if not i & width else i + LANES for i in range(LANES)]
        out = list(rows)
        for i in range(LANES):
            if not i & width:
                pair = rows[i], rows[i + width]
                out[i] = builder.shuffle_vector(*pair, ir.Constant(integers, low))
                out[i + width] = builder.shuffle_vector(*pair, ir.Constant(integers, high))
        rows = out
        width //= 2
    return rows


def aligned_empty(shape: tuple[int, ...]) -> np.ndarray:
    """Return an uninitialised float32 array that begins at a multiple of 64 bytes."""
    size = int(np.prod(shape))
    raw = np.empty(size + LANES, np.float32)
    begin = (-raw.ctypes.data % ALIGNMENT) // raw.itemsize
    return raw[begin : begin + size].reshape(shape)
