"""Writes a small Llama, two LoRA adapters for it as PEFT writes them, and `expected.json`: the logits behind the last token
without an adapter and with each. Needs numpy alone; run in this folder, the result is the same every time.
`python make.py --check` compares with PEFT (PyPI peft 0.21, transformers 5.23, torch 2.15), and writes nothing.
"""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np

spec = importlib.util.spec_from_file_location("quantized", Path(__file__).parent.parent / "quantized" / "make.py")
quantized = importlib.util.module_from_spec(spec)
spec.loader.exec_module(quantized)
SIZES, PREFIX, TOKENS = quantized.SIZES, quantized.PREFIX, quantized.TOKENS


def save(path, tensors):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name in sorted(tensors):
        stored = tensors[name]
        raw = stored.data.tobytes()
        header[name] = {
            "dtype": stored.dtype, "shape": stored.shape, "data_offsets": [len(data), len(data) + len(raw)]
        }
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def adapter(name, random, config, modules, store):
    """`modules`: module -> rank, scale. Returns what is added to each matrix."""
    directory = Path(name)
    directory.mkdir(exist_ok=True)
    config = {
        "alpha_pattern": {}, "auto_mapping": None, "base_model_name_or_path": "base", "bias": "none",
        "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True, "layer_replication": None,
        "layers_pattern": None, "layers_to_transform": None, "loftq_config": {}, "lora_bias": False,
        "lora_dropout": 0.05, "megatron_config": None, "megatron_core": "megatron.core", "modules_to_save": None,
        "peft_type": "LORA", "rank_pattern": {}, "revision": None, "task_type": "CAUSAL_LM", "use_dora": False,
        "use_rslora": False, "target_modules": sorted({module.split(".")[1] for module in modules}), **config,
    }
    (directory / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")
    tensors, added = {}, {}
    for module, (rank, scale) in modules.items():
        n, k = SIZES[module]
        stored_a, a = store(random.standard_normal((rank, k)) * 0.1)
        stored_b, b = store(random.standard_normal((n, rank)) * 0.1)
        tensors[f"base_model.model.{PREFIX}{module}.lora_A.weight"] = stored_a
        tensors[f"base_model.model.{PREFIX}{module}.lora_B.weight"] = stored_b
        added[f"{PREFIX}{module}.weight"] = scale * (b.astype(np.float64) @ a.astype(np.float64))
    save(directory / "adapter_model.safetensors", tensors)
    return added


def main():
    base = quantized.Model(20, None)
    for module in SIZES:
        size = SIZES[module]
        base.put(f"{PREFIX}{module}.weight", quantized.bf16(base.random.standard_normal(size) / np.sqrt(size[1])))
    base.write("base")
    random = np.random.default_rng(21)
    everything = {module: (4, 8 / 4) for module in SIZES}
    # Ranks and scales of their own: by a module's name, and by an expression.
    some = {
        "self_attn.q_proj": (2, 6 / np.sqrt(2)), "self_attn.v_proj": (5, 3 / np.sqrt(5)),
        "mlp.up_proj": (2, 6 / np.sqrt(2)),
    }
    adapters = {
        "everything": adapter("everything", random, {"r": 4, "lora_alpha": 8}, everything, quantized.full),
        "some": adapter("some", random, {
            "r": 2, "lora_alpha": 6, "use_rslora": True, "rank_pattern": {"v_proj": 5},
            "alpha_pattern": {r"layers\.\d+\.self_attn\.v_proj": 3},
        }, some, quantized.bf16),
    }
    plain = dict(base.matrices)
    logits = {"": base.logits()}
    for name, added in adapters.items():
        base.matrices = {key: value + added.get(key, 0) for key, value in plain.items()}
        logits[name] = base.logits()
    expected = {name: [round(float(x), 6) for x in values] for name, values in logits.items()}
    Path("expected.json").write_text(json.dumps({"tokens": TOKENS, "logits": expected}, indent=1) + "\n")


def check():
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    expected = json.loads(Path("expected.json").read_text())["logits"]
    for name, logits in expected.items():
        model = AutoModelForCausalLM.from_pretrained("base", dtype=torch.float32)
        if name:
            model = PeftModel.from_pretrained(model, name)
        with torch.no_grad():
            found = model(torch.tensor([TOKENS])).logits[0, -1].numpy()
        error = np.abs(found - logits).max() / np.abs(logits).max()
        print(name or "base", "largest relative difference", error)
        assert error < 1e-5


if __name__ == "__main__":
    check() if sys.argv[1:] == ["--check"] else main()
