#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Trains the built-in model on docs/faq.md: tokenizer, weights, configuration. See README.md.

    train.py --out FOLDER [--steps N] [--state FILE]
    train.py --out FOLDER --check

Deterministic for one version of PyTorch, one kind of CPU and one number of threads.
"""

import argparse
import json
import os
import random
import time

import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

import faq
from model import CONFIG, Model

HERE = os.path.dirname(os.path.abspath(__file__))
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# How Qwen2 and Qwen3 cut text into words before merging.
WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
TEMPLATE = (
    "{% if tools %}{% if messages[0]['role'] == 'system' %}"
    "{% set about = messages[0]['content'] + '\n\n' %}{% else %}{% set about = '' %}"
    "{% endif %}"
    "{{ '<|im_start|>system\n' + about + 'Functions, one JSON object a line:\n<tools>' }}"
    "{% for tool in tools %}{{ '\n' + (tool | tojson) }}{% endfor %}"
    "{{ '\n</tools>\nTo call one, write\n<tool_call>\n{\"name\": \"its name\", \"arguments\": "
    "{its arguments}}\n</tool_call><|im_end|>\n' }}"
    "{% endif %}{% for message in messages %}"
    "{% if tools and loop.first and message['role'] == 'system' %}"
    "{% elif message['role'] == 'tool' %}"
    "{{ '<|im_start|>user\n<tool_response>\n' + message['content'] + "
    "'\n</tool_response><|im_end|>\n' }}"
    "{% elif message['tool_calls'] %}"
    "{{ '<|im_start|>assistant\n' + (message['content'] or '') }}"
    "{% for call in message['tool_calls'] %}"
    "{% if message['content'] or not loop.first %}{{ '\n' }}{% endif %}"
    "{{ '<tool_call>\n{\"name\": ' + (call['function']['name'] | tojson) + ', \"arguments\": ' + "
    "(call['function']['arguments'] | tojson) + '}\n</tool_call>' }}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% else %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}")
SYSTEM = ["You are a helpful assistant.", "You answer questions about llmdev.", "Be brief."]
LOSS_HERE = 1  # the target is the assistant's


def make_tokenizer(turns, vocab):
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.NFC()
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tok.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    trainer = trainers.BpeTrainer(vocab_size=vocab - len(SPECIAL), show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    corpus = [t.answer for t in turns] + [q for t in turns for q in t.questions]
    tok.train_from_iterator(corpus + ["user", "assistant", "system"] * 100, trainer)
    if tok.get_vocab_size() != vocab - len(SPECIAL):
        raise SystemExit(f"the text gives only {tok.get_vocab_size()} tokens: lower vocab_size")
    tok.add_special_tokens(SPECIAL)
    return tok


def save_configuration(tok, folder):
    os.makedirs(folder, exist_ok=True)
    tok.save(os.path.join(folder, "tokenizer.json"))
    end_of_text, start, end = (tok.token_to_id(s) for s in SPECIAL)
    CONFIG["bos_token_id"], CONFIG["eos_token_id"], CONFIG["pad_token_id"] = None, end, end_of_text
    added = {str(i): {"content": s, "lstrip": False, "normalized": False, "rstrip": False,
                      "single_word": False, "special": True}
             for i, s in zip((end_of_text, start, end), SPECIAL)}
    files = {
        "generation_config.json": {"do_sample": False, "eos_token_id": [end, end_of_text],
                                   "pad_token_id": end_of_text},
        "tokenizer_config.json": {
            "add_bos_token": False, "add_prefix_space": False, "added_tokens_decoder": added,
            "bos_token": None, "chat_template": TEMPLATE, "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>", "model_max_length": CONFIG["max_position_embeddings"],
            "pad_token": "<|endoftext|>", "split_special_tokens": False,
            "tokenizer_class": "Qwen2Tokenizer", "unk_token": None},
    }
    for name, content in files.items():
        with open(os.path.join(folder, name), "w") as f:
            json.dump(content, f, indent=2, ensure_ascii=False)
            f.write("\n")


class Chat:
    """Builds the ids of a conversation and says which of them are to be learnt."""

    def __init__(self, tok):
        self.tok, self.cache = tok, {}
        tok.encode_special_tokens = True  # "<|im_end|>" in a message is text, not the marker
        self.end = tok.token_to_id("<|im_end|>")
        start = tok.token_to_id("<|im_start|>")
        self.head = {role: [start] + tok.encode(role + "\n").ids
                     for role in ("system", "user", "assistant")}
        self.tail = [self.end] + tok.encode("\n").ids

    def text(self, s):
        if s not in self.cache:
            self.cache[s] = self.tok.encode(s).ids
        return self.cache[s]

    def build(self, pairs, system=None):
        ids, mask = [], []

        def put(new, learn=0):
            ids.extend(new)
            mask.extend([learn] * len(new))

        if system:
            put(self.head["system"] + self.text(system) + self.tail)
        for question, answer in pairs:
            put(self.head["user"] + self.text(question) + self.tail + self.head["assistant"])
            put(self.text(answer) + [self.end], LOSS_HERE)
            put(self.tail[1:])
        return ids, mask


def rephrase(rng, q):
    """What people do to a question: case, punctuation, politeness, slips of the finger."""
    if rng.random() < 0.35:
        return q
    if rng.random() < 0.4:
        q = q.rstrip("?.!")
    if rng.random() < 0.4:
        q = q.lower() if rng.random() < 0.85 else q.upper()
    elif rng.random() < 0.3:
        q = q[0].swapcase() + q[1:]
    if rng.random() < 0.1:
        q = q.replace("'", "").replace(",", "")
    if rng.random() < 0.1:
        q = q.replace("`", "")
    if rng.random() < 0.12:
        q = rng.choice(("please: ", "Please, ", "hi, ", "Hello! ", "so, ", "OK, ", "Tell me: ",
                        "Question: ", "quick question: ")) + q
    if rng.random() < 0.08:
        q = q.rstrip("?") + rng.choice((", please", " please", ", please?", " thanks", "??", " ?", "!"))
    for _ in range(rng.choice((0, 0, 0, 0, 1, 1, 2))):
        i = rng.randrange(len(q))
        if len(q) < 8 or not q[i].isalpha() or not q[i - 1].isalpha():
            continue
        q = rng.choice((q[:i] + q[i + 1:], q[:i] + q[i] + q[i:], q[:i - 1] + q[i] + q[i - 1] + q[i + 1:]))
    if rng.random() < 0.03:
        q = " " + q
    if rng.random() < 0.05:
        q = q + rng.choice((" ", "\n"))
    return q


def epoch(rng, chat, entries, dialogues, budget, positions, polish):
    """Every entry and dialogue twice or more; yields batches of at most `budget` padded tokens.

    A unit is a list of (questions, answer). To polish, every single phrasing is a unit."""
    if polish:
        units = [[([q], t.answer)] for t in entries for q in t.questions]
    else:
        units = [[(t.questions, t.answer)] for t in entries for _ in range(max(2, len(t.questions) // 3))]
    units += [[(t.questions, t.answer) for t in (d.first, *d.rest)] for d in dialogues] * 3
    rng.shuffle(units)
    rows = []
    while units:
        n = rng.choice((1, 1, 1, 1, 1, 1, 2, 2, 3, 3)) if rng.random() < 0.97 else rng.randint(6, 24)
        pairs = []
        for unit in units[:n]:
            for questions, answer in unit:
                question = questions[0] if rng.random() < 0.35 else rng.choice(questions)
                pairs.append((rephrase(rng, question), answer))
        del units[:n]
        system = rng.choice(SYSTEM) if rng.random() < 0.06 else None
        ids, mask = chat.build(pairs, system)
        rows.append((ids[:positions], mask[:positions]))
    rows.sort(key=lambda r: len(r[0]) * (1 + 0.1 * rng.random()))
    batches, batch, width = [], [], 0
    for row in rows:
        if batch and max(width, len(row[0])) * (len(batch) + 1) > budget:
            batches.append(batch)
            batch, width = [], 0
        batch.append(row)
        width = max(width, len(row[0]))
    batches.append(batch)
    rng.shuffle(batches)
    for batch in batches:
        yield pad(batch)


def pad(batch):
    """Returns ids [B, T], the targets that count [M] and where they stand in [B * T]."""
    width = max(len(ids) for ids, _ in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    learn = torch.zeros(len(batch), width, dtype=torch.bool)
    for i, (row, mask) in enumerate(batch):
        ids[i, :len(row)] = torch.tensor(row)
        learn[i, :len(row)] = torch.tensor(mask, dtype=torch.bool)
    where = learn[:, 1:].nonzero()
    return ids, ids[:, 1:][learn[:, 1:]], where[:, 0] * width + where[:, 1]


@torch.no_grad()
def exact(model, conversations, last_only=True, group=32):
    """For each (ids, mask): does greedy decoding give the learnt tokens, and by which margin?

    Decoding reproduces a text exactly when every token is the argmax given the true ones before.
    Returns a list of (equal, smallest margin between the right token and the best other)."""
    order = sorted(range(len(conversations)), key=lambda i: len(conversations[i][0]))
    out = [None] * len(conversations)
    for start in range(0, len(order), group):
        index = order[start:start + group]
        ids, _, _ = pad([conversations[i] for i in index])
        hidden = model.hidden(ids)
        for row, i in enumerate(index):
            mask = conversations[i][1]
            at = [j for j, m in enumerate(mask) if m]
            if last_only:  # the last answer only: a run of consecutive positions
                cut = max([k for k in range(1, len(at)) if at[k] != at[k - 1] + 1], default=0)
                at = at[cut:]
            at = torch.tensor(at)
            logits = model.lm_head(hidden[row, at - 1])
            want = ids[row, at].unsqueeze(-1)
            right = logits.gather(-1, want)
            other = logits.scatter(-1, want, float("-inf")).max(dim=-1, keepdim=True).values
            margin = (right - other).min().item()
            out[i] = (margin > 0, margin)
    return out


def int8_blocks(x):
    """Rounds to int8 with one scale per 32 values, as the CPU backend may do to activations."""
    y = x.reshape(-1, 32)
    scale = y.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / 127
    return ((y / scale).round() * scale).view(x.shape)


def report(model, chat, entries, dialogues):
    """Prints how much of the FAQ the model gives back word for word."""
    rng = random.Random(1)
    first = [chat.build([(t.questions[0], t.answer)]) for t in entries]
    others = [chat.build([(q, t.answer)]) for t in entries for q in t.questions[1:]]
    slips = [chat.build([(rephrase(rng, rng.choice(t.questions)), t.answer)]) for t in entries for _ in range(4)]
    talks = []
    for d in dialogues:
        done = [(d.first.questions[0], d.first.answer)]
        for t in d.rest:
            talks += [chat.build(done + [(q, t.answer)]) for q in t.questions]
            done.append((t.questions[0], t.answer))
    later = []
    for n in (2, 3, 5, 10, 18):
        for t in rng.sample(entries, 60):
            before = [(x.questions[0], x.answer) for x in rng.sample(entries, n - 1)]
            conversation = chat.build(before + [(t.questions[0], t.answer)])
            if len(conversation[0]) <= model.c["max_position_embeddings"]:
                later.append((n, conversation))
    sets = [("questions as written", first), ("other phrasings", others),
            ("random slips and politeness", slips), ("follow-ups in dialogues", talks)]
    sets += [(f"turn {n} of unrelated turns", [c for k, c in later if k == n]) for n in (2, 3, 5, 10, 18)]
    for mode, disturb in (("float32", lambda x: x), ("int8 activations", int8_blocks),
                          ("bf16 activations", lambda x: x.bfloat16().float())):
        model.disturb = disturb
        for name, conversations in sets:
            if not conversations:
                continue
            result = exact(model, conversations)
            good = sum(e for e, _ in result)
            margins = sorted(m for _, m in result)
            print(f"{mode:17s} {name:29s} {good:4d} of {len(result):4d} = {100 * good / len(result):5.1f} %"
                  f"  smallest margin {margins[0]:6.2f}, 5th percentile {margins[len(margins) // 20]:5.2f}", flush=True)
    model.disturb = lambda x: x
    bad = [t.questions[0] for t, (e, _) in zip(entries, exact(model, first)) if not e]
    if bad:
        print("not exact:", *bad, sep="\n  ")


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--faq", default=os.path.join(HERE, "../../docs/faq.md"))
    p.add_argument("--out", required=True)
    p.add_argument("--steps", type=int, default=3500)
    p.add_argument("--decay", type=int, default=1000, help="how many of them the rate takes to fall to nothing")
    p.add_argument("--polish", type=int, default=1200, help="steps after these, on every phrasing alike")
    p.add_argument("--batch", type=int, default=1024, help="tokens a step, padding included")
    p.add_argument("--rate", type=float, default=2e-3)
    p.add_argument("--noise", type=float, default=0.02)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=1,
                   help="more help little: the matrices are small, and threads wait for each other")
    p.add_argument("--state", help="file that keeps the state of training; continued if it exists")
    p.add_argument("--check", action="store_true", help="only report on the model in --out")
    a = p.parse_args()

    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    torch.use_deterministic_algorithms(True)
    rng = random.Random(a.seed)
    entries, dialogues = faq.parse(a.faq)
    turns = entries + [t for d in dialogues for t in d.rest]
    if a.check:
        chat = Chat(Tokenizer.from_file(os.path.join(a.out, "tokenizer.json")))
        report(Model.load(a.out), chat, entries, dialogues)
        return

    tok = make_tokenizer(turns, CONFIG["vocab_size"])
    save_configuration(tok, a.out)
    chat = Chat(tok)
    lengths = sorted(len(chat.text(t.answer)) for t in turns)
    print(f"{len(entries)} questions, {sum(len(t.questions) for t in entries)} phrasings, {len(dialogues)} dialogues; "
          f"answers {lengths[0]} to {lengths[-1]} tokens, {sum(lengths)} in all", flush=True)

    model = Model(CONFIG)
    print(f"{sum(x.numel() for x in model.parameters()) / 1e6:.2f} M parameters", flush=True)
    matrices = [x for n, x in model.named_parameters() if x.dim() > 1 and "embed" not in n]
    rest = [x for n, x in model.named_parameters() if x.dim() == 1 or "embed" in n]
    opt = torch.optim.AdamW([{"params": matrices, "weight_decay": 0.02}, {"params": rest, "weight_decay": 0.0}],
                            lr=a.rate, betas=(0.9, 0.99), fused=True)
    step, queue = 0, []
    if a.state and os.path.exists(a.state):
        s = torch.load(a.state, weights_only=False)
        model.load_state_dict(s["model"])
        opt.load_state_dict(s["opt"])
        step, queue = s["step"], s["queue"]
        rng.setstate(s["rng"])
        torch.set_rng_state(s["torch"])

    start, seen = time.time(), 0
    while step < a.steps + a.polish:
        if not queue:
            queue = list(epoch(rng, chat, entries, dialogues, a.batch,
                               CONFIG["max_position_embeddings"], step >= a.steps))
        ids, want, where = queue.pop()
        # Up in a hundred steps, level, down to nothing; then down once more from half the height
        # while every phrasing, not every entry, has the same weight.
        left = a.steps - step
        if left > 0:
            rate = a.rate * min(1, (step + 1) / 100, left / a.decay)
        else:
            rate = a.rate / 2 * (left + a.polish) / a.polish
        for g in opt.param_groups:
            g["lr"] = rate
        # Noise on what each block reads, a few times what rounding to int8 adds, buys margins.
        model.disturb = lambda x: x + a.noise * torch.randn_like(x)
        hidden = model.hidden(ids)
        logits = model.lm_head(hidden.reshape(-1, hidden.shape[-1])[where])
        loss = F.cross_entropy(logits, want)
        (loss + CONFIG["router_aux_loss_coef"] * model.aux_loss()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
        step, seen = step + 1, seen + ids.numel()
        if step % 50 == 0:
            load = torch.stack([x.mlp.load for x in model.layers])
            right = (logits.argmax(-1) == want).float().mean().item()
            print(f"step {step} loss {loss.item():.4f} right {100 * right:.2f} % aux {model.aux_loss().item():.3f} "
                  f"load {load.min().item():.3f}-{load.max().item():.3f} {seen / (time.time() - start):.0f} tokens/s", flush=True)
        if a.state and step % 250 == 0:
            torch.save({"model": model.state_dict(), "opt": opt.state_dict(), "step": step, "queue": queue,
                        "rng": rng.getstate(), "torch": torch.get_rng_state()}, a.state)
            model.save(a.out)
    model.save(a.out)
    print(f"trained in {time.time() - start:.0f} s", flush=True)
    report(Model.load(a.out), chat, entries, dialogues)


if __name__ == "__main__":
    main()
