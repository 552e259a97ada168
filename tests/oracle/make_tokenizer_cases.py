#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes tests/fixtures/tokenizers: small tokenizer.json files and what Hugging Face makes of texts.

usage: python3 tests/oracle/make_tokenizer_cases.py [OUTDIR [TEXTS [SEED]]]    (tokenizers 0.23)

Each NAME.json is trained or put together here in the manner of one family; NAME.cases.jsonl holds,
a line each,
  {"text", "ids", "plain", "full", "decoded", "skipped"}   plain: special tokens not parsed,
                                                           full: with BOS/EOS
  {"ids", "decoded", "skipped"}                            any ids at all
A larger TEXTS and another SEED give a differential test that is not committed.
"""
import collections
import json
import os
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
UP, LOW = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
P = r"[^\r\n\p{L}\p{N}]?"
QWEN2 = CONTRACTION + "|" + P + r"\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + SPACES
QWEN35 = CONTRACTION + "|" + P + r"[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|" + SPACES
LLAMA3 = CONTRACTION + "|" + P + r"\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + SPACES
TEKKEN = (P + UP + "*" + LOW + "+|" + P + UP + "+" + LOW + "*"
          + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + SPACES)
O200K = (P + UP + "*" + LOW + "+" + CONTRACTION + "?|" + P + UP + "+" + LOW + "*" + CONTRACTION + "?"
         + r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + SPACES)
CL100K = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s")
DEEPSEEK3 = (r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"""
             + SPACES)

CORPUS = [
    "The device is open, and the kernel keeps the conversation until it is closed again.",
    "We'll see what they're doing; I'm sure she'd say it's DONE. HELLO World helloWorld",
    "int main(void)\n{\n\tfor (int i = 0; i < 100; i++)\n\t\tprintf(\"%d\\n\", i);\n}\n\n\n",
    "Grüße aus Köln, où est le café? El niño comió más piñas. naïve façade",
    "Привет мир, как дела? Всё хорошо.", "你好，世界。今天天气很好。天氣好嗎", "これはテストです。カタカナ",
    "한국어 문장입니다 안녕하세요", "مرحبا بالعالم", "हिन्दी भाषा में", "12345 67 8.9e-10 2024-07-26 ½ ²",
    "    indented   text  with   many    spaces", "🚀 🤗 👩‍👩‍👧 emoji ✅", "a\u0301e\u0308 o\u0302 combining",
]

PARTS = [
    "the", "The", " device", " and", "hello", "World", "I'm", "we'LL", "'s", "'S", "'\u017f", " don't", "DON'T", "12", "345", "6", "\u00bd", "\u2167",
    "٣", " ", "  ", "   ", "\t", "\n", "\n\n", "\r\n", "\r", "\u00a0", "\u3000", "\u180e", "\u2028", "\u0085", "\u200b", "\x0b",
    "\x1c", "é", "e\u0301", "e\u0323\u0301", "\u1e69", "s\u0307\u0323", "\u212b", "\u2126", "\ud55c", "\u1112\u1161\u11ab", "\u0344",
    "\u0958", "\ufb1d", "\u1100\u1161", "\u1161", "ﬁ", "ß", "İ", "ſ", "K", "你好", "世界", "。", "，", "日本", "カ", "ガ", "か\u3099", "한국", "안녕",
    "मे", "ि", "्", "العربية", "\u064b", "Привет", "🚀", "👩\u200d👩\u200d👧", "🇩🇪", "✅", "\ufe0f", "!", "!!", "...", "?!", "//", "/", "(", ")", "{", "}",
    "\"", "\\", "_", "-", "<", ">", "|", "<|", "|>", "<|im_start|>", "<|im_end|>", "<|im_start|>user\n", "<think>", "</think>", "<s>", "</s>", "<unk>", "<0x41>",
    "▁", "▁▁", "ab", "abc", "xab", "foo", "foobar", "foo bar", "bar", "\U00010400", "\U0001d400", "\u0378", "\ufffd", "\ufeff", "\x00", "\x7f",
    "ǅ", "ʰ", "Ⅷ", "ª", "aA", "AAa", "aaA", "ÀÉ", "Ωm", "xyz\u0301", "\u0301", "\u20dd", "‿", "\u00ad", "“", "”", "–", "€", "+", "$", "=", "^", "~", "`",
]


def texts(rng, n):
    out = ["", " ", "  ", "\n", "\x00", "a", "\u0301", "\u0301\u0323a", " a", "a ", " <s>", "<s> a", "<|im_end|>", "foo", "a foo b", "afoo", "foo\u0301",
           "  foo  ", "foofoobar", "\u1100\u1161\u11a8", "a" * 70, " " * 40 + "x", "\r\n \r\n", "Hello, world! 12345678 it's"]
    out += CORPUS
    while len(out) < n:
        out.append("".join(rng.choice(PARTS) for _ in range(rng.randint(1, 14))))
    return out[:n]


