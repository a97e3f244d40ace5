#!/usr/bin/env python3
"""Aligns one prompt with a decoding loop of its own, and AISP as a sampler: align.c in Python.

The prompt is raw text, special tokens included. The reward is a classifier with one output.
Prints every candidate and every iteration, then the best response.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math

import aisp_llama
import llama_cpp as llama

# ggml's kernels change with the number of rows and, with it, the last bits of their results:
# rows in full groups make a candidate independent of its neighbours.
ROW_GROUP = 8
PROMPT_CHUNK = 512


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", dest="model", required=True, help="GGUF model")
    parser.add_argument("-mr", dest="reward", required=True, help="GGUF reward model")
    parser.add_argument("-p", dest="prompt", required=True)
    parser.add_argument("-n", dest="predict", type=int, default=32, help="tokens of an answer")
    parser.add_argument("-s", dest="seed", type=int, default=0)
    parser.add_argument("-t", dest="threads", type=int, default=1)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--iterations", type=int, default=8)
    parser.add_argument("--tier", choices=("exact", "sampler"), default="exact")
    return parser.parse_args()


def load(path: str) -> tuple[object, object]:
    """A model and its vocabulary."""
    model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
    if not model:
        raise SystemExit(f"align: {path}: not a model")
    return model, llama.llama_model_get_vocab(model)


def new_context(model: object, params: llama.llama_context_params) -> object:
    context = llama.llama_init_from_model(model, params)
    if not context:
        raise SystemExit("align: no context")
    return context


def tokenize(vocab: object, text: str, special: bool) -> list[int]:
    data = text.encode()
    count = -llama.llama_tokenize(vocab, data, len(data), None, 0, True, special)
    tokens = (llama.llama_token * max(count, 0))()
    llama.llama_tokenize(vocab, data, len(data), tokens, count, True, special)
    return list(tokens)


def text_of(vocab: object, tokens: list[int]) -> bytes:
    text = b""
    piece = ctypes.create_string_buffer(256)
    for token in tokens:
        length = llama.llama_token_to_piece(vocab, token, piece, len(piece), 0, False)
        text += piece.raw[: max(length, 0)]
    return text


class Batch:
    """A llama_batch for up to `size` tokens of one sequence each."""

    def __init__(self, size: int) -> None:
        self.batch = llama.llama_batch_init(size, 0, 1)

    def add(self, token: int, position: int, sequence: int, output: bool) -> None:
        row = self.batch.n_tokens
        self.batch.token[row] = token
        self.batch.pos[row] = position
        self.batch.n_seq_id[row] = 1
        self.batch.seq_id[row][0] = sequence
        self.batch.logits[row] = output
        self.batch.n_tokens += 1

    def decode(self, context: object) -> None:
        """Decodes what was added, and is empty then."""
        status = llama.llama_decode(context, self.batch)
        self.batch.n_tokens = 0
        if status != 0:
            raise SystemExit(f"align: llama_decode: {status}")


class Reward:
    """A classifier's only output for the response alone."""

    def __init__(self, path: str, threads: int) -> None:
        model, self.vocab = load(path)
        params = llama.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = 512
        params.n_seq_max = 1
        params.n_threads = params.n_threads_batch = threads
        params.embeddings = True
        params.pooling_type = llama.LLAMA_POOLING_TYPE_RANK
        self.context = new_context(model, params)
        self.batch = Batch(512)

    def score(self, text: bytes) -> float:
        tokens = tokenize(self.vocab, text.decode("utf-8", "replace"), False)
        if not 0 < len(tokens) <= 512:
            return math.nan
        for position, token in enumerate(tokens):
            self.batch.add(token, position, 0, True)
        self.batch.decode(self.context)
        return llama.llama_get_embeddings_seq(self.context, 0)[0]


