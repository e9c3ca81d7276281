"""Writes small Llama directories in every quantized form that is read, and `expected.json`: for each the SHA-256 of every
matrix dequantized to f32, and the logits behind the last of `TOKENS`. Needs numpy alone; run in this folder, the result is
the same every time. `python make.py --check` compares the fixtures of compressed-tensors with what the published library
(PyPI compressed-tensors 0.20, torch 2.15) makes of them, and writes nothing.

The tensors are written here as the published libraries define them, from random codes and scales; what they stand for is
computed beside, without reading them back.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, HEAD, VOCAB = 160, 64, 2, 1, 16, 32
TOKENS = [1, 7, 30, 4, 4, 19, 2, 11]
PREFIX = "model.layers.0."
SIZES = {
    "self_attn.q_proj": (HEADS * HEAD, HIDDEN), "self_attn.k_proj": (KV_HEADS * HEAD, HIDDEN),
    "self_attn.v_proj": (KV_HEADS * HEAD, HIDDEN), "self_attn.o_proj": (HIDDEN, HEADS * HEAD),
    "mlp.gate_proj": (INTERMEDIATE, HIDDEN), "mlp.up_proj": (INTERMEDIATE, HIDDEN),
    "mlp.down_proj": (HIDDEN, INTERMEDIATE),
}
ATTENTION = [name for name in SIZES if name.startswith("self_attn")]
MLP = [name for name in SIZES if name.startswith("mlp")]
f32 = np.float32


# Element types.

def to_bf16(x):
    """Bits, rounded half to even."""
    bits = np.asarray(x, f32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bf16(bits):
    return (bits.astype(np.uint32) << 16).view(f32)


def e4m3_values():
    """Value of each byte of the E4M3 format without infinities."""
    values = np.zeros(256, np.float64)
    for byte in range(256):
        exponent, mantissa = byte >> 3 & 15, byte & 7
        value = mantissa / 8 * 2.0 ** -6 if exponent == 0 else (1 + mantissa / 8) * 2.0 ** (exponent - 7)
        values[byte] = -value if byte & 128 else value
    values[[127, 255]] = np.nan
    return values.astype(f32)


E4M3 = e4m3_values()
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], f32)
E2M1 = np.concatenate([E2M1, -E2M1])


class Tensor:
    def __init__(self, dtype, data, shape=None):
        self.dtype, self.data = dtype, np.ascontiguousarray(data)
        self.shape = list(data.shape if shape is None else shape)


def bf16(x):
    return Tensor("BF16", to_bf16(x)), from_bf16(to_bf16(x))


def f16(x):
    x = np.asarray(x).astype(np.float16)
    return Tensor("F16", x), x.astype(f32)


def full(x):
    return Tensor("F32", np.asarray(x, f32)), np.asarray(x, f32)


def i32(x):
    return Tensor("I32", np.asarray(x).astype(np.uint32).view(np.int32))


def words(codes, bits, axis, order=None):
    """Unsigned codes packed into words along `axis`: code `order[i]` of a word at bit `i * bits`."""
    codes = np.moveaxis(np.asarray(codes, np.uint32), axis, -1)
    per_word = 32 // bits
    padding = -codes.shape[-1] % per_word
    codes = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, padding)])
    codes = codes.reshape(*codes.shape[:-1], -1, per_word)
    packed = np.zeros(codes.shape[:-1], np.uint32)
    for i in range(per_word):
        packed |= codes[..., i if order is None else order[i]] << np.uint32(bits * i)
    return np.moveaxis(packed, -1, axis)


class Model:
    """Tensors as stored, and matrices as they are meant."""

    def __init__(self, seed, quantization):
        self.random = np.random.default_rng(seed)
        self.quantization = quantization
        self.tensors, self.matrices = {}, {}
        for name in ["input_layernorm", "post_attention_layernorm"]:
            self.put(f"{PREFIX}{name}.weight", bf16(1 + 0.1 * self.random.standard_normal(HIDDEN)))
        self.put("model.norm.weight", bf16(1 + 0.1 * self.random.standard_normal(HIDDEN)))
        self.plain("model.embed_tokens", (VOCAB, HIDDEN))

    def put(self, name, both):
        self.tensors[name], self.matrices[name] = both

    def plain(self, module, size):
        self.put(f"{module}.weight", bf16(0.5 * self.random.standard_normal(size)))

    def scales(self, *shape, size=0.02):
        return size * (0.5 + self.random.random(shape))

    def codes(self, low, high, *shape):
        codes = self.random.integers(low, high + 1, shape)
        # Both ends occur.
        codes.flat[3], codes.flat[-5] = low, high
        return codes

    def add(self, module, tensors, matrix):
        for suffix, tensor in tensors.items():
            self.tensors[f"{PREFIX}{module}.{suffix}"] = tensor
        assert matrix.dtype == f32 and matrix.shape == SIZES[module]
        self.matrices[f"{PREFIX}{module}.weight"] = matrix

    # compressed-tensors

    def int8(self, module, scale_of=bf16, per_tensor=False, symmetric=True):
        n, k = SIZES[module]
        codes = self.codes(-128, 127, n, k)
        stored, scales = scale_of(self.scales(1 if per_tensor else n, 1, size=0.002))
        if per_tensor:
            stored.shape = [1]
        tensors = {"weight": Tensor("I8", codes.astype(np.int8)), "weight_scale": stored}
        zeros = np.zeros((n, 1))
        if not symmetric:
            zeros = self.codes(-9, 20, n, 1)
            tensors["weight_zero_point"] = Tensor("I8", zeros.astype(np.int8))
        self.add(module, tensors, (codes - zeros).astype(f32) * scales)

    def packed(self, module, bits, group, scale_of=bf16, symmetric=True, ordered=False):
        n, k = SIZES[module]
        size = group or k
        groups = -(-k // size)
        half = 1 << bits - 1
        codes = self.codes(-half, half - 1, n, k)
        stored, scales = scale_of(self.scales(n, groups, size=0.3 / half))
        tensors = {
            "weight_packed": i32(words(codes + half, bits, 1)),
            "weight_scale": stored,
            "weight_shape": Tensor("I64", np.array([n, k])),
        }
        zeros = np.zeros((n, groups), int)
        if not symmetric:
            zeros = self.codes(-half, half - 1, n, groups)
            tensors["weight_zero_point"] = i32(words(zeros + half, bits, 0))
        g_idx = np.arange(k) // size
        if ordered:
            g_idx = self.random.permutation(g_idx)
            tensors["weight_g_idx"] = Tensor("I32", g_idx.astype(np.int32))
        self.add(module, tensors, (codes - zeros[:, g_idx]).astype(f32) * scales[:, g_idx])

    def fp8(self, module, block, name="weight_scale", scale_of=bf16):
        n, k = SIZES[module]
        rows, columns = block[0] or n, block[1] or k
        codes = self.random.integers(0, 256, (n, k)).astype(np.uint8)
        codes[np.isnan(E4M3[codes])] = 1
        stored, scales = scale_of(self.scales(-(-n // rows), -(-k // columns), size=0.002))
        spread = np.repeat(np.repeat(scales, rows, 0)[:n], columns, 1)[:, :k]
        if scales.size == 1:
            stored.shape = [1]
        tensors = {"weight": Tensor("F8_E4M3", codes), name: stored}
        self.add(module, tensors, E4M3[codes] * spread)

    def mxfp4(self, module):
        n, k = SIZES[module]
        codes = self.random.integers(0, 16, (n, k)).astype(np.uint8)
        scales = self.random.integers(120, 125, (n, k // 32)).astype(np.uint8)
        tensors = {
            "weight_packed": Tensor("U8", codes[:, 0::2] | codes[:, 1::2] << 4),
            "weight_scale": Tensor("U8", scales),
        }
        self.add(module, tensors, E2M1[codes] * np.repeat(f32(2) ** (scales.astype(f32) - 127), 32, 1))

    def nvfp4(self, module):
        n, k = SIZES[module]
        codes = self.random.integers(0, 16, (n, k)).astype(np.uint8)
        scales = self.random.integers(1, 126, (n, k // 16)).astype(np.uint8)
        divisor = f32(1234.5)
        tensors = {
            "weight_packed": Tensor("U8", codes[:, 0::2] | codes[:, 1::2] << 4),
            "weight_scale": Tensor("F8_E4M3", scales),
            "weight_global_scale": Tensor("F32", np.array([divisor], f32)),
        }
        self.add(module, tensors, E2M1[codes] * np.repeat(E4M3[scales] / divisor, 16, 1))

    # GPTQ and AWQ: inputs before outputs.

    def gptq(self, module, bits, group, symmetric, ordered, less_one):
        n, k = SIZES[module]
        size = group or k
        groups, half = -(-k // size), 1 << bits - 1
        codes = self.codes(0, 2 * half - 1, k, n)
        stored, scales = f16(self.scales(groups, n, size=0.3 / half))
        zeros = np.full((groups, n), half) if symmetric else self.codes(0, 2 * half - 1, groups, n)
        g_idx = np.arange(k) // size
        if ordered:
            g_idx = self.random.permutation(g_idx)
        packed = words(zeros, bits, 1)
        if less_one:
            # As the library does, word by word: a zero point of 0 borrows from its neighbour.
            packed = packed - np.uint32(0x11111111 if bits == 4 else 0x01010101)
        tensors = {
            "qweight": i32(words(codes, bits, 0)), "qzeros": i32(packed), "scales": stored,
            "g_idx": Tensor("I32", g_idx.astype(np.int32)),
        }
        self.add(module, tensors, np.ascontiguousarray(((codes - zeros[g_idx]).astype(f32) * scales[g_idx]).T))
        # As quantizers write it for modules without a bias.
        self.tensors[f"{PREFIX}{module}.bias"] = Tensor("F16", np.zeros(n, np.float16))

    def awq(self, module, group):
        n, k = SIZES[module]
        codes, zeros = self.codes(0, 15, k, n), self.codes(0, 15, k // group, n)
        stored, scales = f16(self.scales(k // group, n, size=0.04))
        order = [0, 2, 4, 6, 1, 3, 5, 7]
        tensors = {
            "qweight": i32(words(codes, 4, 1, order)), "qzeros": i32(words(zeros, 4, 1, order)), "scales": stored,
        }
        g_idx = np.arange(k) // group
        self.add(module, tensors, np.ascontiguousarray(((codes - zeros[g_idx]).astype(f32) * scales[g_idx]).T))

    # Result.

    def write(self, name):
        directory = Path(name)
        directory.mkdir(exist_ok=True)
        config = {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "vocab_size": VOCAB,
            "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_hidden_layers": 1,
            "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "head_dim": HEAD, "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2,
            "tie_word_embeddings": True, "torch_dtype": "bfloat16", "quantization_config": self.quantization,
        }
        (directory / "config.json").write_text(json.dumps(config, indent=1) + "\n")
        header, data = {}, b""
        for tensor in sorted(self.tensors):
            stored = self.tensors[tensor]
            raw = stored.data.tobytes()
            header[tensor] = {
                "dtype": stored.dtype, "shape": stored.shape, "data_offsets": [len(data), len(data) + len(raw)]
            }
            data += raw
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        (directory / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
        # Zeros without a sign.
        digest = lambda matrix: hashlib.sha256((matrix + f32(0)).astype("<f4").tobytes()).hexdigest()
        matrices = {key: digest(matrix) for key, matrix in sorted(self.matrices.items()) if matrix.ndim == 2}
        return {"sha256": matrices, "logits": [round(float(x), 6) for x in self.logits()]}

    def logits(self):
        matrix = lambda name: self.matrices[name].astype(np.float64)
        norm = lambda x, name: x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * matrix(name)
        linear = lambda x, name: x @ matrix(f"{PREFIX}{name}.weight").T
        x = matrix("model.embed_tokens.weight")[TOKENS]
        length = len(TOKENS)
        angles = np.arange(length)[:, None] / 10000.0 ** (np.arange(HEAD // 2) * 2 / HEAD)
        cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]

        def heads(y, count):
            y = y.reshape(length, count, HEAD)
            a, b = y[..., : HEAD // 2], y[..., HEAD // 2 :]
            return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

        h = norm(x, f"{PREFIX}input_layernorm.weight")
        q = heads(linear(h, "self_attn.q_proj"), HEADS)
        k = heads(linear(h, "self_attn.k_proj"), KV_HEADS).repeat(HEADS // KV_HEADS, 1)
        v = linear(h, "self_attn.v_proj").reshape(length, KV_HEADS, HEAD).repeat(HEADS // KV_HEADS, 1)
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(HEAD)
        scores += np.triu(np.full((length, length), -np.inf), 1)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        x = x + linear(np.einsum("hij,jhd->ihd", scores, v).reshape(length, -1), "self_attn.o_proj")
        h = norm(x, f"{PREFIX}post_attention_layernorm.weight")
        gate = linear(h, "mlp.gate_proj")
        x = x + linear(gate / (1 + np.exp(-gate)) * linear(h, "mlp.up_proj"), "mlp.down_proj")
        return norm(x[-1], "model.norm.weight") @ matrix("model.embed_tokens.weight").T


def weights(bits, kind="int", symmetric=True, strategy="channel", group=None, **more):
    return {
        "num_bits": bits, "type": kind, "symmetric": symmetric, "strategy": strategy, "group_size": group,
        "dynamic": False, "observer": "minmax", **more,
    }


def compressed(form, groups, ignore=("lm_head",), **more):
    activations = {**weights(8), "strategy": "token", "dynamic": True}
    return {
        "quant_method": "compressed-tensors", "format": form, "quantization_status": "compressed",
        "config_groups": {
            f"group_{i}": {
                "targets": targets, "weights": args, "output_activations": None,
                "input_activations": activations if form == "int-quantized" else None, **own,
            }
            for i, (targets, args, own) in enumerate(groups)
        },
        "ignore": list(ignore), "kv_cache_scheme": None, "global_compression_ratio": None, **more,
    }


def models():
    # Every weight type of compressed-tensors; patterns of all kinds choose between them.
    model = Model(1, compressed("int-quantized", [
        (["Linear"], weights(8), {}),
        (["re:.*[kv]_proj$"], weights(8, strategy="tensor"), {}),
        ([f"{PREFIX}mlp.down_proj"], weights(8, symmetric=False), {}),
    ], ["lm_head", "re:.*up_proj"]))
    for module in SIZES:
        if module == "mlp.up_proj":
            model.plain(PREFIX + module, SIZES[module])
        elif module[10:11] in "kv":
            model.int8(module, f16, per_tensor=True)
        else:
            model.int8(module, full if module == "mlp.gate_proj" else bf16, symmetric=module != "mlp.down_proj")
    yield "w8a8", model

    model = Model(2, compressed("pack-quantized", [
        (["re:.*self_attn.*"], weights(4, strategy="group", group=32), {}),
        (["re:.*gate_proj", "re:.*up_proj"], weights(4, symmetric=False, strategy="group", group=32), {}),
        (["re:.*down_proj"], weights(4), {}),
        (["re:.*v_proj"], weights(8, strategy="group", group=32), {}),
        ([f"{PREFIX}self_attn.v_proj"], weights(8, symmetric=False, strategy="group", group=16), {}),
    ]))
    model.packed("self_attn.q_proj", 4, 32)
    model.packed("self_attn.k_proj", 4, 32, f16)
    model.packed("self_attn.v_proj", 8, 16, symmetric=False)
    model.packed("self_attn.o_proj", 4, 32, full)
    model.packed("mlp.gate_proj", 4, 32, symmetric=False)
    model.packed("mlp.up_proj", 4, 32, full, symmetric=False)
    model.packed("mlp.down_proj", 4, None)
    yield "w4a16", model

    model = Model(3, compressed("pack-quantized", [
        (["Linear"], weights(4, strategy="group", group=32, actorder="group"), {}),
    ]))
    for module in SIZES:
        model.packed(module, 4, 32, symmetric=True, ordered=True)
    yield "w4a16-actorder", model

    gptq = lambda bits, group, **more: {"quant_method": "gptq", "bits": bits, "group_size": group, **more}
    model = Model(4, gptq(4, 32, sym=True, desc_act=False, checkpoint_format="gptq"))
    for module in SIZES:
        model.gptq(module, 4, 32, True, False, True)
    yield "gptq4", model
    model = Model(5, gptq(4, 32, sym=False, desc_act=True, checkpoint_format="gptq_v2"))
    for module in SIZES:
        model.gptq(module, 4, 32, False, True, False)
    yield "gptq4-ordered", model
    model = Model(6, gptq(8, -1, sym=False, desc_act=True))
    for module in SIZES:
        model.gptq(module, 8, None, False, False, True)
    yield "gptq8", model

    model = Model(7, {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"})
    for module in SIZES:
        model.awq(module, 32)
    yield "awq", model

    model = Model(8, {
        "quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [24, 48],
    })
    for module in SIZES:
        if module == "self_attn.o_proj":
            model.plain(PREFIX + module, SIZES[module])
        else:
            model.fp8(module, (24, 48), "weight_scale_inv", full)
    yield "fp8-block", model
    floats = lambda **more: weights(8, "float", **more)
    model = Model(9, compressed("float-quantized", [
        (["Linear"], floats(), {}),
        (["re:.*mlp.*"], floats(strategy="tensor"), {}),
        ([f"{PREFIX}mlp.down_proj"], floats(strategy="block", block_structure=[128, 32]), {}),
    ]))
    for module in SIZES:
        block = (128, 32) if module == "mlp.down_proj" else (None if module in MLP else 1, None)
        model.fp8(module, block)
    yield "fp8", model

    fp4 = lambda group: weights(4, "float", strategy="tensor_group" if group == 16 else "group", group=group)
    model = Model(10, compressed("mixed-precision", [
        (["re:.*self_attn.*"], fp4(32), {"format": "mxfp4-pack-quantized"}),
        (["re:.*mlp.*"], fp4(16), {"format": "nvfp4-pack-quantized"}),
    ]))
    for module in SIZES:
        model.mxfp4(module) if module in ATTENTION else model.nvfp4(module)
    yield "fp4", model


def check():
    """Compares with the published library. Its functions take tensors, so no model is built."""
    import re

    import torch
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    types = {"BF16": torch.bfloat16, "F16": torch.float16, "F8_E4M3": torch.float8_e4m3fn}

    def torch_tensor(tensor):
        if tensor.dtype in types:
            return torch.from_numpy(tensor.data.copy()).view(types[tensor.dtype]).reshape(tensor.shape)
        return torch.from_numpy(tensor.data.copy()).reshape(tensor.shape)

    for name, model in models():
        # Later versions of the library have given up orders of inputs (`actorder` "group").
        if model.quantization["quant_method"] != "compressed-tensors" or name == "w4a16-actorder":
            continue
        for module in SIZES:
            prefix = f"{PREFIX}{module}."
            tensors = {
                key.removeprefix(prefix): torch_tensor(tensor)
                for key, tensor in model.tensors.items() if key.startswith(prefix)
            }
            if len(tensors) == 1:
                continue
            found = None
            for group in model.quantization["config_groups"].values():
                for target in group["targets"]:
                    rank = 2 if target == prefix[:-1] else None
                    if target.startswith("re:") and re.match(target[3:], prefix[:-1]):
                        rank = 1
                    rank = 0 if target == "Linear" else rank
                    if rank is not None and (found is None or rank > found[0]):
                        found = (rank, group)
            group = found[1]
            form = group.get("format", model.quantization["format"])
            # f32 scales, so that the library computes in f32.
            for key in ["weight_scale", "weight_global_scale"]:
                if key in tensors and tensors[key].dtype in (torch.bfloat16, torch.float16):
                    tensors[key] = tensors[key].to(torch.float32)
            if tensors.get("weight_shape") is not None:
                tensors["weight_shape"] = torch.Size(tensors["weight_shape"].tolist())
            scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**group["weights"]))
            compressor = BaseCompressor.get_value_from_registry(form)
            result = compressor.decompress(tensors, scheme)["weight"].float().numpy()
            expected = model.matrices[f"{prefix}weight"]
            error = np.abs(result - expected).max() / np.abs(expected).max()
            print(name, module, form, "largest relative difference", error)
            # The library divides the scales of NVFP4 in bf16.
            assert error < (4e-3 if form.startswith("nvfp4") else 1e-6)


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        check()
    else:
        expected = {name: model.write(name) for name, model in models()}
        Path("expected.json").write_text(json.dumps({"tokens": TOKENS, "models": expected}, indent=1) + "\n")
        vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"w{i}": i for i in range(3, VOCAB)}}
        special = [
            {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
             "special": True}
            for text, i in list(vocab.items())[:3]
        ]
        tokenizer = {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
            "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
            "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
        }
        Path("tokenizer.json").write_text(json.dumps(tokenizer, indent=1) + "\n")
