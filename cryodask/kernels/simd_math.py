"""Division, roots, exponentials and logarithms of 16 float32 lanes, beside `simd`."""

import math
from collections.abc import Sequence
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core.cgutils import get_or_insert_function

from cryodask.kernels.simd import FAST, FLOATS, LANES, intrinsic, lanes

INTEGERS = ir.VectorType(ir.IntType(32), LANES)
LN2_HIGH = 0.693359375  # exact in 10 bits, so that its product with a small whole number is exact
LN2_LOW = math.log(2.0) - LN2_HIGH
TO_WHOLE = 12582912.0  # 1.5 * 2^23: adding it rounds a float32 to a whole number
EXPONENT_BITS = 23
LARGEST = 87.0


class _Lanes:
    """Writes arithmetic of vectors."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def number(self, value: float) -> Any:
        return ir.Constant(FLOATS, [value] * LANES)

    def whole(self, value: int) -> Any:
        return ir.Constant(INTEGERS, [value] * LANES)

    def add(self, a: Any, b: Any) -> Any:
        return self.builder.fadd(a, b, flags=FAST)

    def times(self, a: Any, b: Any) -> Any:
        return self.builder.fmul(a, b, flags=FAST)

    def over(self, a: Any, b: Any) -> Any:
        return self.builder.fdiv(a, b)

    def larger(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def smaller(self, a: Any, b: Any) -> Any:
        return self.builder.select(self.builder.fcmp_ordered("<", a, b), a, b)

    def polynomial(self, x: Any, coefficients: Sequence[float]) -> Any:
        """Evaluate by Horner's rule, the highest power first."""
        result = self.number(coefficients[0])
        for value in coefficients[1:]:
            result = self.add(self.times(result, x), self.number(value))
        return result


@intrinsic
def divide(typingctx: Any, first: Any, second: Any) -> Any:
    """Return the quotients."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fdiv(*args)

    return lanes(lanes, lanes), codegen


@intrinsic
def square_root(typingctx: Any, value: Any) -> Any:
    """Return the square roots."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        kind = ir.FunctionType(FLOATS, [FLOATS])
        return builder.call(get_or_insert_function(builder.module, kind, f"llvm.sqrt.v{LANES}f32"), args)

    return lanes(lanes), codegen


@intrinsic
def where_above(typingctx: Any, first: Any, second: Any, yes: Any, no: Any) -> Any:
    """Return `yes` in lanes where the first value is above the second, else `no`."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", args[0], args[1]), args[2], args[3])

    return lanes(lanes, lanes, lanes, lanes), codegen


@intrinsic
def exponential(typingctx: Any, value: Any) -> Any:
    """Return exp, within 2e-7 of itself; arguments are cut to +-87."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        of = _Lanes(builder)
        x = of.smaller(of.larger(args[0], of.number(-LARGEST)), of.number(LARGEST))
        shifted = builder.fadd(of.times(x, of.number(1 / math.log(2.0))), of.number(TO_WHOLE))
        n = builder.fsub(shifted, of.number(TO_WHOLE))
        rest = of.add(of.add(x, of.times(n, of.number(-LN2_HIGH))), of.times(n, of.number(-LN2_LOW)))
        series = of.polynomial(rest, [1 / math.factorial(k) for k in range(7, -1, -1)])
        power = builder.shl(builder.fptosi(n, INTEGERS), of.whole(EXPONENT_BITS))
        return builder.bitcast(builder.add(builder.bitcast(series, INTEGERS), power), FLOATS)

    return lanes(lanes), codegen


@intrinsic
def logarithm(typingctx: Any, value: Any) -> Any:
    """Return the natural logarithm of normal positive numbers, within 2e-7 of itself or of 1."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        of = _Lanes(builder)
        root_half = 0x3F3504F3  # bits of sqrt(1/2): the mantissa is taken between it and sqrt(2)
        bits = builder.sub(builder.bitcast(args[0], INTEGERS), of.whole(root_half))
        exponent = builder.ashr(bits, of.whole(EXPONENT_BITS))
        mantissa = builder.add(builder.and_(bits, of.whole((1 << EXPONENT_BITS) - 1)), of.whole(root_half))
        m, n = builder.bitcast(mantissa, FLOATS), builder.sitofp(exponent, FLOATS)
        s = of.over(of.add(m, of.number(-1.0)), of.add(m, of.number(1.0)))
        series = of.polynomial(of.times(s, s), [2 / 9, 2 / 7, 2 / 5, 2 / 3, 2.0])
        low = of.add(of.times(s, series), of.times(n, of.number(LN2_LOW)))
        return of.add(low, of.times(n, of.number(LN2_HIGH)))

    return lanes(lanes), codegen
