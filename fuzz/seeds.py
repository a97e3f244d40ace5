#!/usr/bin/env python3
"""Write the inputs that fuzzing begins with into FOLDER/TARGET: sound ones, and those with one thing
wrong that have been met, or could be.

    fuzz/seeds.py FOLDER
"""

import hashlib
import json
import struct
import sys
from pathlib import Path

U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10


def text(value):
    data = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(data)) + data


def strings(values):
    return struct.pack("<IQ", STRING, len(values)) + b"".join(map(text, values))


def pair(key, kind, raw):
    return text(key) + struct.pack("<I", kind) + raw


def gguf(pairs, tensors, version=3, magic=b"GGUF", counts=None, alignment=32):
    """A GGUF file: `tensors` are (name, dimensions, type, bytes of data), each where the next one fits."""
    directory, data = b"", b""
    for name, dims, kind, size in tensors:
        data += bytes(-len(data) % alignment)
        directory += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, len(data))
        data += bytes((i * 37 + 11) % 120 for i in range(size))
    counts = counts or (len(tensors), len(pairs))
    header = magic + struct.pack("<IQQ", version, *counts) + b"".join(pairs) + directory
    return header + bytes(-len(header) % alignment) + data


def of_gguf():
    def u32(key, value):
        return pair(key, U32, struct.pack("<I", value))

    def f32(key, value):
        return pair(key, F32, struct.pack("<f", value))

    sound = {
        "architecture": pair("general.architecture", STRING, text("llama")),
        "blocks": u32("llama.block_count", 1),
        "context": u32("llama.context_length", 64),
        "width": u32("llama.embedding_length", 32),
        "heads": u32("llama.attention.head_count", 2),
        "epsilon": f32("llama.attention.layer_norm_rms_epsilon", 1e-5),
        "vocabulary": pair("tokenizer.ggml.model", STRING, text("gpt2")),
        "tokens": pair("tokenizer.ggml.tokens", ARRAY, strings(["a", "b", "é", "<s>"])),
    }
    tensors = [
        ("token_embd.weight", (32, 4), 0, 512),
        ("output_norm.weight", (32,), 0, 128),
        ("blk.0.attn_norm.weight", (32,), 0, 128),
        ("blk.0.attn_q.weight", (32, 32), 8, 1088),
    ]

    def but(change=None, tensors=tensors, **other):
        return gguf(list((sound | (change or {})).values()), tensors, **other)

    whole = but()
    yield whole
    for cut in (0, 3, 4, 8, 23, 40, len(whole) // 2, len(whole) - 1):
        yield whole[:cut]
    yield but(magic=b"FUGG")
    for version in (0, 1, 2, 4, 0x03000000):
        yield but(version=version)
    for count in (0, 1 << 31, 1 << 63, (1 << 64) - 1):
        yield but(counts=(count, len(sound)))
        yield but(counts=(len(tensors), count))
    # What llama.cpp does not survive.
    for key, values in {
        "llama.block_count": (0, 600, 2**32 - 1),
        "llama.context_length": (0, 2**31),
        "llama.attention.head_count": (0, 3),
        "llama.expert_count": (8,),
        "llama.expert_used_count": (4,),
        "llama.nextn_predict_layers": (5,),
        "general.alignment": (0, 1, 2, 4, 24, 64, 2**31),
    }.items():
        for value in values:
            name = {"block_count": "blocks", "context_length": "context"}.get(key.split(".")[1], key)
            yield but({name: u32(key, value)})
    for value in (float("nan"), -1.0, float("inf")):
        yield but({"epsilon": f32("llama.attention.layer_norm_rms_epsilon", value)})
    for name in ("", "paddleocr", "\0", "\x1b]0;x\x07", "llama" * 1000):
        yield but({"architecture": pair("general.architecture", STRING, text(name))})
    for tokens in ([], ["a", "a"], ["a\0b", "a"], [b"\xff\xfe"]):
        yield but({"tokens": pair("tokenizer.ggml.tokens", ARRAY, strings(tokens))})
    yield but({"vocabulary": pair("tokenizer.ggml.model", STRING, text("no_vocab"))})
    yield but({"scaling": pair("llama.rope.scaling.type", STRING, text("twisted"))})
    yield but({"twice": sound["blocks"]})
    for kind in (F32, 13, 255):
        yield but({"kind": pair("a", kind, b"\0\0\0\0")})
    yield but({"nested": pair("a", ARRAY, struct.pack("<IQ", ARRAY, 1 << 40))})
    yield but({"long": text("a") + struct.pack("<IQ", STRING, 1 << 62)})
    yield but({"truth": pair("a", BOOL, b"\7")})
    for kind in (1, 7, 9, 24, 26, 28, 30, 99):
        yield but(tensors=[(n, d, kind if "norm" in n else k, s) for n, d, k, s in tensors])
        yield but(tensors=[(n, d, kind if "attn_q" in n else k, s) for n, d, k, s in tensors])
    yield but(tensors=tensors + tensors[:1])
    for dims in ((), (0, 4), (1 << 32, 1 << 32), (1 << 36, 1), (1, 1 << 36), (2, 2, 2, 2, 2)):
        yield but(tensors=[("output.weight", dims, 0, 512)])
    for value in (struct.pack("<f", float("inf")), struct.pack("<f", float("nan"))):
        yield whole[: -len(value)] + value


def framed(tensors, metadata=None, dtype="F32"):
    """The header of a safetensors file and its data, with a line break between."""
    header, data = ({"__metadata__": metadata} if metadata else {}), b""
    for name, shape, values in tensors:
        raw = struct.pack(f"<{len(values)}f", *values)
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        data += raw
    return json.dumps(header).encode() + b"\n" + data


def of_heads():
    row = [0.5, -1.0, 2.0, 0.25]
    stated = {"aisp.reward.text": "{prompt}\\n{response}", "aisp.reward.pooling": "mean"}
    for name in ("score.weight", "classifier.weight", "v_head.summary.weight", "head.weight", "weight"):
        yield framed([(name, [1, 4], row)], stated)
    dense = [("cls.weight", [4, 4], row * 4), ("cls.bias", [4], row), ("cls.output.weight", [1, 4], row)]
    yield framed(dense + [("cls.output.bias", [1], [1.0])])
    yield framed([("score.weight", [2, 4], row * 2)])
    yield framed([("score.weight", [4], row)], dtype="F16")
    yield framed([("score.weight", [1, 4], [float("nan")] * 4)])
    yield framed([("score.weight", [1, 2**62], row)])
    yield framed([("score.weight", [0], [])])
    yield b'{"score.weight":{"dtype":"F32","shape":[1,4],"data_offsets":[16,0]}}\n' + bytes(16)
    header, data = framed([("score.weight", [1, 4], row)]).split(b"\n", 1)
    yield struct.pack("<Q", len(header)) + header + data
    yield gguf(
        [pair("general.architecture", STRING, text("bert"))],
        [("cls.output.weight", (4,), 0, 16), ("cls.output.bias", (1,), 0, 4)],
    )


def of_values():
    mean, scales = ("input_mean", [2], [0.0, 1.0]), ("scales", [3], [1.0, 0.0, 1.0])
    first = [("layers.0.weight", [2, 3], [0.1] * 6), ("layers.0.bias", [3], [0.0] * 3)]
    last = [("layers.1.weight", [3, 1], [0.1] * 3), ("layers.1.bias", [1], [0.0])]
    yield framed([mean, scales, *first, *last])
    yield framed([mean, scales, *first])
    yield framed([mean, *first, *last])
    yield framed([scales, *first, *last])
    yield framed([mean, ("scales", [3], [0.0, 0.0, 1.0]), *first, *last])
    yield framed([mean, ("scales", [3], [float("inf")] * 3), *first, *last])
    yield framed([("input_mean", [0], []), scales, ("layers.0.weight", [0, 1], []), ("layers.0.bias", [1], [1.0])])
    yield framed([mean, scales, ("layers.0.weight", [2, 2**62], []), last[1]])


def of_specs():
    yield from (
        "rule:words=5..20;json;2*!contains=\"as an AI; indeed\"",
        "rule:regex=(a|b)*c;sentences=2..;language-tag=en",
        "0.5*http:http://127.0.0.1:8080;api=chat;scale=1..10;timeout=1e300;retries=9",
        "command:cat;timeout=-1",
        "judge:model.gguf;question=\"Is it good?\"",
        "likelihood:model.gguf",
        "-1e999*model.gguf;text={prompt}\\n{response};pooling=last;name=score",
        "NaN*model.gguf;sign=-1",
        "chat",
        "search:elites=4:sigma=auto:price=0.5",
        "aisp:preset=paper:lambda=0.1:horizon=18446744073709551615",
        "best-of-n:temp=-0:top-p=2:min-p=nan",
        "misvo:step=1e308", "soft-best-of-n:beta=1", "re-control:value=/dev/null",
        '{"elites": 4, "sigma": "auto", "cut": 1e400}',
        '{"samples": -1, "horizon": 1e9, "lambda": null, "update": "weights"}',
        '{"temp": "0.5", "top-k": 18446744073709551616}',
    )


def of_rules():
    answer = 'Sure, Dr. Å:\n```json\n{"a": [1, 2, {"b": "```"}]}\n```\n1. One.\n2. "Two."\u2026 \u0e01\u0e32\u0e23'
    for rules in (
        "json", "words=3..5", "!words=0", "sentences=1..", "regex=^(a|aa)+$", "regex=[a-z]{10}x",
        "contains=dr", "excludes=å", "starts-with=sure", "ends-with=.", "contains-exact=Sure",
        "language-tag=th", "2*lowercase;0.5*!uppercase", "regex=(?i)\\p{Greek}{1,1000}",
    ):
        yield f"{rules}\n{answer}"
        yield f"{rules}\n"
    for response in ("[" * 500, "\u200b\ufeff", "A.B.C. e.g. x.\r\n\r\n- y", "~~~\n`\n~~~~", "a" * 3000 + "b"):
        yield f"json;words=1..2;sentences=1;regex=(a*)*c;contains=a\n{response}"


def of_schemas():
    loop = {"anyOf": [{"type": "array", "items": {"$ref": "#/$defs/a"}}] * 2}
    for schema in (
        True, {}, {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}},
        {"$defs": {"a": loop}, "$ref": "#/$defs/a"}, {"$ref": "#"}, {"$ref": "other.json"},
        {"pattern": "(a+)+$"}, {"pattern": "("}, {"multipleOf": 0}, {"multipleOf": 1e-308},
        {"enum": []}, {"not": {}}, {"minLength": -1}, {"$dynamicRef": "#a", "$dynamicAnchor": "a"},
        {"unevaluatedProperties": False, "if": {"const": 1}, "then": False}, {"uniqueItems": True},
        {"format": "email"}, {"patternProperties": {"^a": {"maximum": 1e999}}},
    ):
        for response in ("1", '{"a": 1.5}', "[" * 14 + "]" * 14, '"aaaaaaaaaaaaaaaaaaaaaaaa!"', "[1, 1.0, 1e0]", "no"):
            yield f"{json.dumps(schema)}\n{response}"


