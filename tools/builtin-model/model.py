"""The Llama architecture as plain JAX functions.

Parameters live in one flat dict whose keys are the Hugging Face tensor names
and whose matrices have the Hugging Face layout ``[out, in]``, so a checkpoint
can be exported without renaming or transposing.

Shape letters used below: B batch, T time, D hidden size, H query heads,
K key/value heads, G = H / K queries per key head, E head size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

Params = dict[str, jax.Array]
PAD = 0  # the id of <unk>, which a byte-level tokenizer never produces


@dataclass(frozen=True)
class Config:
    """Sizes of the network, named as in Hugging Face's ``LlamaConfig``."""

    vocab_size: int = 1024
    hidden_size: int = 256
    intermediate_size: int = 640
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    max_position_embeddings: int = 1024
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0


def matrix_shapes(cfg: Config) -> dict[str, tuple[int, int]]:
    """Names and ``[out, in]`` shapes of every matrix (the head is tied to the embedding)."""
    d, f = cfg.hidden_size, cfg.intermediate_size
    q, kv = cfg.num_attention_heads * cfg.head_dim, cfg.num_key_value_heads * cfg.head_dim
    shapes = {"model.embed_tokens.weight": (cfg.vocab_size, d)}
    for i in range(cfg.num_hidden_layers):
        p = f"model.layers.{i}."
        shapes |= {
            p + "self_attn.q_proj.weight": (q, d),
            p + "self_attn.k_proj.weight": (kv, d),
            p + "self_attn.v_proj.weight": (kv, d),
            p + "self_attn.o_proj.weight": (d, q),
            p + "mlp.gate_proj.weight": (f, d),
            p + "mlp.up_proj.weight": (f, d),
            p + "mlp.down_proj.weight": (d, f),
        }
    return shapes


def norm_names(cfg: Config) -> list[str]:
    """Names of every RMSNorm gain, each of shape ``[D]``."""
    kinds = ("input_layernorm", "post_attention_layernorm")
    layers = range(cfg.num_hidden_layers)
    return [f"model.layers.{i}.{k}.weight" for i in layers for k in kinds] + ["model.norm.weight"]


def init_params(cfg: Config, seed: int) -> Params:
    """Normal matrices of variance 1 / fan-in; those that write to the residual stream are scaled down."""
    rng = np.random.default_rng(seed)
    params: dict[str, np.ndarray] = {}
    for name, shape in matrix_shapes(cfg).items():
        writes_residual = "o_proj" in name or "down_proj" in name
        depth = 2 * cfg.num_hidden_layers if writes_residual else 1
        params[name] = rng.normal(0.0, (shape[1] * depth) ** -0.5, shape).astype(np.float32)
    for name in norm_names(cfg):
        params[name] = np.ones(cfg.hidden_size, np.float32)
    return {k: jnp.asarray(v) for k, v in params.items()}


def rms_norm(x: jax.Array, gain: jax.Array, eps: float) -> jax.Array:
    """``x [..., D]`` divided by its root mean square, times ``gain [D]``."""
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + eps) * gain


def rope_tables(cfg: Config, length: int) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines ``[T, 1, E]`` of the rotary embedding ("rotate half" order)."""
    inv_freq = cfg.rope_theta ** (-np.arange(0, cfg.head_dim, 2) / cfg.head_dim)
    angles = np.outer(np.arange(length), inv_freq)
    angles = np.concatenate([angles, angles], axis=-1)[:, None, :].astype(np.float32)
    return jnp.cos(angles), jnp.sin(angles)


def apply_rope(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotates ``x [B, T, heads, E]`` by the tables ``[T, 1, E]``."""
    lo, hi = jnp.split(x, 2, axis=-1)
    return x * cos + jnp.concatenate([-hi, lo], axis=-1) * sin


def attention(cfg: Config, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Causal grouped-query attention: ``q [B, T, H, E]``, ``k`` and ``v [B, T, K, E]`` to ``[B, T, H * E]``."""
    b, t = q.shape[:2]
    kv = cfg.num_key_value_heads
    q = q.reshape(b, t, kv, -1, cfg.head_dim) * cfg.head_dim**-0.5
    visible = np.tril(np.ones((t, t), bool))
    scores = jnp.where(visible, jnp.einsum("btkge,bske->bkgts", q, k), -1e9)
    weights = jax.nn.softmax(scores, axis=-1)
    return jnp.einsum("bkgts,bske->btkge", weights, v).reshape(b, t, -1)


def forward(cfg: Config, params: Params, tokens: jax.Array) -> jax.Array:
    """Logits ``[B, T, V]`` for ``tokens [B, T]``, each row a document from its first token on."""
    b, t = tokens.shape
    cos, sin = rope_tables(cfg, t)
    embed = params["model.embed_tokens.weight"]
    x = embed[tokens]
    for i in range(cfg.num_hidden_layers):
        w = lambda name: params[f"model.layers.{i}.{name}.weight"]  # noqa: E731, B023
        h = rms_norm(x, w("input_layernorm"), cfg.rms_norm_eps)
        q = (h @ w("self_attn.q_proj").T).reshape(b, t, -1, cfg.head_dim)
        k = (h @ w("self_attn.k_proj").T).reshape(b, t, -1, cfg.head_dim)
        v = (h @ w("self_attn.v_proj").T).reshape(b, t, -1, cfg.head_dim)
        a = attention(cfg, apply_rope(q, cos, sin), apply_rope(k, cos, sin), v)
        x = x + a @ w("self_attn.o_proj").T
        h = rms_norm(x, w("post_attention_layernorm"), cfg.rms_norm_eps)
        x = x + (jax.nn.silu(h @ w("mlp.gate_proj").T) * (h @ w("mlp.up_proj").T)) @ w("mlp.down_proj").T
    return rms_norm(x, params["model.norm.weight"], cfg.rms_norm_eps) @ embed.T


def loss_fn(cfg: Config, params: Params, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Next-token cross-entropy of ``tokens [B, T]`` in nats, summed, and the number of tokens scored.

    Rows end in padding (``PAD``), which is not scored.
    """
    logits = forward(cfg, params, tokens)[:, :-1]
    targets = tokens[:, 1:]
    picked = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    scored = targets != PAD
    return jnp.sum((jax.nn.logsumexp(logits, axis=-1) - picked) * scored), jnp.sum(scored)