def byte_level(regex, vocab=330, nfc=True, ignore_merges=False, pre=None, unk=None):
    tok = Tokenizer(models.BPE(ignore_merges=ignore_merges, unk_token=unk))
    if nfc:
        tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre or pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(regex), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(CORPUS * 4, trainers.BpeTrainer(
        vocab_size=vocab, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
        special_tokens=[unk] if unk else []))
    return tok


def chatml(tok):
    tok.add_special_tokens([AddedToken(t, normalized=False, special=True)
                            for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")])
    tok.add_tokens([AddedToken(t, normalized=False) for t in ("<think>", "</think>")])
    return tok


def old_merges(tok):
    """The older spelling of merges: "a b" strings."""
    d = json.loads(tok.to_str())
    d["model"]["merges"] = [" ".join(m) for m in d["model"]["merges"]]
    return Tokenizer.from_str(json.dumps(d)), d


def spm(vocab=420, fallback=True, fuse=True, normalizer=None, pre=None, decoder=None, unk="<unk>"):
    """SentencePiece-style BPE as converted checkpoints have it: byte tokens, then characters."""
    train = Tokenizer(models.BPE())
    train.normalizer = normalizers.Replace(" ", "▁")
    train.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    count = collections.Counter("".join(CORPUS).replace(" ", "▁"))
    chars = sorted(count, key=lambda c: (-count[c], c))[:110]  # given, because the trainer's own choice varies
    train.train_from_iterator(CORPUS * 4, trainers.BpeTrainer(vocab_size=vocab - 260, show_progress=False, limit_alphabet=110, initial_alphabet=chars))
    m = json.loads(train.to_str())["model"]
    words = ["<unk>", "<s>", "</s>"] + (["<0x%02X>" % b for b in range(256)] if fallback else [])
    words += [t for t, _ in sorted(m["vocab"].items(), key=lambda kv: kv[1])]
    if "▁▁" not in words:
        words.append("▁▁")
        m["merges"].append(["▁", "▁"])
    words.append("▁▁▁▁")
    m["merges"].append(["▁▁", "▁▁"])
    v = {t: i for i, t in enumerate(dict.fromkeys(words))}
    tok = Tokenizer(models.BPE(vocab=v, merges=[tuple(x) for x in m["merges"]], unk_token=unk, fuse_unk=fuse, byte_fallback=fallback))
    if normalizer:
        tok.normalizer = normalizer
    if pre:
        tok.pre_tokenizer = pre
    tok.decoder = decoder
    tok.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in ("<unk>", "<s>", "</s>")])
    tok.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", v["<s>"])])
    return tok


