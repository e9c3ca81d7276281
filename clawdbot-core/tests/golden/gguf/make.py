"""Writes `types.gguf`: for every block format a tensor of random blocks, and beside it what the `gguf` package
(PyPI, 0.19.0; numpy 2.4) makes of them, as F32. Run in this folder; the result is the same every time.
"""

import gguf
import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize

# Bytes of a block that hold f16 numbers: random ones would be infinite or not a number.
FLOATS = {
    Type.Q8_0: [0], Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.IQ4_NL: [0],
    Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
    Type.IQ4_XS: [0], Type.MXFP4: [],
}
ROWS, COLUMNS = 3, 512

random = np.random.default_rng(7)
writer = gguf.GGUFWriter("types.gguf", "none")
for kind, floats in FLOATS.items():
    weights, size = GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (ROWS * COLUMNS // weights, size), dtype=np.uint8)
    for at in floats:
        scales = (random.standard_normal(len(blocks)) * 0.01).astype(np.float16)
        blocks[:, at : at + 2] = scales.view(np.uint8).reshape(-1, 2)
    if kind == Type.MXFP4:
        # Exponents around 0, and the two that make subnormal scales.
        blocks[:, 0] = random.integers(110, 140, len(blocks))
        blocks[:2, 0] = [0, 1]
    if kind == Type.Q8_0:
        # Quantizers stay within -127..=127.
        blocks[blocks == 0x80] = 0x81
    data = blocks.reshape(ROWS, COLUMNS // weights * size)
    expected = dequantize(data, kind).astype(np.float32)
    assert np.isfinite(expected).all() and expected.shape == (ROWS, COLUMNS)
    writer.add_tensor(kind.name, data, raw_dtype=kind)
    writer.add_tensor(f"{kind.name}.expected", expected)
values = random.standard_normal((ROWS, COLUMNS)).astype(np.float32)
for kind in [Type.F16, Type.BF16]:
    data = gguf.quants.quantize(values, kind)
    writer.add_tensor(kind.name, data, raw_dtype=kind)
    writer.add_tensor(f"{kind.name}.expected", dequantize(data, kind).astype(np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
