# SPDX-License-Identifier: MIT
"""The built-in model: Qwen3-MoE in plain PyTorch, and its published file layout.

Shapes in comments: B rows, T positions, H hidden, E experts, I expert width, D head size.
"""

import json
import os

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

CONFIG = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "decoder_sparse_step": 1,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 256,
    "max_position_embeddings": 2048,
    "max_window_layers": 5,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 128,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 5,
    "num_key_value_heads": 2,
    "output_router_logits": False,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "router_aux_loss_coef": 0.01,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 2048,
}


class Norm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


def rotate(x, cos, sin):
    """Rotary embedding, halves: x [B, heads, T, D]; cos, sin [T, D]."""
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        h, d = c["hidden_size"], c["head_dim"]
        self.heads, self.kv_heads, self.d = c["num_attention_heads"], c["num_key_value_heads"], d
        self.q_proj = nn.Linear(h, self.heads * d, bias=False)
        self.k_proj = nn.Linear(h, self.kv_heads * d, bias=False)
        self.v_proj = nn.Linear(h, self.kv_heads * d, bias=False)
        self.o_proj = nn.Linear(self.heads * d, h, bias=False)
        self.q_norm = Norm(d, c["rms_norm_eps"])
        self.k_norm = Norm(d, c["rms_norm_eps"])

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        q = self.q_norm(self.q_proj(x).view(b, t, self.heads, self.d)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(b, t, self.kv_heads, self.d)).transpose(1, 2)
        v = self.v_proj(x).view(b, t, self.kv_heads, self.d).transpose(1, 2)
        group = self.heads // self.kv_heads
        k = rotate(k, cos, sin).repeat_interleave(group, dim=1)
        v = v.repeat_interleave(group, dim=1)
        y = F.scaled_dot_product_attention(rotate(q, cos, sin), k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(b, t, self.heads * self.d))


class Experts(nn.Module):
    """Top-k routed SwiGLU experts. Keeps the load-balancing loss of its last call in .aux."""

    def __init__(self, c):
        super().__init__()
        h, i, e = c["hidden_size"], c["moe_intermediate_size"], c["num_experts"]
        self.top = c["num_experts_per_tok"]
        self.gate = nn.Linear(h, e, bias=False)
        self.gate_up = nn.Parameter(torch.empty(e, 2 * i, h))
        self.down = nn.Parameter(torch.empty(e, h, i))
        self.aux = None
        self.load = None

    def forward(self, x):
        shape = x.shape
        x = x.reshape(-1, shape[-1])
        p = self.gate(x).softmax(dim=-1)  # [N, E]
        weight, chosen = p.topk(self.top, dim=-1)  # [N, top]
        weight = weight / weight.sum(dim=-1, keepdim=True)
        experts = p.shape[-1]
        order = chosen.reshape(-1).argsort(stable=True)  # choices, grouped by expert
        counts = chosen.reshape(-1).bincount(minlength=experts)
        self.load = counts.float() / counts.sum()
        self.aux = experts * (self.load * p.mean(dim=0)).sum()
        token = order // self.top
        out = []
        for e, rows in enumerate(x[token].split(counts.tolist())):
            gate, up = F.linear(rows, self.gate_up[e]).chunk(2, dim=-1)
            out.append(F.linear(F.silu(gate) * up, self.down[e]))
        out = torch.cat(out) * weight.reshape(-1)[order].unsqueeze(-1)
        return torch.zeros_like(x).index_add(0, token, out).view(shape)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = Norm(c["hidden_size"], c["rms_norm_eps"])
        self.self_attn = Attention(c)
        self.post_attention_layernorm = Norm(c["hidden_size"], c["rms_norm_eps"])
        self.mlp = Experts(c)


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embed_tokens = nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = Norm(c["hidden_size"], c["rms_norm_eps"])
        self.lm_head = nn.Linear(c["hidden_size"], c["vocab_size"], bias=False)
        d = c["head_dim"]
        inv = c["rope_theta"] ** (-torch.arange(0, d, 2, dtype=torch.float32) / d)
        angle = torch.outer(torch.arange(c["max_position_embeddings"], dtype=torch.float32), inv)
        angle = torch.cat((angle, angle), dim=-1)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)
        # What a block reads passes through this: training adds noise, checks may quantise.
        self.disturb = lambda x: x
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.normal_(p, std=0.04)
        for name, p in self.named_parameters():
            if name.endswith(("o_proj.weight", "mlp.down")):
                nn.init.normal_(p, std=0.04 / (2 * c["num_hidden_layers"]) ** 0.5)

    def hidden(self, ids):
        """ids [B, T] -> what the head reads [B, T, H]."""
        t = ids.shape[1]
        cos, sin = self.cos[:t], self.sin[:t]
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = x + layer.self_attn(self.disturb(layer.input_layernorm(x)), cos, sin)
            x = x + layer.mlp(self.disturb(layer.post_attention_layernorm(x)))
        return self.disturb(self.norm(x))

    def forward(self, ids):
        return self.lm_head(self.hidden(ids))

    def aux_loss(self):
        return sum(layer.mlp.aux for layer in self.layers) / len(self.layers)

    def published(self):
        """The tensors under the names and shapes of published Qwen3-MoE checkpoints, BF16."""
        out = {}
        for name, p in self.state_dict().items():
            name = name if name.startswith("lm_head") else "model." + name
            if name.endswith("mlp.gate_up"):
                for e, w in enumerate(p):
                    gate, up = w.chunk(2)
                    base = name.removesuffix("gate_up") + f"experts.{e}."
                    out[base + "gate_proj.weight"], out[base + "up_proj.weight"] = gate, up
            elif name.endswith("mlp.down"):
                for e, w in enumerate(p):
                    out[name.removesuffix("down") + f"experts.{e}.down_proj.weight"] = w
            else:
                out[name] = p
        return {k: v.to(torch.bfloat16).contiguous() for k, v in sorted(out.items())}

    def save(self, folder):
        os.makedirs(folder, exist_ok=True)
        weights = os.path.join(folder, "model.safetensors")
        save_file(self.published(), weights, metadata={"format": "pt"})
        os.chmod(weights, 0o644)  # save_file leaves it private
        with open(os.path.join(folder, "config.json"), "w") as f:
            json.dump(self.c, f, indent=2)
            f.write("\n")

    @classmethod
    def load(cls, folder):
        with open(os.path.join(folder, "config.json")) as f:
            model = cls(json.load(f))
        file = {k: v.float() for k, v in load_file(os.path.join(folder, "model.safetensors")).items()}
        state = {}
        for name, p in model.state_dict().items():
            full = name if name.startswith("lm_head") else "model." + name
            experts = range(model.c["num_experts"])
            if full.endswith("mlp.gate_up"):
                base = full.removesuffix("gate_up") + "experts."
                state[name] = torch.stack([torch.cat((file[f"{base}{e}.gate_proj.weight"],
                                                      file[f"{base}{e}.up_proj.weight"]))
                                           for e in experts])
            elif full.endswith("mlp.down"):
                base = full.removesuffix("down") + "experts."
                state[name] = torch.stack([file[f"{base}{e}.down_proj.weight"] for e in experts])
            else:
                state[name] = file[full]
        model.load_state_dict(state)
        return model
