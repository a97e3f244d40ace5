import json
import os
import shutil
import signal
import subprocess
import threading
import time

import pytest
from conftest import FILM, MODEL, SMALL, brevity

import aisp_llama

PROMPT = "Write one sentence reviewing a movie about a lost dog."


def test_the_bytes_are_those_of_the_program():
    program = os.environ.get("AISP_LLAMA") or shutil.which("aisp-llama")
    assert program, "set AISP_LLAMA to the program"
    command = [program, "run", "-m", MODEL, "-mr", FILM, "-p", PROMPT, "-t", "1", "-s", "3"]
    command += ["--samples", "4", "--iterations", "2", "-n", "8", "--candidates", "9", "--json"]
    printed = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    aligner = aisp_llama.Aligner(MODEL, str(FILM), threads=1)
    answer = aligner.align(PROMPT, seed=3, **SMALL)
    assert answer.response == printed["response"]
    assert answer.reward == printed["reward"]
    texts = [candidate["text"] for candidate in answer.candidates]
    assert texts == [candidate["text"] for candidate in printed["candidates"]]


def test_a_function_is_the_reward(brief):
    answer = brief.align(PROMPT, **SMALL)
    assert answer.reward == -len(answer.response)
    affordable = [c for c in answer.candidates if not c.get("too_dear")]
    assert answer.reward == max(c["reward"] for c in affordable)
    assert answer.stop == "completed"
    assert str(answer) == answer.response


def test_a_function_sees_prompt_and_response_and_may_answer_none():
    seen = []

    def only_long(samples):
        seen.extend(samples)
        return [None if len(s.response) < 25 else 1.0 for s in samples]

    aligner = aisp_llama.Aligner(MODEL, only_long, threads=1)
    answer = aligner.align(PROMPT, **SMALL)
    assert {s.prompt for s in seen} == {PROMPT}
    assert all(s.messages == [] for s in seen)
    assert answer.response in {s.response for s in seen}
    unscored = [c for c in answer.candidates if c["reward"] is None]
    assert len(unscored) == answer.usage["unscored"]


def test_what_a_function_raises_comes_out():
    def broken(samples):
        raise KeyError("no such word")

    aligner = aisp_llama.Aligner(MODEL, broken, threads=1)
    with pytest.raises(KeyError, match="no such word"):
        aligner.align(PROMPT, **SMALL)
    with pytest.raises(aisp_llama.AlignmentError, match="1 scores for 4 responses"):
        aisp_llama.Aligner(MODEL, lambda samples: [1.0], threads=1).align(PROMPT, **SMALL)


def test_rewards_are_mixed_and_held_out():
    aligner = aisp_llama.Aligner(
        MODEL, ["rule:words=3..9", "0.5*rule:contains=dog"], held_out=brevity, threads=1
    )
    answer = aligner.align(PROMPT, **SMALL)
    assert 0 <= answer.reward <= 1.5
    assert answer.held_out == -len(answer.response)


def test_wrong_values_are_told_by_name(brief):
    for settings, told in [
        ({"samples": 0}, "samples"),
        ({"method": "nope"}, "no method"),
        ({"steeer": 1}, "steeer"),
        ({"target_reward": "high"}, "target_reward"),
    ]:
        with pytest.raises(ValueError, match=told):
            brief.align(PROMPT, **settings)
    with pytest.raises(ValueError, match="prompt"):
        brief.align("  ")
    with pytest.raises(ValueError, match="role"):
        brief.align([{"text": "Hello"}])
    with pytest.raises(ValueError, match="reward"):
        aisp_llama.Aligner(MODEL, 3)
    with pytest.raises((OSError, aisp_llama.AlignmentError), match="no such file"):
        aisp_llama.Aligner("nowhere.gguf", brevity)


def test_methods_have_their_settings(brief):
    best = brief.align(PROMPT, method="best-of-n", temp=1.0, top_p=1.0, **SMALL)
    other = brief.align(PROMPT, method="best-of-n:temp=1:top-p=1", **SMALL)
    assert best.response == other.response


def test_events_end_with_the_answer(brief):
    events = list(brief.events(PROMPT, **SMALL))
    kinds = [event["event"] for event in events]
    assert kinds[0] == "run_started"
    assert kinds.count("candidate_scored") == 8
    assert kinds[-1] == "answer"
    assert events[-1]["answer"].response == brief.align(PROMPT, **SMALL).response


def test_leaving_the_events_ends_the_run(brief):
    for event in brief.events(PROMPT, samples=4, iterations=400, max_tokens=32):
        if event["event"] == "iteration_done":
            break
    assert brief.align(PROMPT, **SMALL).response


def test_many_prompts_are_answered_as_each_alone(brief):
    prompts = [PROMPT, "Describe the sea.", [{"role": "user", "content": "Say hello."}]]
    together = brief.align_all(prompts, **SMALL)
    alone = [brief.align(prompt, **SMALL) for prompt in prompts]
    assert [a.response for a in together] == [a.response for a in alone]


def test_other_threads_run_meanwhile(brief):
    counted = 0
    done = threading.Event()

    def count():
        nonlocal counted
        while not done.is_set():
            counted += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    brief.align(PROMPT, samples=4, iterations=2, max_tokens=16)
    done.set()
    thread.join()
    assert counted > 20


def test_an_interrupt_gives_the_best_so_far(brief):
    timer = threading.Timer(4.0, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    answer = brief.align(PROMPT, samples=4, iterations=4000, max_tokens=8)
    assert answer.stop == "interrupted"
    assert answer.reward == -len(answer.response)


def test_one_call_at_a_time(brief):
    run = brief.events(PROMPT, samples=4, iterations=50, max_tokens=32)
    next(run)
    with pytest.raises(RuntimeError, match="at work in another thread"):
        brief.align(PROMPT, **SMALL)
    run.close()


def test_tokens_and_back(brief):
    tokens = brief.tokenize("The sea is wide.")
    assert brief.detokenize(tokens) == "The sea is wide."
    with pytest.raises(ValueError, match="vocabulary"):
        brief.detokenize([brief.vocabulary])