def all_tokenizers():
    yield "qwen2", chatml(byte_level(QWEN2))
    yield "qwen35", chatml(byte_level(QWEN35))

    d = json.loads(byte_level(LLAMA3, nfc=False, ignore_merges=True).to_str())
    d["model"]["vocab"]["Hello"] = max(d["model"]["vocab"].values()) + 1  # reached by ignore_merges only
    t = Tokenizer.from_str(json.dumps(d))
    t.add_special_tokens([AddedToken(x, normalized=False, special=True) for x in
                          ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<s>", "<|im_end|>")])
    b = t.token_to_id("<|begin_of_text|>")
    t.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin_of_text|> $A", pair="$A $B", special_tokens=[("<|begin_of_text|>", b)])])
    yield "llama3", t

    t = byte_level(None, nfc=False, pre=pre_tokenizers.ByteLevel(add_prefix_space=False), unk="<|endoftext|>")
    t.post_processor = processors.ByteLevel(trim_offsets=False)
    t.add_special_tokens([AddedToken("<|endoftext|>", normalized=True, special=True),
                          AddedToken("<mask>", lstrip=True, normalized=False, special=True)])
    yield "gpt2", old_merges(t)
    t = byte_level(None, nfc=False, pre=pre_tokenizers.ByteLevel(add_prefix_space=True))
    t.add_special_tokens(["<s>", "</s>"])
    t.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair="$A $B", special_tokens=[(x, t.token_to_id(x)) for x in ("<s>", "</s>")])
    yield "gpt2_prefix", t
    t = byte_level(TEKKEN, nfc=False, ignore_merges=True)
    t.add_special_tokens(["<unk>", "<s>", "</s>"])
    yield "tekken", t
    t = byte_level(O200K, nfc=False)
    t.add_special_tokens(["<|start|>", "<|end|>", "<|im_end|>"])
    yield "o200k", t
    yield "cl100k", chatml(byte_level(CL100K, nfc=False))
    split = pre_tokenizers.Split
    yield "deepseek3", chatml(byte_level(None, nfc=False, pre=pre_tokenizers.Sequence(
        [split(Regex(r"\p{N}{1,3}"), "isolated"), split(Regex("[一-龥぀-ゟ゠-ヿ]+"), "isolated"), split(Regex(DEEPSEEK3), "isolated"),
         pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])))
    yield "matches_only", chatml(byte_level(None, pre=pre_tokenizers.Sequence(
        [split(Regex(QWEN2), "removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])))
    yield "starcoder", chatml(byte_level(None, nfc=False, pre=pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])))
    yield "digits", chatml(byte_level(None, pre=pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])))

    llama2 = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    yield "llama2", spm(normalizer=normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), decoder=llama2)
    yield "llama2_metaspace", spm(pre=pre_tokenizers.Metaspace("▁", "first", False), decoder=llama2)
    yield "gemma", spm(normalizer=normalizers.Replace(" ", "▁"), pre=pre_tokenizers.Split(" ", "merged_with_previous"),
                       decoder=decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]))
    yield "metaspace", spm(fallback=False, fuse=False, pre=pre_tokenizers.Metaspace("▁", "always", True),
                           decoder=decoders.Metaspace("▁", "always", True))
    yield "fuse_unk", spm(fallback=False, fuse=True, pre=pre_tokenizers.Metaspace("▁", "never", True),
                          decoder=decoders.Metaspace("▁", "never", True))
    yield "no_unk", spm(fallback=False, unk=None, normalizer=normalizers.Replace(Regex(r"\s+"), "▁"), decoder=None)

    t = byte_level(QWEN2)
    t.add_tokens([AddedToken("foo", single_word=True), AddedToken("foobar", normalized=False), AddedToken("ab", lstrip=True, normalized=False),
                  AddedToken("bar", rstrip=True, normalized=False), AddedToken("abc", lstrip=True, rstrip=True), AddedToken("é", normalized=True),
                  AddedToken("\u212b", normalized=True), AddedToken("世界", single_word=True, normalized=False), AddedToken("  ", normalized=False)])
    t.add_special_tokens([AddedToken("<|im_end|>", lstrip=True, rstrip=True, normalized=False), AddedToken("<s>", single_word=True, normalized=True),
                          AddedToken("<|", rstrip=True, normalized=False), AddedToken("你", normalized=False)])
    yield "added", t

    def splits(*steps):
        return byte_level(None, pre=pre_tokenizers.Sequence(list(steps) + [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]))
    S = pre_tokenizers.Split
    yield "split_removed", splits(S(Regex(r"\s+"), "removed"), S("l", "merged_with_next"))
    yield "split_merged", splits(S(Regex(r"[\p{P}\s]"), "merged_with_previous"), S(Regex(r"\d"), "contiguous"))
    yield "split_invert", splits(S(Regex(r"\w+"), "isolated", invert=True), S(Regex(r"[aeiou]"), "merged_with_next"), S("he", "merged_with_previous", invert=True))


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else "tests/fixtures/tokenizers"
    n = int(sys.argv[2]) if len(sys.argv) > 2 else 110
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    os.makedirs(out, exist_ok=True)
    for name, tok in all_tokenizers():
        data = None
        if isinstance(tok, tuple):
            tok, data = tok
        data = data or json.loads(tok.to_str())
        with open(f"{out}/{name}.json", "w") as f:
            json.dump(data, f, ensure_ascii=False, separators=(",", ":"))
            f.write("\n")
        tok = Tokenizer.from_file(f"{out}/{name}.json")
        rng = random.Random(f"{seed} {name}")
        size = max(tok.get_vocab().values()) + 1
        with open(f"{out}/{name}.cases.jsonl", "w") as f:
            for t in texts(rng, n):
                tok.encode_special_tokens = False
                ids = tok.encode(t, add_special_tokens=False).ids
                full = tok.encode(t).ids
                tok.encode_special_tokens = True
                plain = tok.encode(t, add_special_tokens=False).ids
                json.dump({"text": t, "ids": ids, "plain": plain, "full": full, "decoded": tok.decode(ids, skip_special_tokens=False),
                           "skipped": tok.decode(full, skip_special_tokens=True)}, f, separators=(",", ":"))
                f.write("\n")
            for _ in range(n // 4):
                ids = [rng.randrange(size + 2) for _ in range(rng.randint(1, 12))]
                json.dump({"ids": ids, "decoded": tok.decode(ids, skip_special_tokens=False),
                           "skipped": tok.decode(ids, skip_special_tokens=True)}, f, separators=(",", ":"))
                f.write("\n")


if __name__ == "__main__":
    main()
