#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Make tests/fixtures/models: tiny random checkpoints and what transformers computes from them.

Needs torch, transformers, gguf and llama.cpp's llama-quantize and llama-gguf-split (Debian packages
python3-torch python3-transformers python3-gguf llama.cpp-tools). Deterministic for given versions.

    python3 tests/oracle/make_fixtures.py OUTDIR

Each checkpoint NAME has an expect.json (inside its directory, or NAME.expect.json beside a GGUF
file):
    prompt                token ids, one forward pass
    positions             which positions' logits are given
    logits_f32_base64     little-endian float32[vocab] per position
    greedy, margin        the next ids by argmax; the smallest gap between the best two on the way
    std                   of all the logits
Logits are float32, eager, from exactly the stored weights (after rounding or quantisation).
"""
import base64
import json
import os
import struct
import subprocess
import sys
import zlib

import gguf
import numpy as np
import torch
import transformers

VOCAB = 256
PROMPT = 100          # crosses the 64-position border of KV pages and of the prefill grid
POSITIONS = [0, 1, 7, 63, 64, 99]
GREEDY = 40           # ends past 128
MARGIN = 0.06         # that every greedy choice has: three times what the comparison asks for

torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

DENSE = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=32, vocab_size=VOCAB, max_position_embeddings=512,
             rms_norm_eps=1e-6, attn_implementation="eager")


def build(kind, seed, **changes):
    """A float32 model with random weights of a scale that gives lively logits."""
    shape = dict(DENSE, **changes)
    if kind == "qwen3":
        cfg = transformers.Qwen3Config(**shape)
        model = transformers.Qwen3ForCausalLM(cfg)
    elif kind == "qwen3_moe":
        cfg = transformers.Qwen3MoeConfig(
            num_experts=8, num_experts_per_tok=2, moe_intermediate_size=32, norm_topk_prob=True,
            decoder_sparse_step=1, **shape)
        model = transformers.Qwen3MoeForCausalLM(cfg)
    else:
        cfg = transformers.LlamaConfig(**shape)
        model = transformers.LlamaForCausalLM(cfg)
    gen = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            r = torch.randn(p.shape, generator=gen)
            if "norm" in name:
                p.copy_(1 + 0.2 * r)
            elif "embed_tokens" in name or "lm_head" in name:
                p.copy_(0.4 * r)
            else:
                p.copy_(1.5 * r / p.shape[-1] ** 0.5)
    return model.eval().float()


def round_weights(model, dtype):
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.to(dtype).float())


def continuation(model, prompt):
    """Greedy ids, and the smallest gap between the two best logits on the way."""
    ids, margin = list(prompt), float("inf")
    with torch.no_grad():
        while len(ids) < PROMPT + GREEDY and margin > MARGIN:
            top = model(torch.tensor([ids])).logits[0, -1].float().topk(2)
            margin = min(margin, float(top.values[0] - top.values[1]))
            ids.append(int(top.indices[0]))
    return ids[PROMPT:], margin


def expect(model, name):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    margin = 0
    while margin <= MARGIN:     # another prompt, until no step is a close call
        prompt = [int(x) for x in rng.integers(3, VOCAB, PROMPT)]
        greedy, margin = continuation(model, prompt)
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0].float()
    rows = [logits[p].numpy().astype("<f4") for p in POSITIONS]
    return {
        "prompt": prompt, "vocab": VOCAB, "positions": POSITIONS,
        "logits_f32_base64": [base64.b64encode(r.tobytes()).decode() for r in rows],
        "logits_head": [[round(float(x), 5) for x in r[:6]] for r in rows],
        "greedy": greedy, "margin": margin, "std": float(logits.std()),
        "made_with": "transformers %s, torch %s, float32, eager" % (
            transformers.__version__, torch.__version__),
    }


def dump(path, obj):
    with open(path, "w") as f:
        json.dump(obj, f, indent=1)
        f.write("\n")


# ---- safetensors ----------------------------------------------------------------------------------

ST_TYPE = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}


def tensor_bytes(t, dtype):
    t = t.detach().to(dtype).contiguous()
    return t.view(torch.uint8).numpy().tobytes() if t.ndim else t.numpy().tobytes()


def write_safetensors(path, tensors, dtype):
    head, blobs, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, t in tensors:
        b = tensor_bytes(t, dtype)
        head[name] = {"dtype": ST_TYPE[dtype], "shape": list(t.shape), "data_offsets": [at, at + len(b)]}
        blobs.append(b)
        at += len(b)
    text = json.dumps(head, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def on_disk(model):
    """The checkpoint's tensors: one per expert, and no second name for a tied embedding."""
    out, seen = [], set()
    for name, t in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        if name.endswith("mlp.experts.gate_up_proj"):
            for x in range(t.shape[0]):
                gate, up = t[x].chunk(2)
                out += [(name.replace("gate_up_proj", "%d.gate_proj.weight" % x), gate),
                        (name.replace("gate_up_proj", "%d.up_proj.weight" % x), up)]
        elif name.endswith("mlp.experts.down_proj"):
            out += [(name.replace("down_proj", "%d.down_proj.weight" % x), t[x])
                    for x in range(t.shape[0])]
        else:
            out.append((name, t))
        assert name not in seen
        seen.add(name)
    return sorted(out)


