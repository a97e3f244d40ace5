"""openai, LangChain, LiteLLM and llm against a server; see clients.sh."""

import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import litellm
from langchain_openai import ChatOpenAI
from openai import OpenAI

URL, MODEL, FAILING = sys.argv[1:4]
PROMPT = "Write one sentence reviewing a film."
MESSAGES = [{"role": "user", "content": PROMPT}]
failures = 0


def check(name, run):
    """Runs one case and says how it went."""
    global failures
    try:
        print(f"ok    {name}: {run()!r}")
    except Exception as error:  # noqa: BLE001: whatever a client throws is its failure
        failures += 1
        print(f"FAIL  {name}: {type(error).__name__}: {error}")


def some(text):
    assert text and text.strip(), "no text"
    return text.strip()[:40]


def openai(url, model, stream):
    client = OpenAI(base_url=f"{url}/v1", api_key="none")
    answer = client.chat.completions.create(
        model=model, messages=MESSAGES, max_tokens=24, seed=1, stream=stream
    )
    if not stream:
        return some(answer.choices[0].message.content)
    # As the README of the client has it.
    return some("".join(chunk.choices[0].delta.content or "" for chunk in answer))


def langchain(url, model, stream):
    chat = ChatOpenAI(base_url=f"{url}/v1", api_key="none", model=model, max_tokens=24, seed=1)
    if not stream:
        return some(chat.invoke(PROMPT).content)
    return some("".join(chunk.content for chunk in chat.stream(PROMPT)))


def lite(url, model, stream):
    answer = litellm.completion(
        model=f"openai/{model}", api_base=f"{url}/v1", api_key="none",
        messages=MESSAGES, max_tokens=24, seed=1, stream=stream,
    )
    if not stream:
        return some(answer.choices[0].message.content)
    return some("".join(chunk.choices[0].delta.content or "" for chunk in answer))


def llm(url, model, stream):
    with tempfile.TemporaryDirectory() as folder:
        listing = [{"model_id": "here", "model_name": model, "api_base": f"{url}/v1"}]
        # JSON is YAML.
        (Path(folder) / "extra-openai-models.yaml").write_text(json.dumps(listing))
        flags = [] if stream else ["--no-stream"]
        done = subprocess.run(
            ["llm", "-m", "here", *flags, "-o", "max_tokens", "24", PROMPT],
            env={**os.environ, "LLM_USER_PATH": folder}, capture_output=True, text=True,
        )
    assert done.returncode == 0, done.stderr
    return some(done.stdout)


def requests_failed():
    text = urllib.request.urlopen(f"{FAILING}/metrics").read().decode()
    return int(re.search(r"^aisp_failed_total (\d+)", text, re.M).group(1))


def once(client):
    """A failed search is sent once."""
    before = requests_failed()
    try:
        client(FAILING, f"{MODEL}:aisp", False)
    except Exception:  # noqa: BLE001: as it is the client's to choose
        sent = requests_failed() - before
        assert sent == 1, f"sent {sent} times"
        return "sent once"
    raise AssertionError("the failure was not seen")


for client in (openai, langchain, lite, llm):
    for model in (MODEL, f"{MODEL}:aisp"):
        for stream in (False, True):
            name = f"{client.__name__} {model}{' stream' if stream else ''}"
            check(name, lambda: client(URL, model, stream))
    check(f"{client.__name__} failed search", lambda: once(client))
sys.exit(1 if failures else 0)
