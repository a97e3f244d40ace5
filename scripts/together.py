"""Eight requests one after another, then at once: the same bytes, and how long both take.

    scripts/together.py URL MODEL

URL is that of a server without a key that has nothing else to do; MODEL what it calls its plain model.
Exit codes: 0 the bytes are the same, 1 they are not.
"""

import json
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

URL, MODEL = sys.argv[1:3]
COUNT = 8
# What is asked: a name, the model, the search.
KINDS = [
    ("plain", MODEL, None),
    ("searches of 4 × 4", f"{MODEL}:aisp", {"samples": 4, "iterations": 4}),
    ("searches of 16 × 4", f"{MODEL}:aisp", {"samples": 16, "iterations": 4}),
]


def ask(model, aisp, seed):
    body = {"model": model, "seed": seed, "max_tokens": 32,
            "messages": [{"role": "user", "content": f"Write one sentence reviewing film {seed}."}]}
    if aisp:
        body["aisp"] = aisp
    request = urllib.request.Request(f"{URL}/v1/chat/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        said = json.load(answer)
    return said["choices"][0]["message"]["content"], said.get("aisp", {}).get("reward"), said["usage"]


def timed(run):
    begun = time.monotonic()
    return run(), time.monotonic() - begun


for name, model, aisp in KINDS:
    one = lambda seed: ask(model, aisp, seed)  # noqa: E731
    one(COUNT)
    alone, apart = timed(lambda: [one(seed) for seed in range(COUNT)])
    with ThreadPoolExecutor(COUNT) as threads:
        beside, together = timed(lambda: list(threads.map(one, range(COUNT))))
    if beside != alone:
        sys.exit(f"FAIL  {name}: {beside} is not {alone}")
    print(f"ok    {COUNT} {name}: {apart:.1f} s one after another, {together:.1f} s at once, "
          f"{apart / together:.2f} ×")