def config(model, dtype, old_keys):
    c = {k: v for k, v in model.config.to_dict().items() if not k.startswith("_")}
    for k in ("attn_implementation", "transformers_version", "output_hidden_states", "return_dict",
              "chunk_size_feed_forward", "id2label", "label2id", "problem_type",
              "output_attentions"):
        c.pop(k, None)
    c["architectures"] = [type(model).__name__]
    c["dtype"] = str(dtype).replace("torch.", "")
    if old_keys:    # the spelling of checkpoints before transformers 5
        rope = dict(c.pop("rope_parameters"))
        c["rope_theta"] = rope.pop("rope_theta")
        c["rope_scaling"] = None if rope["rope_type"] == "default" else rope
        c["torch_dtype"] = c.pop("dtype")
    return c


def save_hf(out, name, model, dtype, shards=1, old_keys=False):
    d = os.path.join(out, name)
    os.makedirs(d, exist_ok=True)
    round_weights(model, dtype)
    tensors = on_disk(model)
    if shards == 1:
        write_safetensors(os.path.join(d, "model.safetensors"), tensors, dtype)
    else:
        where, total = {}, 0
        for i in range(shards):
            part = tensors[len(tensors) * i // shards:len(tensors) * (i + 1) // shards]
            file = "model-%05d-of-%05d.safetensors" % (i + 1, shards)
            write_safetensors(os.path.join(d, file), part, dtype)
            where.update({n: file for n, _ in part})
            total += sum(t.numel() * dtype.itemsize for _, t in part)
        dump(os.path.join(d, "model.safetensors.index.json"),
             {"metadata": {"total_size": total}, "weight_map": where})
    dump(os.path.join(d, "config.json"), config(model, dtype, old_keys))
    dump(os.path.join(d, "expect.json"), expect(model, name))


# ---- GGUF -----------------------------------------------------------------------------------------

LAYER = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm", "mlp.gate": "ffn_gate_inp",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}
TOP = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
       "lm_head.weight": "output.weight"}


