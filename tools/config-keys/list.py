"""Lists the keys that transformers' own classes define, for `docs/config-keys.md` and its test.

    pip install transformers
    python tools/config-keys/list.py > clawdbot-core/tests/golden/config_keys.json

It writes, as JSON: for each family, the default configuration of its class, without the parts for images and audio; the
keys of GenerationConfig; the keys that tokenizers write to tokenizer_config.json.
"""

import json
import logging
import re
from pathlib import Path

import transformers
from transformers import CONFIG_MAPPING, GenerationConfig, PreTrainedTokenizerBase

FAMILIES = Path(__file__).resolve().parents[2] / "clawdbot-core/src/spec/families"
OTHER_PARTS = ("vision_config", "audio_config")
# The version of the writer, and names of labels.
NOT_LISTED = ("transformers_version", "id2label", "label2id", "_name_or_path")


def defaults(model_type):
    config = CONFIG_MAPPING[model_type]().to_dict()
    for part in OTHER_PARTS:
        if part in config:
            config[part] = {}
    for key in NOT_LISTED:
        config.pop(key, None)
        if "text_config" in config:
            config["text_config"].pop(key, None)
    return config


def main():
    logging.disable(logging.WARNING)
    source = "".join(path.read_text() for path in sorted(FAMILIES.glob("*.rs")))
    names = re.findall(r'(?:architecture|text_of)\(\s*"\w+",\s*"([\w-]+)"', source)
    tokenizer = set(PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES) | {
        "added_tokens_decoder", "additional_special_tokens", "chat_template", "clean_up_tokenization_spaces",
        "extra_special_tokens", "model_input_names", "model_max_length", "padding_side", "processor_class",
        "split_special_tokens", "tokenizer_class", "truncation_side",
    }
    families = {name: defaults(name) for name in sorted(set(names))}
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(config, sort_keys=True)}" for name, config in families.items())
    print(f'{{"transformers": {json.dumps(transformers.__version__)},')
    print(f' "generation": {json.dumps(sorted(GenerationConfig().to_dict()))},')
    print(f' "tokenizer": {json.dumps(sorted(tokenizer))},')
    print(f' "families": {{\n{lines}\n}}}}')


if __name__ == "__main__":
    main()