def of_jsonl():
    yield from (
        '{"prompt": "a", "response": "b", "score": 1}\n{"prompt": "a", "response": "c", "score": -1e308}\n',
        '{"prompt": "a", "chosen": "b", "rejected": "c"}\r\n{"chosen": "c", "rejected": "b", "group": "g"}\n',
        '{"messages": [{"role": "user", "content": "a"}], "response": "b", "score": 0}\n',
        '{"prompt": "a", "response": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]}',
        '\ufeff{"prompt": "a"}\n\n{"prompt": "b"}\n',
        '{"prompt": "a", "prompt": "b"}\n{"prompt": 1}\n', '{"score": 1e999, "response": "\\ud800"}\n',
        "[" * 3000, '{"prompt": "' + "a" * 5000 + '"}', "\0\n\0", b'{"prompt": "\xff"}\n', "null\n",
    )


def of_store():
    checkpoint = {"samples": 4, "spent": 4, "mean": 0.5, "sd": 0.1, "best": 1.0, "tokens": 20, "seconds": 0.5}
    usage = {"candidates": 4, "generated_tokens": 20, "reward_calls": 4, "reward_tokens": 0, "unscored": 0}
    usage["truncated"] = 0

    def row(prompt, seed, method, **change):
        whole = {
            "prompt": prompt, "seed": seed, "method": method, "response": "Hi.", "reward": 1.0,
            "mean_last": 0.5, "sd_last": 0.1, "diversity": 1.0, "coherence": None, "surprise": 0.2,
            "kl": None, "iterations": [checkpoint], "usage": usage, "seconds": 0.5,
        }
        return json.dumps(whole | change) + "\n"

    all_rows = [(p, s, m) for p in (0, 1) for s in (0, 1) for m in ("best-of-n", "search")]
    yield "".join(row(*place) for place in all_rows)
    yield "".join(row(*place, reward=1e308 * (-1) ** place[1], held_out=-1e308) for place in all_rows)
    yield row(0, 0, "search") * 2
    yield row(9, 0, "search")
    yield row(0, 0, "search", sd_last=None, iterations=[])
    yield row(0, 0, "search", iterations=[checkpoint | {"best": None, "mean": None, "seconds": -1}] * 3)
    yield row(0, 0, "best-of-n", response="", diversity=-1e308, seconds=1e300)
    yield json.dumps({"prompt": 0, "seed": 0, "method": "search", "error": "no", "unscored": True}) + "\n"
    yield row(0, 0, "search") + row(0, 1, "search")[:50]
    yield from ("\n\n", "null\n", "{}\n", "[]", "\0" * 40 + "\n", '{"seed": 1e400}\n', '{"budget": 9, "seeds": 3}')