def main() -> None:
    args = arguments()
    if not 1 <= args.samples <= 256:
        raise SystemExit("align: --samples: give a number from 1 to 256")
    quiet = llama.llama_log_callback(lambda _level, _text, _user_data: None)
    llama.llama_log_set(quiet, None)
    llama.llama_backend_init()
    model, vocab = load(args.model)
    reward = Reward(args.reward, args.threads)
    prompt = tokenize(vocab, args.prompt, True)
    if not prompt:
        raise SystemExit("align: -p: no tokens")

    options = aisp_llama.Options()
    options.model_path = args.model.encode()
    options.tier = aisp_llama.EXACT if args.tier == "exact" else aisp_llama.SAMPLER
    options.samples = args.samples
    options.iterations = args.iterations
    options.horizon = args.predict
    options.seed = aisp_llama.prompt_seed(args.seed, prompt)
    run = aisp_llama.Run(options)

    # A context with a key-value stream for every candidate.
    rows = -(-args.samples // ROW_GROUP) * ROW_GROUP
    params = llama.llama_context_default_params()
    params.n_ctx = (len(prompt) + args.predict) * rows
    params.n_seq_max = rows
    params.n_batch = params.n_ubatch = PROMPT_CHUNK
    params.n_threads = params.n_threads_batch = args.threads
    params.kv_unified = False
    params.swa_full = True
    if args.tier == "exact":
        callback = aisp_llama.EvalCallback(params)
        callback.run = run
    context = new_context(model, params)
    memory = llama.llama_get_memory(context)

    # All but the last token of the prompt, once for all.
    *shared, last = prompt
    batch = Batch(max(PROMPT_CHUNK, rows))
    for start in range(0, len(shared), PROMPT_CHUNK):
        for position, token in enumerate(shared[start : start + PROMPT_CHUNK], start):
            batch.add(token, position, 0, False)
        batch.decode(context)
    if shared:
        for sequence in range(1, rows):
            llama.llama_memory_seq_cp(memory, 0, sequence, -1, -1)

    chains = []
    for candidate in range(args.samples):
        chain = llama.llama_sampler_chain_init(llama.llama_sampler_chain_default_params())
        llama.llama_sampler_chain_add(chain, run.sampler(candidate))
        llama.llama_sampler_chain_add(chain, llama.llama_sampler_init_greedy())
        chains.append(chain)

    iteration = 0
    while count := run.begin():
        written: list[list[int]] = [[] for _ in range(count)]
        alive = set(range(count))
        while alive:
            for row in range(rows):
                tokens = written[row] if row in alive else []
                if not tokens:
                    # The first token of a candidate, or a row that only fills its group.
                    llama.llama_memory_seq_rm(memory, row, len(shared), -1)
                token = tokens[-1] if tokens else last
                batch.add(token, len(shared) + len(tokens), row, True)
            if args.tier == "exact":
                run.bind([row if row in alive else -1 for row in range(rows)])
            batch.decode(context)
            for row in sorted(alive):
                token = llama.llama_sampler_sample(chains[row], context, row)
                written[row].append(token)
                if llama.llama_vocab_is_eog(vocab, token) or len(written[row]) == args.predict:
                    alive.remove(row)
        for candidate, tokens in enumerate(written):
            text = text_of(vocab, tokens)
            value = reward.score(text)
            run.reward(candidate, value)
            show(
                iteration=iteration,
                candidate=candidate,
                reward=value,
                tokens=tokens,
                text=text.decode("utf-8", "replace"),
            )
        run.update()
        report = run.report()
        show(
            iteration=iteration,
            mean_reward=report.mean_reward,
            u_norm=report.u_norm,
            r2=report.r2,
        )
        iteration += 1

    tokens, best = run.best()
    show(best_reward=best, response=text_of(vocab, tokens).decode("utf-8", "replace"))
    for chain in chains:
        llama.llama_sampler_free(chain)
    llama.llama_free(context)
    run.close()


def show(**line: object) -> None:
    print(json.dumps(line))


if __name__ == "__main__":
    main()
