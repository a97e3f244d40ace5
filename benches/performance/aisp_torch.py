"""AISP as one would write it with PyTorch and transformers: the weights of the same GGUF, all candidates of an
iteration in one batch, keys and values cached, the prompt decoded once. Rewards are random numbers, as generation is
what is timed. Prints the seconds.

    python aisp_torch.py MODEL.gguf PROMPT SAMPLES ITERATIONS TOKENS THREADS
"""

import os
import sys
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

SIGMA = 0.7


def main():
    file, prompt, *numbers = sys.argv[1:]
    samples, iterations, tokens, threads = map(int, numbers)
    torch.set_num_threads(threads)
    folder, name = os.path.split(file)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    # float32 took a fourth longer.
    dtype = torch.bfloat16
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=dtype).eval()
    ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
    width = model.config.hidden_size
    generator = torch.Generator().manual_seed(1)

    def iteration(mean, length):
        noise = mean[:length] + SIGMA * torch.randn(samples, length, width, generator=generator)
        noise = noise.to(dtype)
        cache = DynamicCache(config=model.config)
        hidden = model.model(ids, past_key_values=cache, use_cache=True).last_hidden_state[:, -1]
        hidden = hidden.expand(samples, -1)
        cache.batch_repeat_interleave(samples)
        for position in range(length):
            chosen = model.lm_head(hidden + noise[:, position]).argmax(-1)
            if position + 1 < length:
                out = model.model(chosen[:, None], past_key_values=cache, use_cache=True)
                hidden = out.last_hidden_state[:, -1]
        return noise

    with torch.inference_mode():
        mean = torch.zeros(tokens, width)
        iteration(mean, 4)
        begun = time.monotonic()
        for _ in range(iterations):
            noise = iteration(mean, tokens)
            weights = torch.softmax(torch.rand(samples, generator=generator), 0)
            mean = (weights[:, None, None] * noise).sum(0)
        print(time.monotonic() - begun)


main()
