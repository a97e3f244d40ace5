#!/usr/bin/env python3
"""What each kind of judge costs, and how often it picks what a plain yes or no picks.

    scripts/judges.py PROGRAM MODEL.gguf PROMPTS.jsonl

The model judges its own answers: the same eight for every judge, a prompt each time. Answers are kept
in ./judges; prints a table.
"""

import json
import subprocess
import sys
from pathlib import Path

RUBRIC = """
[[question]]
text = "Does the reply answer the question?"
weight = 2

[[question]]
text = "Is the reply easy to understand?"

[[question]]
text = "Does the reply repeat itself?"
weight = -1
"""

JUDGES = {
    "yes or no": "judge:self",
    "0 to 10": "judge:self;scale=0..10",
    "reasons of at most 32 tokens, then yes or no": "judge:self;reason=32",
    "rubric of three questions": "rubric:judges/rubric.toml;judge=self",
    "pairwise, four opponents": "pairwise:self",
}
SAMPLES = 8


def main():
    program, model, prompts = sys.argv[1:]
    Path("judges").mkdir(exist_ok=True)
    Path("judges/rubric.toml").write_text(RUBRIC)
    picked = {}
    print("| judge | tokens a candidate | seconds a candidate | same answer as yes or no |")
    print("|---|---|---|---|")
    for name, reward in JUDGES.items():
        folder = Path("judges", reward.split(":")[0] + str(len(picked)))
        command = [program, "run", "--prompts", prompts, "-o", folder, "-m", model, "--reward", reward]
        command += ["--method", "best-of-n", "--samples", str(SAMPLES), "--iterations", "1"]
        command += ["-n", "24", "-s", "0", "-t", "2"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
        picked[name] = {row["index"]: row["response"] for row in rows}
        candidates = sum(row["usage"]["candidates"] for row in rows)
        tokens = sum(row["usage"]["reward_tokens"] for row in rows) / candidates
        seconds = sum(row["timings"]["reward_seconds"] for row in rows) / candidates
        same = sum(picked["yes or no"][i] == text for i, text in picked[name].items())
        agreement = "–" if name == "yes or no" else f"{same} of {len(rows)}"
        print(f"| {name} | {tokens:.0f} | {seconds:.3f} | {agreement} |", flush=True)


if __name__ == "__main__":
    main()
