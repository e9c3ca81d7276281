"""Writes the small embedding and reranking models of this folder, with random weights, and what they give.

    python3 -m venv venv && venv/bin/pip install torch transformers==5.23.0 sentence-transformers==6.2.0
    venv/bin/python make.py

Weights are stored as float16, to be small; the references are computed from those in float32.
"""

import json
import shutil
import tempfile
from pathlib import Path

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.models import Dense, Normalize, Pooling, Transformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedTokenizerFast,
)

HERE = Path(__file__).parent
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<|im_start|>", "<|im_end|>"]
WORDS = ["yes", "no", "the", "sea", "light", "house", "ship", "bread", "rain", ".", ",", "?", ":", "<", ">"]
VOCAB = SPECIAL + WORDS + list(LETTERS) + ["##" + letter for letter in LETTERS]
TEXTS = [
    "the lighthouse by the sea",
    "bread",
    "Rain, rain, and no ship on the sea. " * 8 + "is there light in the house?",
    "a ship",
]
DOCUMENTS = ["the ship is at sea, yes.", "bread and rain", "no", "the house " * 8]
SIZES = {
    "vocab_size": len(VOCAB),
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 56,
    "max_position_embeddings": 160,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
DECODER = {"num_key_value_heads": 2, "head_dim": 16}


def tokenizer(around: tuple[list[str], list[str]], pair: str | None = None, most: int = 160) -> PreTrainedTokenizerFast:
    """Words and letters, with special tokens before and after; `pair` is the template of a pair."""
    words = Tokenizer(models.WordPiece({word: i for i, word in enumerate(VOCAB)}, unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.decoder = decoders.WordPiece()
    before, after = around
    words.post_processor = processors.TemplateProcessing(
        single=" ".join([*before, "$A", *after]),
        pair=pair or " ".join([*before, "$A", *after, "$B:1", *(f"{token}:1" for token in after)]),
        special_tokens=[(token, VOCAB.index(token)) for token in {*before, *after}],
    )
    words.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        bos_token="[CLS]",
        eos_token="[SEP]",
        model_max_length=most,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def scramble(model: torch.nn.Module) -> torch.nn.Module:
    """Weights that matter everywhere, norms and biases included."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            spread = 0.25 if parameter.dim() > 1 else 0.1
            noise = torch.randn(parameter.shape, generator=generator) * spread
            parameter.copy_(parameter + noise if parameter.dim() == 1 else noise)
    return model.half().eval()


def store(model: torch.nn.Module, tokens: PreTrainedTokenizerFast, folder: Path, strip: bool = False) -> None:
    """Saves a transformers model; `strip`: without the names of modules around the inner one, and without its head."""
    if strip:
        architectures = model.config.architectures or [type(model).__name__]
        model = model.model
        model.config.architectures = architectures
    model.save_pretrained(folder)
    if strip:
        config = json.loads((folder / "config.json").read_text())
        config["architectures"] = ["Qwen3ForCausalLM"]
        (folder / "config.json").write_text(json.dumps(config, indent=2))
    tokens.save_pretrained(folder)


def write(name: str, source: Path, reference: dict) -> None:
    """Keeps the files that matter."""
    target = HERE / name
    shutil.rmtree(target, ignore_errors=True)
    keep = {".json", ".safetensors"}
    for path in source.rglob("*"):
        if path.is_file() and path.suffix in keep:
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)
    for path in target.rglob("*.safetensors"):
        path.chmod(0o644)
    (target / "reference.json").write_text(json.dumps(reference) + "\n")


def rounded(rows: torch.Tensor) -> list:
    return [[round(float(x), 7) for x in row] for row in rows]


def states(folder: Path, texts: list[str]) -> dict:
    """Each kind of pooling of the last hidden states, text by text."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tokens = PreTrainedTokenizerFast.from_pretrained(folder)
    kinds = {"cls": [], "mean": [], "max": [], "last": [], "weighted_mean": [], "mean_sqrt_len": []}
    ids = []
    for text in texts:
        inputs = tokens(text, return_tensors="pt")
        ids.append(inputs["input_ids"][0].tolist())
        with torch.no_grad():
            rows = model(inputs["input_ids"]).last_hidden_state[0].double()
        weights = torch.arange(1, len(rows) + 1).double()[:, None]
        kinds["cls"].append(rows[0])
        kinds["mean"].append(rows.mean(0))
        kinds["max"].append(rows.max(0).values)
        kinds["last"].append(rows[-1])
        kinds["weighted_mean"].append((rows * weights).sum(0) / weights.sum())
        kinds["mean_sqrt_len"].append(rows.sum(0) / len(rows) ** 0.5)
    return {"ids": ids, "pooled": {kind: rounded(torch.stack(rows)) for kind, rows in kinds.items()}}


def embedding_model(name, config, tokens, modules, prompts=None, headless=False, max_seq_length=None, **pooling):
    """An encoder or decoder with the modules of sentence-transformers behind it."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        if headless:
            store(scramble(AutoModelForCausalLM.from_config(config)), tokens, folder / "base", strip=True)
        else:
            store(scramble(AutoModel.from_config(config)), tokens, folder / "base")
        found = states(folder / "base", TEXTS)
        parts = [Transformer(str(folder / "base"), max_seq_length=max_seq_length)]
        parts.append(Pooling(SIZES["hidden_size"], **pooling))
        parts += [scramble(part) for part in modules]
        model = SentenceTransformer(modules=parts, prompts=prompts, device="cpu")
        model.half().save(str(folder / "whole"))
        shutil.copy(folder / "base" / "config.json", folder / "whole" / "config.json")
        # Loaded anew: frequencies of rotations were rounded with the weights.
        model = SentenceTransformer(str(folder / "whole"), device="cpu", model_kwargs={"dtype": torch.float32})
        found["texts"] = TEXTS
        found["embeddings"] = rounded(torch.tensor(model.encode(TEXTS)))
        found["prompted"] = {
            key: rounded(torch.tensor(model.encode(TEXTS[:2], prompt_name=key))) for key in prompts or {}
        }
        write(name, folder / "whole", found)


def scoring_model(name, config, tokens):
    """A classifier with one label."""
    config.num_labels = 1
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        store(scramble(AutoModelForSequenceClassification.from_config(config)), tokens, folder)
        model = CrossEncoder(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
        # One by one: padding has a last token, too.
        logits = [
            float(model.predict([(TEXTS[0], text)], activation_fn=torch.nn.Identity())[0]) for text in DOCUMENTS
        ]
        write(name, folder, {"query": TEXTS[0], "documents": DOCUMENTS, "logits": logits})


def judge(name, config, tokens):
    """A decoder that is asked for yes or no, as the card of Qwen3-Reranker does it."""
    before = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
        'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    after = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    task = "Given a web search query, retrieve relevant passages that answer the query"
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        store(scramble(AutoModelForCausalLM.from_config(config)), tokens, folder)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        ids = lambda text: tokens(text, add_special_tokens=False)["input_ids"]
        logits = []
        for document in DOCUMENTS:
            pair = f"<Instruct>: {task}\n<Query>: {TEXTS[0]}\n<Document>: {document}"
            with torch.no_grad():
                last = model(torch.tensor([ids(before) + ids(pair) + ids(after)])).logits[0, -1]
            logits.append(float(last[VOCAB.index("yes")] - last[VOCAB.index("no")]))
        write(name, folder, {"query": TEXTS[0], "documents": DOCUMENTS, "logits": logits})


def main() -> None:
    bert = tokenizer((["[CLS]"], ["[SEP]"]))
    roberta = tokenizer((["[CLS]"], ["[SEP]"]), "[CLS] $A [SEP] [SEP] $B [SEP]")
    qwen = tokenizer(([], ["[SEP]"]))
    bare = tokenizer(([], []), "$A $B")
    config = AutoConfig.for_model
    width = SIZES["hidden_size"]
    prompts = {"query": "light: ", "document": ""}
    roberta_sizes = {**SIZES, "pad_token_id": 1, "type_vocab_size": 1, "max_position_embeddings": 162}
    distilbert = {"dim": width, "n_layers": 2, "n_heads": 4, "hidden_dim": 56}
    distilbert |= {key: SIZES[key] for key in ("vocab_size", "max_position_embeddings", "pad_token_id")}
    modernbert = {**SIZES, "local_attention": 12, "cls_token_id": 2, "sep_token_id": 3, "num_hidden_layers": 4}
    gemma = {**SIZES, **DECODER, "use_bidirectional_attention": True, "sliding_window": 14, "query_pre_attn_scalar": 16}
    gemma["layer_types"] = ["sliding_attention", "full_attention", "sliding_attention"]
    longer = {"max_position_embeddings": 400}

    embedding_model("bert", config("bert", **SIZES), bert, [Normalize()], prompts, max_seq_length=140, pooling_mode="mean")
    embedding_model("xlm_roberta", config("xlm-roberta", **roberta_sizes), roberta, [Normalize()], pooling_mode="cls")
    tanh = [Dense(width, 40)]
    embedding_model("distilbert", config("distilbert", **distilbert), bert, tanh, pooling_mode="max")
    embedding_model("modernbert", config("modernbert", **modernbert), bert, [], prompts, pooling_mode="mean", include_prompt=False)
    qwen3 = config("qwen3", **SIZES, **DECODER, tie_word_embeddings=False)
    embedding_model("qwen3", qwen3, qwen, [Normalize()], prompts, headless=True, pooling_mode="lasttoken")
    identity = [
        Dense(width, 64, bias=False, activation_function=torch.nn.Identity()),
        Dense(64, 32, bias=False, activation_function=torch.nn.Identity()),
        Normalize(),
    ]
    embedding_model("gemma3", config("gemma3_text", **gemma), bert, identity, prompts, pooling_mode="mean")

    scoring_model("bert_score", config("bert", **SIZES), bert)
    scoring_model("xlm_roberta_score", config("xlm-roberta", **roberta_sizes), roberta)
    scoring_model("distilbert_score", config("distilbert", **distilbert), bert)
    scoring_model("modernbert_score", config("modernbert", **modernbert, classifier_pooling="mean"), bert)
    scoring_model("qwen3_score", config("qwen3", **SIZES, **DECODER), bare)
    judge("qwen3_judge", config("qwen3", **{**SIZES, **longer}, **DECODER, tie_word_embeddings=True), tokenizer(([], []), most=400))


if __name__ == "__main__":
    main()
