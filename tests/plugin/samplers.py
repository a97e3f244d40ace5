"""samplers.c in Python: samplers.py model.gguf"""

import ctypes
import gc
import sys

import aisp_llama
import llama_cpp as llama

VOCABULARY = 16


def chain(run: aisp_llama.Run, candidate: int) -> object:
    chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
    llama.llama_sampler_chain_add(chain, run.sampler(candidate))
    llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_greedy())
    return chain


def choose(chain: object) -> int:
    """What a chain chooses from equal logits, given in descending order of their ids."""
    ids = range(VOCABULARY - 1, -1, -1)
    data = (llama.llama_token_data * VOCABULARY)(*((token, 1, 0) for token in ids))
    tokens = llama.llama_token_data_array(data, VOCABULARY, -1, True)
    llama.llama_sampler_apply(chain, ctypes.byref(tokens))
    assert tokens.selected >= 0 and not tokens.sorted
    return data[tokens.selected].id


def expect_error(function: object, message: str) -> None:
    try:
        function()
    except aisp_llama.Error as error:
        assert message in str(error), error
    else:
        raise AssertionError(message)


options = aisp_llama.Options()
options.model_path = sys.argv[1].encode()
options.tier = aisp_llama.SAMPLER
expect_error(lambda: aisp_llama.Run(options), "horizon")
options.horizon = 4

with aisp_llama.Run(options) as run:
    assert run.begin() == 16
    first_chain = chain(run, 3)
    sampler = llama.llama_sampler_chain_get(first_chain, 0)
    assert llama.llama_sampler_name(sampler) == b"aisp"

    # A clone is the same candidate: what it accepts, the run has.
    clone = llama.llama_sampler_clone(first_chain)
    first = choose(first_chain)
    assert choose(clone) == first
    llama.llama_sampler_accept(clone, first)
    second = choose(first_chain)
    llama.llama_sampler_accept(first_chain, second)

    # Reset forgets both; the next token is the first again.
    llama.llama_sampler_reset(first_chain)
    assert choose(first_chain) == first
    llama.llama_sampler_accept(first_chain, first)
    run.reward(3, 1.5)
    assert run.best() == ([first], 1.5)

# Freed in any order; a sampler without its run changes nothing.
expect_error(run.begin, "freed")
del run
gc.collect()
llama.llama_sampler_free(first_chain)
assert choose(clone) == VOCABULARY - 1
llama.llama_sampler_free(clone)
assert not aisp_llama._SAMPLERS


# What is raised inside a callback comes out of the next call.
def interrupted(*_arguments: object) -> None:
    raise KeyboardInterrupt


with aisp_llama.Run(options) as run:
    run.begin()
    chain_of_run = chain(run, 0)
    aisp_llama._apply = interrupted
    sampler = llama.llama_sampler_chain_get(chain_of_run, 0)
    tokens = llama.llama_token_data_array((llama.llama_token_data * 1)((0, 1, 0)), 1, -1, True)
    llama.llama_sampler_apply(sampler, ctypes.byref(tokens))
    try:
        run.update()
    except KeyboardInterrupt:
        pass
    else:
        raise AssertionError("the interrupt is lost")
    llama.llama_sampler_free(chain_of_run)
