"""A reward in any language: short answers with an exclamation mark are the better ones."""

import json
import sys

for line in sys.stdin:
    sample = json.loads(line)
    response = sample["response"]
    reward = ("!" in response) - len(response) / 100
    print(json.dumps({"id": sample["id"], "reward": reward}), flush=True)
