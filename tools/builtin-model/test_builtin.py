"""Checks of the corpus, the tokenizer and the exported files: ``python -m unittest -v``."""

from __future__ import annotations

import json
import re
import unittest

import jax.numpy as jnp
import numpy as np
from jinja2 import Environment
from tokenizers import Tokenizer

import corpus
import int8
from export import SIZE_LIMIT
from model import PAD, Config, forward, matrix_shapes, norm_names
from reference import ASSETS, GOLDEN, Reference, golden_case
from train_tokenizer import SPECIALS


class CorpusTest(unittest.TestCase):
    """The corpus is deterministic and has finished texts of the documented kinds."""

    documents = [corpus.document(7, "train", i) for i in range(1000)]

    def test_same_seed_same_documents(self) -> None:
        self.assertEqual(self.documents[:50], [corpus.document(7, "train", i) for i in range(50)])
        self.assertNotEqual(self.documents[0], corpus.document(8, "train", 0))

    def test_held_out_stories_are_not_in_the_training_split(self) -> None:
        held_out = {d for i in range(1000) if len(d := corpus.document(7, "heldout", i)) > 400}
        self.assertFalse(held_out & set(self.documents))

    def test_no_template_is_left(self) -> None:
        for document in self.documents:
            self.assertNotRegex(document, r"[\[\]{}]|  | [,.!?]")

    def test_share_of_chats(self) -> None:
        chats = sum(corpus.USER in d for d in self.documents) / len(self.documents)
        self.assertAlmostEqual(chats, corpus.CHAT_SHARE, delta=0.05)

    def test_length_of_stories(self) -> None:
        words = [len(d.split()) for d in self.documents if corpus.USER not in d]
        self.assertGreaterEqual(min(words), 80)
        self.assertLessEqual(max(words), 280)

    def test_requests_are_honoured(self) -> None:
        named = re.compile(r"about an? (?:\w+ )*?(\w+) named (\w+)[^\n]*<\|end\|>\n<\|assistant\|>\n(.*)")
        found = [m for d in self.documents for m in named.findall(d) if m[1] in d]
        self.assertGreater(len(found), 50)
        for species, name, first_paragraph in found:
            self.assertIn(species, first_paragraph.lower())
            self.assertIn(name.lower(), first_paragraph.lower())


class TokenizerTest(unittest.TestCase):
    """The tokenizer encodes any text and knows the special tokens."""

    tokenizer = Tokenizer.from_file(str(ASSETS / "tokenizer.json"))

    def test_specials_come_first(self) -> None:
        self.assertEqual([self.tokenizer.id_to_token(i) for i in range(len(SPECIALS))], SPECIALS)
        self.assertEqual(self.tokenizer.get_vocab_size(), Config().vocab_size)

    def test_round_trip_of_any_text(self) -> None:
        texts = ["", " two  spaces ", "Zoë ate 3 crêpes.\n\n\t日本語 🦊", "".join(map(chr, range(256)))]
        for text in texts + CorpusTest.documents[:50]:
            ids = self.tokenizer.encode(text, add_special_tokens=False).ids
            self.assertEqual(self.tokenizer.decode(ids, skip_special_tokens=False), text)
            self.assertNotIn(PAD, ids)

    def test_bos_is_added_on_request(self) -> None:
        self.assertEqual(self.tokenizer.encode("Hello").tokens[0], corpus.BOS)

    def test_chat_template_writes_the_form_of_the_corpus(self) -> None:
        settings = json.loads((ASSETS / "tokenizer_config.json").read_text())
        template = Environment().from_string(settings["chat_template"])
        turn = re.compile(r"<\|(user|assistant)\|>\n(.*?)<\|end\|>\n", re.DOTALL)
        for document in (d for d in CorpusTest.documents if corpus.USER in d):
            messages = [{"role": role, "content": content} for role, content in turn.findall(document)]
            self.assertEqual(template.render(messages=messages, bos_token=corpus.BOS), document)
            prompt = template.render(messages=messages[:1], bos_token=corpus.BOS, add_generation_prompt=True)
            self.assertTrue(document.startswith(prompt))


class ExportTest(unittest.TestCase):
    """The exported files are complete and small, and both engines compute the same result from them."""

    def test_size(self) -> None:
        self.assertLess(sum(path.stat().st_size for path in ASSETS.iterdir()), SIZE_LIMIT)

    def test_tensors(self) -> None:
        shapes = {name: w.shape for name, w in int8.load(ASSETS / "model.safetensors").items()}
        norms = {name: (Config().hidden_size,) for name in norm_names(Config())}
        self.assertEqual(shapes, matrix_shapes(Config()) | norms)

    def test_quantization_error_is_at_most_half_a_step(self) -> None:
        w = np.random.default_rng(0).normal(size=(5, 150)).astype(np.float32)
        w[0, :64] = 0
        codes, scales = int8.quantize(w)
        self.assertEqual(scales.shape, (5, 3))
        self.assertLessEqual(np.abs(codes.astype(int)).max(), 127)
        step = int8.spread(scales, w.shape[1])
        self.assertTrue((np.abs(codes * step - w) <= step * 0.5001).all())

    def test_reference_agrees_with_the_training_code(self) -> None:
        model = Reference()
        tokens = TokenizerTest.tokenizer.encode(CorpusTest.documents[0], add_special_tokens=False).ids
        weights = {name: jnp.asarray(w) for name, w in model.weights.items()}
        expected = forward(Config(), weights, jnp.asarray([tokens]))[0]
        split = len(tokens) // 2
        logits = np.concatenate([model.forward(tokens[:split]), model.forward(tokens[split:])])
        np.testing.assert_allclose(logits, expected, atol=2e-3)

    def test_golden_file_belongs_to_the_model(self) -> None:
        model = Reference()
        for case in json.loads(GOLDEN.read_text()):
            again = golden_case(model, TokenizerTest.tokenizer, case["prompt_text"])
            np.testing.assert_allclose(again.pop("last_logits"), case.pop("last_logits"), atol=1e-3)
            self.assertEqual(again, case)


if __name__ == "__main__":
    unittest.main()
