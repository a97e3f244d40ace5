"""A llama model as one of another architecture with the same tensors.

rename_architecture.py SOURCE TARGET ARCHITECTURE [KEY=NUMBER…]: the keys are new ones of the
architecture, F32.
"""

import struct
import sys

STRING, ARRAY, F32 = 8, 9, 6
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
ALIGNMENT = 32


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def end_of(data: bytes, start: int, kind: int) -> int:
    """Where a value ends."""
    if kind == STRING:
        return start + 8 + struct.unpack_from("<Q", data, start)[0]
    if kind != ARRAY:
        return start + SIZES[kind]
    element, count = struct.unpack_from("<IQ", data, start)
    start += 12
    for _ in range(count):
        start = end_of(data, start, element)
    return start


def main() -> None:
    source, target, architecture, *extra = sys.argv[1:]
    with open(source, "rb") as file:
        data = file.read()
    magic, tensors, pairs = struct.unpack_from("<8sQQ", data)
    at, header = 24, b""
    for _ in range(pairs):
        end = end_of(data, at, STRING)
        key = data[at + 8 : end].decode()
        (kind,) = struct.unpack_from("<I", data, end)
        at, value = end_of(data, end + 4, kind), end
        raw = data[value:at]
        if key == "general.architecture":
            raw = struct.pack("<I", STRING) + text(architecture)
        elif key.startswith("llama."):
            key = architecture + key[len("llama") :]
        header += text(key) + raw
    for pair in extra:
        key, number = pair.split("=")
        header += text(f"{architecture}.{key}") + struct.pack("<If", F32, float(number))
    start = at
    for _ in range(tensors):
        at = end_of(data, at, STRING)
        at += 4 + 8 * struct.unpack_from("<I", data, at)[0] + 4 + 8
    header = struct.pack("<8sQQ", magic, tensors, pairs + len(extra)) + header + data[start:at]
    with open(target, "wb") as file:
        file.write(header + bytes(-len(header) % ALIGNMENT))
        file.write(data[at + -at % ALIGNMENT :])


if __name__ == "__main__":
    main()