def of_templates():
    turn = "{% for m in messages %}<|{{ m.role }}|>{{ m['content'] | trim }}{% endfor %}"
    yield turn + "{% if add_generation_prompt %}<|assistant|>{% if enable_thinking %}<think>{% endif %}{% endif %}"
    yield from (
        "{{ bos_token }}{% set ns = namespace(a=1) %}{% for i in range(9) %}{% set ns.a = ns.a + ns.a %}{% endfor %}{{ ns.a }}",
        "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
        "{% set ns = namespace(a='12345678') %}{% for i in range(60) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}",
        "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "{{ 'x' * 99999999 }}", "{{ 1 // 0 }}{{ 2 ** 999 }}",
        "{{ messages[-1:][0].content.split('</think>')[-1].strip('\\n').rjust(99999) }}",
        "{{ '%s %5d %x' % ('a', 1, 2) }}{{ strftime_now('%d %b %Y') }}{{ raise_exception('no') }}",
        "{{ messages | tojson(indent=4) }}{{ [1, [2]] | map('string') | join }}{{ 'a'.replace('', 'b' * 999) }}",
        "{%- if not messages[0].role is defined -%}{%- endif -%}{% generation %}a{% endgeneration %}",
        "{{ 'a' is sequence }}{{ {} | items | list | sort(attribute='x') }}{{ 'abc'[::-1] }}", "chatml", "llama3",
        "<|im_start|>[INST]<|start_header_id|><start_of_turn>", "{{ '\ud7ff' }}{%", "{#", "{{ }}",
    )


def of_answers():
    def answer(api, body, status="200 OK", headers=""):
        body = body if isinstance(body, str) else json.dumps(body)
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body.encode())}\r\n{headers}\r\n"
        return bytes([api]) + (head + body).encode()

    scores = [{"index": 1, "relevance_score": 0.5}, {"index": 0, "score": -1}]
    yield answer(0, {"results": scores, "usage": {"prompt_tokens": 2**64 - 1}})
    yield answer(0, {"data": scores + scores})
    yield answer(1, [{"index": i, "score": float(i)} for i in range(2)])
    yield answer(1, [{"index": 2**64 - 1, "score": 1}])
    yield answer(2, {"data": [{"probs": [0.5]}, {"probs": [0.1, 0.9]}]})
    yield answer(3, {"data": [{"data": [[1.0], [2.0]]}, {"data": []}]})
    for reply in ("7", "Rating: 7.5/10", "<think>8", "<think>1</think>9", "-3.", "10", "1" * 400, ""):
        top = [{"token": "7", "logprob": -0.1}, {"token": "8", "logprob": -1e999}]
        logprobs = {"content": [{"token": reply, "top_logprobs": top}]}
        message = {"message": {"content": reply}, "finish_reason": "stop", "logprobs": logprobs}
        yield answer(4, {"choices": [message]})
    for status in ("100 Continue", "204 No Content", "301 Moved", "400 Bad", "401 No", "413 Large", "429 Busy", "500 Oh"):
        yield answer(0, {"error": "no"}, status, "Retry-After: 99999999999\r\nLocation: file:///\r\n")
    yield answer(0, "[" * 5000)
    yield answer(0, '{"results": [{"index": 0, "score": 1e999}, {"index": 1, "score": NaN}]}')
    yield b"\0HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[1, 2\r\nffffffffffffffff\r\n]\r\n0\r\n\r\n"
    yield b"\0HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n[]"
    yield b"\1HTTP/1.0 200\r\n\r\n[]"
    yield b"\2\x16\x03\x01"
    yield b"\3"


def of_plugin():
    def call(which, number, run=0):
        return struct.pack("<Bi", which | run << 6, number)

    create = call(0, 0x7F)
    begin = call(1, 0) + call(3, 0) + call(4, 4) + call(5, 1) + call(7, 3) + call(10, 1)
    yield create + begin * 4 + call(11, 0) + call(12, 0) + call(14, 0)
    yield create + call(0, 0x7F, 1) + (begin + call(11, 0)) * 3 + call(9, 1) + begin + call(13, 0)
    for which in range(16):
        yield create + call(1, 0) + call(which, -1) + call(which, 2**31 - 1) + call(which, 0)
    for field in range(8):
        for number in (0x7FC00000, 0x7F800000, -1, 0x3F800000):
            yield call(0, number & ~0xFF | field) + begin


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for name, seeds in list(globals().items()):
        if name.startswith("of_"):
            folder = Path(sys.argv[1], name[3:])
            folder.mkdir(parents=True, exist_ok=True)
            for seed in seeds():
                data = seed if isinstance(seed, bytes) else seed.encode("utf-8", "surrogatepass")
                (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


main()