def interleave(t, heads):
    """Rows of each head from halves to pairs, as GGUF's llama wants its q and k."""
    return t.reshape(heads, 2, t.shape[0] // heads // 2, -1).transpose(1, 2).reshape(t.shape)


def deinterleave(t, heads):
    return t.reshape(heads, t.shape[0] // heads // 2, 2, -1).transpose(1, 2).reshape(t.shape)


def gguf_tensors(model, llama):
    """(GGUF name, HF name, expert axis) -> tensor, experts stacked."""
    cfg = model.config
    for name, t in model.state_dict().items():
        if name in TOP:
            if not (name == "lm_head.weight" and cfg.tie_word_embeddings):
                yield TOP[name], t
            continue
        _, _, layer, rest = name.split(".", 3)
        prefix = "blk.%s." % layer
        if rest == "mlp.experts.gate_up_proj":
            gate, up = t.chunk(2, dim=1)
            yield prefix + "ffn_gate_exps.weight", gate
            yield prefix + "ffn_up_exps.weight", up
        elif rest == "mlp.experts.down_proj":
            yield prefix + "ffn_down_exps.weight", t
        else:
            rest = rest.removesuffix(".weight")
            if llama and rest == "self_attn.q_proj":
                t = interleave(t, cfg.num_attention_heads)
            if llama and rest == "self_attn.k_proj":
                t = interleave(t, cfg.num_key_value_heads)
            yield prefix + LAYER[rest] + ".weight", t


def set_from_gguf(model, values, llama):
    """The model's weights := what the GGUF file holds, dequantised."""
    cfg = model.config
    with torch.no_grad():
        for name, t in model.state_dict().items():
            if name in TOP:
                t.copy_(values[TOP[name] if TOP[name] in values else "token_embd.weight"])
                continue
            _, _, layer, rest = name.split(".", 3)
            prefix = "blk.%s." % layer
            if rest == "mlp.experts.gate_up_proj":
                t.copy_(torch.cat([values[prefix + "ffn_gate_exps.weight"],
                                   values[prefix + "ffn_up_exps.weight"]], dim=1))
            elif rest == "mlp.experts.down_proj":
                t.copy_(values[prefix + "ffn_down_exps.weight"])
            else:
                rest = rest.removesuffix(".weight")
                v = values[prefix + LAYER[rest] + ".weight"]
                if llama and rest == "self_attn.q_proj":
                    v = deinterleave(v, cfg.num_attention_heads)
                if llama and rest == "self_attn.k_proj":
                    v = deinterleave(v, cfg.num_key_value_heads)
                t.copy_(v)


def write_gguf_f32(path, model, arch):
    cfg, llama = model.config, arch == "llama"
    rope = cfg.rope_parameters
    w = gguf.GGUFWriter(path, arch)
    w.add_name("llmdev fixture")
    w.add_block_count(cfg.num_hidden_layers)
    w.add_context_length(cfg.max_position_embeddings)
    w.add_embedding_length(cfg.hidden_size)
    w.add_feed_forward_length(cfg.intermediate_size)
    w.add_head_count(cfg.num_attention_heads)
    w.add_head_count_kv(cfg.num_key_value_heads)
    w.add_key_length(cfg.head_dim)
    w.add_value_length(cfg.head_dim)
    w.add_layer_norm_rms_eps(cfg.rms_norm_eps)
    w.add_rope_freq_base(rope["rope_theta"])
    w.add_rope_dimension_count(cfg.head_dim)
    w.add_vocab_size(cfg.vocab_size)
    w.add_tokenizer_model("none")
    if arch == "qwen3moe":
        w.add_expert_count(cfg.num_experts)
        w.add_expert_used_count(cfg.num_experts_per_tok)
        w.add_expert_feed_forward_length(cfg.moe_intermediate_size)
    if rope["rope_type"] == "llama3":
        base = rope["rope_theta"] ** -(np.arange(0, cfg.head_dim, 2, dtype=np.float64) / cfg.head_dim)
        scaled = model.model.rotary_emb.inv_freq.double().numpy()
        w.add_tensor("rope_freqs.weight", (base / scaled).astype(np.float32))
    for name, t in gguf_tensors(model, llama):
        w.add_tensor(name, t.detach().float().contiguous().numpy())
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


def read_values(path):
    out = {}
    for t in gguf.GGUFReader(path).tensors:
        v = gguf.quants.dequantize(t.data, t.tensor_type)
        out[t.name] = torch.from_numpy(np.array(v, dtype=np.float32).reshape(t.shape[::-1].tolist()))
    return out


def save_gguf(out, name, model, arch, ftype, split=0, options=()):
    os.makedirs(out, exist_ok=True)
    src = os.path.join(out, name + ".f32.tmp")
    dst = os.path.join(out, name + ".gguf")
    write_gguf_f32(src, model, arch)
    subprocess.run(["llama-quantize", *options, src, dst, ftype, "1"], check=True,
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.unlink(src)
    set_from_gguf(model, read_values(dst), arch == "llama")
    dump(os.path.join(out, name + ".expect.json"), expect(model, name))
    if split:
        subprocess.run(["llama-gguf-split", "--split", "--split-max-tensors", str(split), dst,
                        os.path.join(out, name)], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.unlink(dst)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: make_fixtures.py OUTDIR")
    out = sys.argv[1]
    llama3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0,
                  high_freq_factor=4.0, original_max_position_embeddings=64)
    yarn = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0,
                original_max_position_embeddings=64)
    plain = dict(rope_type="default", rope_theta=1000000.0)

    save_hf(out, "qwen3-tied-sharded", build("qwen3", 1, tie_word_embeddings=True,
                                             rope_parameters=plain), torch.bfloat16, shards=2)
    save_hf(out, "qwen3-yarn", build("qwen3", 2, tie_word_embeddings=True, rope_parameters=yarn,
                                     max_position_embeddings=256),
            torch.bfloat16, old_keys=True)
    save_hf(out, "llama-rope3", build("llama", 3, tie_word_embeddings=False, rms_norm_eps=1e-5,
                                      rope_parameters=llama3), torch.bfloat16, old_keys=True)
    save_hf(out, "qwen3-moe-f16", build("qwen3_moe", 4, tie_word_embeddings=False,
                                        rope_parameters=plain), torch.float16)

    for i, ftype in enumerate(["F16", "BF16", "Q8_0", "Q4_0"]):
        save_gguf(out, "qwen3-" + ftype, build("qwen3", 10 + i, tie_word_embeddings=True,
                                               rope_parameters=plain), "qwen3", ftype)
    wide = dict(hidden_size=256, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4,
                num_key_value_heads=1, head_dim=64, tie_word_embeddings=True, rope_parameters=plain)
    save_gguf(out, "qwen3-Q4_K", build("qwen3", 20, **wide), "qwen3", "Q4_K_S",
              options=["--pure", "--token-embedding-type", "q6_K"])
    save_gguf(out, "qwen3-Q6_K", build("qwen3", 21, **wide), "qwen3", "Q6_K")
    save_gguf(out, "qwen3moe-Q8_0", build("qwen3_moe", 22, tie_word_embeddings=False,
                                          rope_parameters=plain), "qwen3moe", "Q8_0")
    save_gguf(out, "llama-Q8_0", build("llama", 23, tie_word_embeddings=False,
                                       rope_parameters=llama3), "llama", "Q8_0", split=9)


if __name__ == "__main__":
    main()
