"""Decorators for functions that numba compiles, made so that a fresh machine compiles little.

    @kernel                                # called from Python, and from other kernels
    def count(data): ... _next(data, i)

    @helper                                # called from kernels only
    def _next(data, i): ...

numba compiles a function again for each combination of types that it is called with. An offset of
Arrow is an int32, a sum of two is an int64, and a 0 is a type of its own. Kernels compute with
int64 anyway. So calls from kernels pass all signed whole numbers as int64, and a function is
compiled once. What only other programs need is left out: the entry from C, and for helpers that
from Python. Kernels copy in loops: where an array is assigned to a slice, numba compiles the text
of the error for other shapes, and with it two seconds of functions of strings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba import types

_BITS = 64
_njit: Any = numba.njit
_Dispatcher: Any = type(_njit(lambda: None))


class Kernel(_Dispatcher):
    """A compiled function; it lets go of the GIL."""

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Return how numba calls this function from another one, by the types of arguments."""
        return super().get_call_template(tuple(map(_widened, args)), kws)


class Helper(Kernel):
    """A compiled function that has no entry from Python."""

    def __call__(self, *_: Any) -> Any:
        """Refuse: numba would crash."""
        raise TypeError(f"{self.py_func.__name__} can be called from compiled functions only")


def _widened(argument: Any) -> Any:
    plain: Any = types.unliteral(argument)
    is_number = isinstance(plain, types.Integer)
    return types.int64 if is_number and plain.signed and plain.bitwidth < _BITS else plain


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function with numba, and cache it on disk."""
    return _compiled(Kernel, function)


def helper(function: Callable[..., Any]) -> Any:
    """Compile a function for kernels, and cache it on disk."""
    return _compiled(Helper, function, no_cpython_wrapper=True)


def inlined(function: Callable[..., Any]) -> Any:
    """Compile a function into the kernels that call it: the call costs more than what it does."""
    return _compiled(Helper, function, no_cpython_wrapper=True, forceinline=True)


def _compiled(kind: type[Kernel], function: Callable[..., Any], **options: bool) -> Any:
    compiled = _njit(nogil=True, cache=True, no_cfunc_wrapper=True, **options)(function)
    # A version of numba that does not ask for templates compiles more, to the same outcome.
    if hasattr(compiled, "get_call_template"):
        compiled.__class__ = kind
    return compiled
