"""Writes model files with random weights in the shapes of published models: one writer per engine, no torch or transformers.

Speed depends on shapes and storage formats, not on values; values are small enough for activations to stay finite. Runs
in the environment that `bench.py` makes.
"""
import dataclasses
import itertools
import pathlib


@dataclasses.dataclass(frozen=True)
class Shape:
    """Dimensions as in a Hugging Face config.json; the head is tied to the embeddings."""

    arch: str
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocab: int
    head_dim: int
    rope_theta: float
    eps: float

    @property
    def bias(self) -> bool:
        """Whether the projections of q, k and v have biases."""
        return self.arch == "qwen2"

    def projections(self) -> dict[str, tuple[int, int]]:
        """The matrices of a layer: name -> (outputs, inputs)."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q": (q, self.hidden), "k": (kv, self.hidden), "v": (kv, self.hidden), "o": (self.hidden, q),
            "gate": (self.intermediate, self.hidden), "up": (self.intermediate, self.hidden),
            "down": (self.hidden, self.intermediate),
        }


SHAPES = {
    "llama-3.2-1b": Shape("llama", 2048, 16, 32, 8, 8192, 128256, 64, 500000.0, 1e-5),
    "qwen2.5-0.5b": Shape("qwen2", 896, 24, 14, 2, 4864, 151936, 64, 1000000.0, 1e-6),
}


# All matrices differ: writers store equal ones once, and a model with few distinct matrices would fit into a cache.
SEEDS = itertools.count(1)


def random_bytes(count: int):
    import numpy as np

    return np.random.default_rng(next(SEEDS)).integers(0, 256, count, dtype=np.uint8)


# ---------------------------------------------------------------------------------------------------------- llama.cpp
def write_gguf(shape: Shape, precision: str, path: pathlib.Path) -> None:
    """One file; matrices in `precision`, but where llama.cpp's quantizer spends more: embeddings and head of Q4_0 and
    Q4_K_M, and v and down of some layers of the latter, in Q6_K."""
    import gguf
    import numpy as np

    kinds = gguf.GGMLQuantizationType
    writer = gguf.GGUFWriter(str(path), shape.arch)
    writer.add_context_length(32768)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.eps)
    writer.add_vocab_size(shape.vocab)
    if shape.arch == "llama":
        writer.add_rope_dimension_count(shape.head_dim)
    writer.add_file_type(getattr(gguf.LlamaFileType, f"MOSTLY_{precision}"))
    # The vocabulary is required but never used: engines get token ids.
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(["t", "0", "t0"] + [f"t{i}" for i in range(3, shape.vocab)])
    writer.add_token_types([gguf.TokenType.NORMAL] * shape.vocab)
    writer.add_token_merges(["t 0"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)

    def matrix(name: str, rows: int, columns: int, precision: str = precision) -> None:
        kind = kinds[precision]
        if precision == "BF16":
            # A quarter of the values are small negative and positive numbers each: +-2^-8 .. 2^-6.
            data = (random_bytes(rows * columns * 2).view(np.uint16) & 0x80FF) | 0x3B80
            writer.add_tensor(name, data.reshape(rows, columns).view(np.uint8), raw_dtype=kind)
            return
        if columns % gguf.GGML_QUANT_SIZES[kind][0] != 0:
            # Rows that are not a multiple of 256 get a format with smaller blocks, as its quantizer does.
            return matrix(name, rows, columns, "Q5_0" if precision == "Q4_K" else "Q8_0")
        block, size = gguf.GGML_QUANT_SIZES[kind]
        data = random_bytes(rows * columns // block * size).reshape(rows, columns // block, size)
        scale = {"Q8_0": 3e-4, "Q4_0": 4e-3, "Q5_0": 2e-3, "Q6_K": 1.5e-5, "Q4_K": 1e-4}[precision]
        scale = np.array([scale], dtype=np.float16).view(np.uint8)
        if precision == "Q8_0":
            # Quantizers stay within -127..127.
            data[data == 0x80] = 0x81
        data[..., slice(-2, None) if precision == "Q6_K" else slice(0, 2)] = scale
        if precision == "Q4_K":
            data[..., 2:4] = scale
        writer.add_tensor(name, data.reshape(rows, -1), raw_dtype=kind)

    def vector(name: str, length: int, value: float) -> None:
        writer.add_tensor(name, np.full(length, value, dtype=np.float32))

    small = precision in ("Q4_0", "Q4_K_M")
    plain = "Q4_K" if precision == "Q4_K_M" else precision

    def of_layer(name: str, layer: int) -> str:
        eighth = shape.layers // 8
        more = layer < eighth or layer >= 7 * eighth or (layer - eighth) % 3 == 2
        return "Q6_K" if precision == "Q4_K_M" and name in ("v", "down") and more else plain

    matrix("token_embd.weight", shape.vocab, shape.hidden, "Q6_K" if small else precision)
    vector("output_norm.weight", shape.hidden, 1.0)
    names = {"q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output",
             "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}
    for layer in range(shape.layers):
        prefix = f"blk.{layer}."
        vector(prefix + "attn_norm.weight", shape.hidden, 1.0)
        vector(prefix + "ffn_norm.weight", shape.hidden, 1.0)
        for name, (rows, columns) in shape.projections().items():
            matrix(f"{prefix}{names[name]}.weight", rows, columns, of_layer(name, layer))
            if shape.bias and name in "qkv":
                vector(f"{prefix}{names[name]}.bias", rows, 0.0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# -------------------------------------------------------------------------------------------------------- CTranslate2
def write_ctranslate2(shape: Shape, precision: str, path: pathlib.Path) -> None:
    """The output of its converter for transformers models: fused q, k and v, gated feed-forward, quantized by its own code."""
    import numpy as np
    from ctranslate2.specs import common_spec, transformer_spec

    spec = transformer_spec.TransformerDecoderModelSpec.from_config(
        shape.layers, shape.heads, activation=common_spec.Activation.SWISH, pre_norm=True, ffn_glu=True, rms_norm=True,
        rotary_dim=0, rotary_interleave=False, rotary_base=shape.rope_theta, num_heads_kv=shape.kv_heads)

    def matrix(rows: int, columns: int):
        return np.random.default_rng(next(SEEDS)).standard_normal((rows, columns), dtype=np.float32) * np.float32(0.02)

    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = matrix(shape.vocab, shape.hidden)
    decoder.projection.weight = decoder.embeddings.weight
    decoder.layer_norm.gamma = np.ones(shape.hidden, dtype=np.float32)
    for layer in decoder.layer:
        sizes = shape.projections()
        qkv = sum(sizes[name][0] for name in "qkv")
        layer.self_attention.layer_norm.gamma = np.ones(shape.hidden, dtype=np.float32)
        layer.ffn.layer_norm.gamma = np.ones(shape.hidden, dtype=np.float32)
        layer.self_attention.linear[0].weight = matrix(qkv, shape.hidden)
        if shape.bias:
            layer.self_attention.linear[0].bias = np.zeros(qkv, dtype=np.float32)
        layer.self_attention.linear[1].weight = matrix(*sizes["o"])
        layer.ffn.linear_0.weight = matrix(*sizes["gate"])
        layer.ffn.linear_0_noact.weight = matrix(*sizes["up"])
        layer.ffn.linear_1.weight = matrix(*sizes["down"])
    tokens = [f"t{i}" for i in range(shape.vocab)]
    spec.register_vocabulary(tokens)
    spec.config.bos_token = spec.config.eos_token = spec.config.unk_token = tokens[0]
    spec.config.layer_norm_epsilon = shape.eps
    spec.validate()
    spec.optimize(quantization=precision)
    path.mkdir()
    spec.save(str(path))


# ----------------------------------------------------------------------------------------------------------- OpenVINO
def write_openvino(shape: Shape, precision: str, path: pathlib.Path) -> None:
    """The graph and the weight formats of `optimum-cli export openvino --weight-format int8|int4`.

    int8: asymmetric u8 with a scale for each output channel. int4: asymmetric u4 in groups of 128, embeddings and head
    as in int8. State as ReadValue/Assign with a beam index, so that every pipeline of GenAI accepts the model.
    """
    import json

    import numpy as np
    import openvino as ov
    from openvino import opset13 as op

    def const(value, kind):
        return op.constant(np.array(value, dtype=kind))

    def channels(rows: int, columns: int):
        data = op.constant(random_bytes(rows * columns).reshape(rows, columns))
        zero = op.constant(np.full((rows, 1), 128, dtype=np.uint8))
        scale = op.constant(np.full((rows, 1), 3e-4, dtype=np.float16))
        shifted = op.subtract(op.convert(data, "f16"), op.convert(zero, "f16"))
        return op.convert(op.multiply(shifted, scale), "f32")

    # A constant of a tensor borrows the tensor's memory.
    borrowed = []

    def groups(rows: int, columns: int, group: int = 128):
        def packed(bytes_, dims):
            borrowed.append(bytes_)
            return op.constant(ov.Tensor(bytes_, ov.Shape(dims), ov.Type.u4))

        count = columns // group
        data = packed(random_bytes(rows * columns // 2), [rows, count, group])
        zero = packed(np.full(rows * count // 2, 0x88, dtype=np.uint8), [rows, count, 1])
        scale = op.constant(np.full((rows, count, 1), 4e-3, dtype=np.float16))
        shifted = op.subtract(op.convert(data, "f16"), op.convert(zero, "f16"))
        flat = op.reshape(op.multiply(shifted, scale), const([rows, columns], np.int64), False)
        return op.convert(flat, "f32")

    matrix = {"int8": channels, "int4": groups}[precision]

    def norm(x):
        squares = op.power(x, const(2.0, np.float32))
        mean = op.reduce_mean(squares, const([-1], np.int64), True)
        root = op.sqrt(op.add(mean, const(shape.eps, np.float32)))
        return op.multiply(op.constant(np.ones((1, 1, shape.hidden), np.float32)),
                           op.multiply(x, op.divide(const(1.0, np.float32), root)))

    def linear(x, name):
        rows, columns = shape.projections()[name]
        y = op.matmul(x, matrix(rows, columns), False, True)
        if shape.bias and name in "qkv":
            y = op.add(y, op.constant(np.full((1, 1, rows), 1e-3, np.float32)))
        return y

    def split_heads(x, heads):
        shaped = op.reshape(x, const([0, 0, heads, shape.head_dim], np.int64), True)
        return op.transpose(shaped, const([0, 2, 1, 3], np.int64))

    def named(name, dims, kind):
        node = op.parameter(dims, kind)
        node.set_friendly_name(name)
        node.output(0).get_tensor().set_names({name})
        return node

    input_ids = named("input_ids", [-1, -1], np.int64)
    attention_mask = named("attention_mask", [-1, -1], np.int64)
    position_ids = named("position_ids", [-1, -1], np.int64)
    beam_idx = named("beam_idx", [-1], np.int32)
    inputs = [input_ids, attention_mask, position_ids, beam_idx]

    embeddings = channels(shape.vocab, shape.hidden)
    x = op.gather(embeddings, op.convert(input_ids, "i32"), const(0, np.int32))
    batch = op.gather(op.shape_of(input_ids, "i64"), const([0], np.int64), const(0, np.int64))

    frequencies = shape.rope_theta ** (-np.arange(0, shape.head_dim, 2, dtype=np.float64) / shape.head_dim)
    frequencies = op.constant(frequencies.astype(np.float32).reshape(1, -1, 1))
    positions = op.convert(op.unsqueeze(position_ids, const(1, np.int64)), "f32")
    angles = op.transpose(op.matmul(frequencies, positions, False, False), const([0, 2, 1], np.int64))
    angles = op.concat([angles, angles], -1)
    cosine = op.unsqueeze(op.cos(angles), const(1, np.int64))
    sine = op.unsqueeze(op.sin(angles), const(1, np.int64))

    def rotate(x):
        half = shape.head_dim // 2
        axis, step = const([3], np.int64), const([1], np.int64)
        first = op.slice(x, const([0], np.int64), const([half], np.int64), step, axis)
        second = op.slice(x, const([half], np.int64), const([2**63 - 1], np.int64), step, axis)
        turned = op.concat([op.multiply(second, const([[[[-1.0]]]], np.float32)), first], -1)
        return op.add(op.multiply(x, cosine), op.multiply(turned, sine))

    # 0 where a query sees a key, a large negative number elsewhere: [batch, 1, queries, keys].
    queries = op.gather(op.shape_of(input_ids, "i64"), const(1, np.int64), const(0, np.int64))
    keys = op.gather(op.shape_of(attention_mask, "i64"), const(1, np.int64), const(0, np.int64))
    key_at = op.range(const(0, np.int64), keys, const(1, np.int64), "i64")
    query_at = op.add(op.range(const(0, np.int64), queries, const(1, np.int64), "i64"), op.subtract(keys, queries))
    causal = op.less_equal(op.unsqueeze(key_at, const(0, np.int64)), op.unsqueeze(query_at, const(1, np.int64)))
    real = op.unsqueeze(op.convert(attention_mask, "boolean"), const([1, 2], np.int64))
    mask = op.select(op.logical_and(causal, real), const(0.0, np.float32), const(-65504.0, np.float32))

    sinks = []

    def cached(new, name):
        """All rows so far: [batch, KV heads, keys, head dimension], and the same for each query head of a group."""
        from openvino.op.util import Variable, VariableInfo

        info = VariableInfo()
        info.data_shape = ov.PartialShape([-1, shape.kv_heads, -1, shape.head_dim])
        info.data_type, info.variable_id = ov.Type.f32, name
        variable = Variable(info)
        rest = const([shape.kv_heads, 0, shape.head_dim], np.int64)
        empty = op.broadcast(const(0.0, np.float32), op.concat([batch, rest], 0))
        past = op.gather(op.read_value(empty, variable), beam_idx, const(0, np.int64))
        rows = op.concat([past, new], 2)
        sinks.append(op.assign(rows, variable))
        ratio = shape.heads // shape.kv_heads
        wide = op.unsqueeze(rows, const(2, np.int64))
        wide = op.broadcast(wide, const([1, 1, ratio, 1, 1], np.int64), broadcast_spec="BIDIRECTIONAL")
        return op.reshape(wide, const([0, shape.heads, -1, shape.head_dim], np.int64), True)

    for layer in range(shape.layers):
        normed = norm(x)
        q = rotate(split_heads(linear(normed, "q"), shape.heads))
        k = rotate(split_heads(linear(normed, "k"), shape.kv_heads))
        v = split_heads(linear(normed, "v"), shape.kv_heads)
        k = cached(k, f"past_key_values.{layer}.keypresent.{layer}.key")
        v = cached(v, f"past_key_values.{layer}.valuepresent.{layer}.value")
        heads = op.scaled_dot_product_attention(q, k, v, mask)
        joined = op.reshape(op.transpose(heads, const([0, 2, 1, 3], np.int64)),
                            const([0, 0, shape.heads * shape.head_dim], np.int64), True)
        x = op.add(x, linear(joined, "o"))
        normed = norm(x)
        gated = op.multiply(op.swish(linear(normed, "gate")), linear(normed, "up"))
        x = op.add(x, linear(gated, "down"))
    logits = op.result(op.matmul(norm(x), embeddings, False, True))
    logits.output(0).get_tensor().set_names({"logits"})
    model = ov.Model([logits], sinks, inputs, shape.arch)
    path.mkdir()
    ov.save_model(model, path / "openvino_model.xml", compress_to_fp16=False)
    for name, texts in [("openvino_tokenizer", text_model(True)), ("openvino_detokenizer", text_model(False))]:
        ov.save_model(texts, path / f"{name}.xml", compress_to_fp16=False)
    config = {"model_type": shape.arch, "vocab_size": shape.vocab, "num_hidden_layers": shape.layers,
              "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads,
              "hidden_size": shape.hidden, "head_dim": shape.head_dim, "bos_token_id": 0, "eos_token_id": 0}
    (path / "config.json").write_text(json.dumps(config))
    (path / "generation_config.json").write_text(json.dumps({"bos_token_id": 0, "eos_token_id": 0}))


def text_model(tokenizer: bool):
    """GenAI wants a tokenizer and a detokenizer. These turn every text into token 1, and all tokens into "t"."""
    import numpy as np
    import openvino as ov
    from openvino import opset15 as op

    one = op.constant(np.array([1], dtype=np.int64))
    if tokenizer:
        texts = op.parameter([-1], ov.Type.string, "string_input")
        rows = op.shape_of(op.string_tensor_unpack(texts).output(0), "i64")
        results = [("input_ids", 1), ("attention_mask", 1)]
        outputs = []
        for name, value in results:
            filled = op.broadcast(op.constant(np.array(value, dtype=np.int64)), op.concat([rows, one], 0))
            result = op.result(filled)
            result.output(0).get_tensor().set_names({name})
            outputs.append(result)
        return ov.Model(outputs, [texts], "tokenizer")
    ids = op.parameter([-1, -1], np.int64, "input_ids")
    rows = op.gather(op.shape_of(ids, "i64"), op.constant(np.array([0], np.int64)), op.constant(np.array(0, np.int64)))
    begins = op.convert(op.broadcast(op.constant(np.array(0, np.int64)), rows), "i32")
    ends = op.convert(op.broadcast(op.constant(np.array(1, np.int64)), rows), "i32")
    texts = op.string_tensor_pack(begins, ends, op.constant(np.frombuffer(b"t", dtype=np.uint8)))
    result = op.result(texts)
    result.output(0).get_tensor().set_names({"string_output"})
    return ov.Model([result], [ids], "detokenizer")
