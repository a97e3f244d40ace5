"""What a reward in Python costs a candidate: the seconds that are spent on scores in a run, by a
function and by the same reward in the program."""

import statistics

import aisp_llama
from conftest import MODEL

SETTINGS = {"samples": 16, "iterations": 4, "max_tokens": 8, "method": "best-of-n"}


def words(samples):
    return [float(len(sample.response.split()) in range(3, 6)) for sample in samples]


def microseconds(reward):
    aligner = aisp_llama.Aligner(MODEL, reward=reward, threads=1)
    each = []
    for seed in range(3):
        answer = aligner.align("Name a colour.", seed=seed, **SETTINGS)
        each.append(answer.timings["reward_seconds"] / answer.usage["reward_calls"] * 1e6)
    return statistics.median(each)


if __name__ == "__main__":
    function, rule = microseconds(words), microseconds("rule:words=3..5")
    print(f"a candidate's score: {function:.0f} µs by a function, {rule:.0f} µs by a rule")
