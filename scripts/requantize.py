#!/usr/bin/env python3
"""Store the Q4_1 matrices of a GGUF file as Q4_0, which llama.cpp has packed kernels for.

Everything else stays as it is. The same input always gives the same bytes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import fetch_models


def requantize(source: Path, target: Path) -> None:
    import gguf
    import numpy as np

    old, new = gguf.GGMLQuantizationType.Q4_1, gguf.GGMLQuantizationType.Q4_0
    reader = gguf.GGUFReader(source)
    architecture = reader.get_field("general.architecture").contents()
    writer = gguf.GGUFWriter(target, architecture)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        value = field.contents()
        if field.name == "general.file_type":
            value = int(gguf.LlamaFileType.MOSTLY_Q4_0)
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, value, kind, sub_type=inner)
    for tensor in reader.tensors:
        data, kind = np.array(tensor.data), tensor.tensor_type
        if kind == old:
            data = gguf.quants.quantize(gguf.quants.dequantize(data, old), new)
            kind = new
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: requantize.py SOURCE.gguf TARGET.gguf")
    with fetch_models.one_line_errors():
        packages = fetch_models.python_packages(
            fetch_models.cache_folder(), "conversion", fetch_models.CONVERSION_REQUIREMENTS
        )
        sys.path.insert(0, str(packages))
        requantize(Path(sys.argv[1]), Path(sys.argv[2]))


if __name__ == "__main__":
    main()
