"""AISP for programs that use the low-level bindings of llama-cpp-python.

What `aisp_llama_glue.h` is to a C program: it hands ggml's functions to the library, and makes the
eval callback and the samplers. Nothing is compiled. Copy it into your program; beside `llama_cpp` it
needs the library that `make install` builds: the file that `AISP_LLAMA_LIBRARY` names, else the
one that the system finds.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import os
import sys
import weakref
from collections.abc import Callable, Sequence
from ctypes import (
    CFUNCTYPE,
    POINTER,
    c_bool,
    c_char_p,
    c_double,
    c_float,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint32,
    c_uint64,
    c_void_p,
)

import llama_cpp

EXACT, SAMPLER = 0, 1


class Error(Exception):
    """What the library says went wrong."""


class Options(ctypes.Structure):
    """`aisp_options`, with its defaults; `include/aisp_llama.h` explains the fields."""

    _fields_ = (
        ("size", c_size_t),
        ("model_path", c_char_p),
        ("tier", c_int),
        ("method", c_int),
        ("samples", c_uint32),
        ("iterations", c_uint32),
        ("horizon", c_uint32),
        ("seed", c_uint64),
        ("sigma", c_double),
        ("logit_sd", c_double),
        ("steer", c_double),
        ("elites", c_uint32),
        ("fresh", c_double),
        ("lambda_", c_double),
        ("ess", c_double),
        ("alpha", c_double),
        ("mask_past_end", c_int),
        ("null_candidate", c_int),
    )

    def __init__(self) -> None:
        super().__init__()
        _check(_options_init(self, ctypes.sizeof(self)))


class Report(ctypes.Structure):
    """`aisp_report`: what the last update said."""

    _fields_ = (
        ("size", c_size_t),
        ("iterations", c_uint32),
        ("best_reward", c_double),
        ("mean_reward", c_double),
        ("ess", c_double),
        ("lambda_", c_double),
        ("sigma", c_double),
        ("u_norm", c_double),
        ("kl", c_double),
        ("r2", c_double),
    )


class Run:
    """One alignment run: the search for the best response to one prompt.

    Methods raise `Error`. What goes wrong in the callback or in a sampler shows in the next call;
    so does an interrupt while llama.cpp is at work, as an `Error` where it came between two
    functions and Python could only print it.
    """

    def __init__(self, options: Options) -> None:
        self._handle = _create(options, _HOST)
        if self._handle is None:
            _check(-1)
        self.close = weakref.finalize(self, _free, self._handle)

    def begin(self) -> int:
        """Opens the next iteration: the number of its candidates, 0 after the last one."""
        return self._checked(_begin(self._handle))

    def bind(self, candidates: Sequence[int]) -> None:
        """Exact tier: the candidate of each output row of the next decode, -1 for none."""
        rows = (c_int32 * len(candidates))(*candidates)
        self._checked(_bind(self._handle, rows, len(candidates)))

    def reward(self, candidate: int, reward: float) -> None:
        """The reward of a finished candidate; NaN for one that could not be scored."""
        self._checked(_reward(self._handle, candidate, reward))

    def update(self) -> None:
        """Closes the iteration: learns from the candidates that have a reward."""
        self._checked(_update(self._handle))

    def best(self) -> tuple[list[int], float]:
        """Tokens and reward of the best candidate so far; without a reward, none and NaN."""
        tokens, count, reward = POINTER(c_int32)(), c_size_t(), c_double()
        self._checked(_best(self._handle, tokens, count, reward))
        return tokens[: count.value], reward.value

    def report(self) -> Report:
        report = Report(size=ctypes.sizeof(Report))
        self._checked(_telemetry(self._handle, report))
        return report

    def sampler(self, candidate: int) -> object:
        """The sampler of one candidate, put first in a chain that ends with the greedy one.

        The chain owns it, and may free it before or after the run ends.
        """
        return _new_sampler(self._handle, candidate)

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def _checked(self, status: int) -> int:
        return _check(status, self._handle)


class EvalCallback:
    """Exact tier: the `cparams.cb_eval` of a context, on behalf of the run that is current.

    Must live as long as the context. Python is called for every node of the graph.
    """

    def __init__(self, cparams: llama_cpp.llama_context_params) -> None:
        self.run: Run | None = None
        self._function = llama_cpp.ggml_backend_sched_eval_callback(_shielded(True, self._on_node))
        cparams.cb_eval = self._function

    def _on_node(self, node: int, ask: bool, _user_data: object) -> bool:
        if _node_name(node) != b"result_norm":
            return not ask
        count = _node_rows(node)
        if not ask and self.run is not None and count > 0:
            values = _node_elements(node)
            rows = (c_float * values)()
            size = ctypes.sizeof(rows)
            # None where the node is not made of floats: an error of the run.
            buffer = rows if _node_bytes(node) == size else None
            if buffer is not None:
                _tensor_get(node, buffer, 0, size)
            if _perturb(self.run._handle, buffer, count, values // count) == 0:
                _tensor_set(node, buffer, 0, size)
        # False would end the graph here.
        return True


# ---- the library ----

_Decode = CFUNCTYPE(c_int, c_int, c_void_p, c_void_p, c_int64)


class _Host(ctypes.Structure):
    _fields_ = (("size", c_size_t), ("decode", _Decode))


def _load() -> ctypes.CDLL:
    names = {"darwin": "libaisp_llama.dylib", "win32": "aisp_llama.dll"}
    return ctypes.CDLL(
        os.environ.get("AISP_LLAMA_LIBRARY") or names.get(sys.platform, "libaisp_llama.so")
    )


def _function(library: ctypes.CDLL, name: str, result: object, *arguments: object) -> object:
    return CFUNCTYPE(result, *arguments)((name, library))


def _aisp(verb: str, result: object, *arguments: object) -> object:
    return _function(_LIBRARY, f"aisp_{verb}", result, *arguments)


def prompt_seed(seed: int, tokens: list[int]) -> int:
    """The seed for a prompt of these tokens: runs of one seed are then independent draws."""
    return _prompt_seed(seed, (c_int32 * len(tokens))(*tokens), len(tokens))


_LIBRARY = _load()
_options_init = _aisp("options_init", c_int, POINTER(Options), c_size_t)
_prompt_seed = _aisp("prompt_seed", c_uint64, c_uint64, POINTER(c_int32), c_size_t)
_create = _aisp("create", c_void_p, POINTER(Options), POINTER(_Host))
_begin = _aisp("begin", c_int32, c_void_p)
_bind = _aisp("bind", c_int, c_void_p, POINTER(c_int32), c_size_t)
_perturb = _aisp("perturb", c_int, c_void_p, c_void_p, c_size_t, c_size_t)
_apply = _aisp("apply", c_int, c_void_p, c_int32, c_void_p, c_size_t)
_accept = _aisp("accept", c_int, c_void_p, c_int32, c_int32)
_reset = _aisp("reset", c_int, c_void_p, c_int32)
_reward = _aisp("reward", c_int, c_void_p, c_int32, c_double)
_update = _aisp("update", c_int, c_void_p)
_best = _aisp(
    "best", c_int, c_void_p, POINTER(POINTER(c_int32)), POINTER(c_size_t), POINTER(c_double)
)
_telemetry = _aisp("telemetry", c_int, c_void_p, POINTER(Report))
_free = _aisp("free", c_int, c_void_p)
_last_error = _aisp("last_error", c_char_p, c_void_p)


# What was raised in a callback, through which no exception passes.
_pending: list[BaseException] = []


def _check(status: int, handle: int | None = None) -> int:
    if _pending:
        raise _pending.pop(0)
    if status < 0:
        raise Error(_last_error(handle).decode("utf-8", "replace"))
    return status


def _shielded(otherwise: object, function: Callable) -> Callable:
    """`function` for C to call: an exception waits for `_check`, and `otherwise` is answered."""

    @functools.wraps(function)
    def shielded(*arguments: object) -> object:
        try:
            return function(*arguments)
        except BaseException as error:
            _pending.append(error)
            return otherwise

    return shielded


# ---- ggml, through the libllama that llama_cpp loaded ----


class _TypeTraits(ctypes.Structure):
    """`ggml_type_traits`, as far as it is read."""

    _fields_ = (
        ("type_name", c_char_p),
        ("blck_size", c_int64),
        ("blck_size_interleave", c_int64),
        ("type_size", c_size_t),
        ("is_quantized", c_bool),
        ("to_float", CFUNCTYPE(None, c_void_p, c_void_p, c_int64)),
    )


def _ggml(name: str, result: object, *arguments: object) -> object:
    return _function(llama_cpp.llama_cpp._lib, f"ggml_{name}", result, *arguments)


_type_traits = _ggml("get_type_traits", POINTER(_TypeTraits), c_int)
_node_name = _ggml("get_name", c_char_p, c_void_p)
_node_rows = _ggml("nrows", c_int64, c_void_p)
_node_elements = _ggml("nelements", c_int64, c_void_p)
_node_bytes = _ggml("nbytes", c_size_t, c_void_p)
_tensor_get = _ggml("backend_tensor_get", None, c_void_p, c_void_p, c_size_t, c_size_t)
_tensor_set = _ggml("backend_tensor_set", None, c_void_p, c_void_p, c_size_t, c_size_t)


def _decode(kind: int, data: int | None, out: int | None, count: int) -> int:
    if not 0 <= kind < llama_cpp.GGML_TYPE_COUNT:
        return 0
    to_float = _type_traits(kind)[0].to_float
    if not to_float:
        return 0
    if data is not None:
        to_float(data, out, count)
    return 1


_HOST = _Host(ctypes.sizeof(_Host), _Decode(_shielded(0, _decode)))


# ---- samplers: their context is a key of _SAMPLERS, as Python objects cannot be one ----

_SAMPLERS: dict[int, tuple[int, int]] = {}  # handle and candidate
_KEYS = itertools.count(1)
_NAME = ctypes.create_string_buffer(b"aisp")


def _new_sampler(handle: int, candidate: int) -> object:
    key = next(_KEYS)
    _SAMPLERS[key] = handle, candidate
    return llama_cpp.llama_sampler_init(_TABLE, key)


def _sampler_apply(sampler: object, tokens: object) -> None:
    array = tokens.contents
    _apply(*_SAMPLERS[sampler.contents.ctx], array.data, array.size)
    array.sorted = False


def _sampler_accept(sampler: object, token: int) -> None:
    _accept(*_SAMPLERS[sampler.contents.ctx], token)


def _sampler_reset(sampler: object) -> None:
    _reset(*_SAMPLERS[sampler.contents.ctx])


def _sampler_clone(sampler: int) -> int:
    key = ctypes.cast(sampler, llama_cpp.llama_sampler_p_ctypes).contents.ctx
    return ctypes.cast(_new_sampler(*_SAMPLERS[key]), c_void_p).value


def _sampler_free(sampler: object) -> None:
    _SAMPLERS.pop(sampler.contents.ctx, None)


# c_void_p, as ctypes callbacks answer neither strings nor pointers.
_answers_pointer = CFUNCTYPE(c_void_p, c_void_p)
_name_of = _answers_pointer(lambda _sampler: ctypes.addressof(_NAME))
_clone_of = _answers_pointer(_shielded(None, _sampler_clone))
_TABLE = llama_cpp.llama_sampler_i(
    name=ctypes.cast(_name_of, llama_cpp.llama_sampler_i_name),
    apply=llama_cpp.llama_sampler_i_apply(_shielded(None, _sampler_apply)),
    accept=llama_cpp.llama_sampler_i_accept(_shielded(None, _sampler_accept)),
    reset=llama_cpp.llama_sampler_i_reset(_shielded(None, _sampler_reset)),
    clone=ctypes.cast(_clone_of, llama_cpp.llama_sampler_i_clone),
    free=llama_cpp.llama_sampler_i_free(_shielded(None, _sampler_free)),
)
