"""A search through a proxy, whose server is killed on the way; see failover.sh."""

import json
import os
import signal
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

from openai import OpenAI

PROXY = sys.argv[1]
SERVERS = {sys.argv[3]: int(sys.argv[2]), sys.argv[5]: int(sys.argv[4])}
# Long enough to be killed.
SEARCH = {"samples": 16, "iterations": 6}


def ask(url):
    """The answer, and how many times the request was sent again."""
    client = OpenAI(base_url=f"{url}/v1", api_key="none")
    raw = client.chat.completions.with_raw_response.create(
        model="model:aisp", max_tokens=24, seed=3, extra_body={"aisp": SEARCH},
        messages=[{"role": "user", "content": "Write one sentence reviewing a film."}],
    )
    answer = raw.parse()
    return answer.choices[0].message.content, answer.aisp["reward"], raw.retries_taken


def busy(url):
    with urllib.request.urlopen(f"{url}/slots") as slots:
        return any(slot["is_processing"] for slot in json.load(slots))


def health(url):
    try:
        return urllib.request.urlopen(f"{url}/health").status == 200
    except OSError:
        return False


while not health(PROXY):
    time.sleep(0.1)
with ThreadPoolExecutor() as threads:
    asked = threads.submit(ask, PROXY)
    while not (at := [url for url in SERVERS if busy(url)]):
        time.sleep(0.05)
    time.sleep(1)
    assert not asked.done(), "the search was over too soon"
    os.kill(SERVERS[at[0]], signal.SIGKILL)
    text, reward, retries = asked.result()
other = next(url for url in SERVERS if url != at[0])
assert retries == 1, f"sent again {retries} times"
direct = ask(other)
assert (text, reward) == direct[:2], f"{text!r} is not {direct[0]!r}"
assert ask(PROXY)[2] == 0, "the proxy still asks the one that is gone"
print(f"ok    one server killed, sent again once, answered by the other: reward {reward:.3f}, {text!r}")
