#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes what Hugging Face transformers (float32, eager) computes from the built-in model.

    make_expect.py MODEL_FOLDER FAQ > tests/fixtures/demo/expect.json

Needs torch and transformers 5. Two parts: one forward pass with its logits, and the whole answers
to some of the page's questions, so that a test needs neither this script nor the page.
"""

import base64
import json
import os
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import faq  # noqa: E402

QUESTIONS = ["Why is the sky blue?", "What are you?", "hello", "What is llmdev?", "how do i ask a question",
             "what is ChatML"]  # its answer spells out the markers


def main():
    folder, page = sys.argv[1:3]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    tok = PreTrainedTokenizerFast(tokenizer_file=os.path.join(folder, "tokenizer.json"))
    with open(os.path.join(folder, "tokenizer_config.json")) as f:
        tok.chat_template = json.load(f)["chat_template"]
    end = tok.convert_tokens_to_ids("<|im_end|>")

    def render(messages):
        text = tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return tok(text, add_special_tokens=False)["input_ids"]

    @torch.no_grad()
    def greedy(ids, limit):
        ids, out, margin = list(ids), [], float("inf")
        while len(out) < limit and (not out or out[-1] != end):
            best = model(torch.tensor([ids])).logits[0, -1].topk(2)
            margin = min(margin, (best.values[0] - best.values[1]).item())
            out.append(best.indices[0].item())
            ids.append(out[-1])
        return out, margin

    # A conversation of two turns, so that the pass is long enough to mean something.
    entries, _ = faq.parse(page)
    answers = {t.questions[0]: t.answer for t in entries}
    prompt = render([{"role": "user", "content": "What is a session?"},
                     {"role": "assistant", "content": answers["What is a session?"]},
                     {"role": "user", "content": "Why is the sky blue?"}])
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0]
    positions = [0, 1, len(prompt) // 2, len(prompt) - 2, len(prompt) - 1]
    following, margin = greedy(prompt, 24)
    chats = []
    for question in QUESTIONS:
        ids = render([{"role": "user", "content": question}])
        answer, gap = greedy(ids, 200)
        chats.append({"question": question, "prompt": ids, "ids": answer, "margin": gap,
                      "text": tok.decode(answer, skip_special_tokens=True)})
    json.dump({
        "prompt": prompt, "vocab": logits.shape[1], "positions": positions,
        "logits_f32_base64": [base64.b64encode(logits[p].numpy().astype("<f4").tobytes()).decode() for p in positions],
        "logits_head": [[round(x, 5) for x in logits[p, :6].tolist()] for p in positions],
        "greedy": following, "margin": margin, "std": logits.std().item(), "chats": chats,
        "made_with": f"transformers {transformers.__version__}, torch {torch.__version__}, float32, eager",
    }, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
