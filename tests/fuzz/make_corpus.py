#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the seeds of fuzz_gguf, fuzz_safetensors, fuzz_grammar and fuzz_region_index: small inputs that
use every part."""
import json
import os
import struct

HERE = os.path.dirname(os.path.abspath(__file__))


def save(target, name, data):
    path = os.path.join(HERE, "corpus", target, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as f:
        f.write(data)


def safetensors(tensors, metadata=None):
    header, at = {}, 0
    if metadata:
        header["__metadata__"] = metadata
    for name, dtype, shape, size in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(at)


def string(s):
    s = s.encode() if isinstance(s, str) else s
    return struct.pack("<Q", len(s)) + s


def key(name, kind, value):
    return string(name) + struct.pack("<I", kind) + value


def array(kind, values):
    return struct.pack("<IQ", kind, len(values)) + b"".join(values)


def gguf(keys, tensors, version=3, align=32):
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys)
    data = b""
    for name, dims, kind, size in tensors:
        data += bytes(-len(data) % align)
        out += string(name) + struct.pack("<I", len(dims))
        out += b"".join(struct.pack("<Q", d) for d in dims) + struct.pack("<IQ", kind, len(data))
        data += bytes(size)
    return out + bytes(-len(out) % align) + data


def grammars():
    """First byte: which front end reads the rest (fuzz_grammar.c)."""
    save("fuzz_grammar", "regex", b"\x00^(?:a|b?){2,30}[^c-x\\d]+.\\u00e9$")
    save("fuzz_grammar", "gbnf", b'\x01root ::= x+ ("," root)? # c\nx ::= [a-c\\x41] "q"{2,3} | <tok> .\n')
    schema = {
        "type": "object", "required": ["a", "z"], "additionalProperties": {"type": "integer", "multipleOf": 3},
        "properties": {
            "a": {"type": ["string", "null"], "minLength": 2, "maxLength": 300},
            "b": {"anyOf": [{"$ref": "#/$defs/n"}, {"enum": ["x", 1.5, [None]]}]},
            "c": {"type": "number", "minimum": -1.25, "exclusiveMaximum": 30},
            "d": {"type": "array", "prefixItems": [True], "items": {"pattern": "a+$"}, "maxItems": 4},
            "e": {"allOf": [{"minimum": 1}, {"type": "integer", "maximum": 77}]},
            "f": {"format": "date-time"}},
        "$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}}}}
    save("fuzz_grammar", "schema", b"\x02" + json.dumps(schema).encode())
    tools = [{"function": {"name": "f", "parameters": schema}}, {"function": {"name": "g"}}]
    for kind in range(3, 8):
        save("fuzz_grammar", f"tools-{kind}", bytes([kind | 64]) + json.dumps(tools).encode())


def region_index(tensors):
    """A region of weights as runtime/weights/region_index.h has it; its sums are the target's business."""
    strings = b"model\0/models/model\0"
    at = 152 + 80 * len(tensors)
    entries, offset = b"", 0
    for name, size in tensors:
        entries += struct.pack("<2Q3q3Q4I", offset, size, 1, 1, size // 4, size, size, 7, 1, 0,
                               at + len(strings), 0)
        strings += name + b"\0"
        offset += size
    end = at + len(strings)
    data_at = (end + 4095) // 4096 * 4096
    head = struct.pack("<16s2I9Qq2I16s16sQ", b"llmdev weights\n", 1, len(tensors), 152, at, end, data_at,
                       offset, 1, 2, 3, 4, 5, at, at + 6, b"cpu", b"avx512", 0)
    return (head + entries + strings).ljust(data_at, b"\0") + bytes(offset)


def main():
    grammars()
    save("fuzz_region_index", "two", region_index([(b"a.weight", 64), (b"b", 256)]))
    save("fuzz_region_index", "none", region_index([]))
    save("fuzz_safetensors", "empty", safetensors([]))
    save("fuzz_safetensors", "tensors", safetensors(
        [("a.weight", "BF16", [2, 3], 12), ("b", "F32", [], 4), ("none", "I64", [0], 0),
         ("f4", "F4", [2, 2], 2), ("f8", "F8_E4M3", [3], 3)], {"format": "pt"}))
    save("fuzz_safetensors", "escapes", safetensors([("caf\u00e9\n", "U8", [1], 1)]))
    save("fuzz_safetensors", "five-dims", safetensors([("x", "U8", [1, 1, 1, 1, 2], 2)]))
    values = [
        key("general.architecture", 8, string("qwen3")), key("u8", 0, b"\x01"), key("i8", 1, b"\xff"),
        key("u16", 2, b"\x01\x02"), key("i16", 3, b"\x01\x82"), key("u32", 4, struct.pack("<I", 7)),
        key("i32", 5, struct.pack("<i", -7)), key("f32", 6, struct.pack("<f", 1.5)), key("bool", 7, b"\x01"),
        key("u64", 10, struct.pack("<Q", 2**63)), key("i64", 11, struct.pack("<q", -1)),
        key("f64", 12, struct.pack("<d", 0.1)), key("general.alignment", 4, struct.pack("<I", 64)),
        key("tokenizer.ggml.tokens", 9, array(8, [string("a"), string(b"\xff")])),
        key("tokenizer.ggml.scores", 9, array(6, [struct.pack("<f", -1.0)] * 2)),
        key("list", 9, array(5, [struct.pack("<i", 3)] * 3)), key("words", 9, array(8, [string("x")]))]
    save("fuzz_gguf", "empty", gguf([], []))
    save("fuzz_gguf", "values", gguf(values, [], align=64))
    save("fuzz_gguf", "tensors", gguf(values[:1], [
        ("token_embd.weight", [32, 2], 8, 68), ("norm", [4], 0, 16), ("q4k", [256], 12, 144), ("old", [32], 3, 20)]))
    save("fuzz_gguf", "version2", gguf(values[5:7], [("x", [1], 0, 4)], version=2))
    save("fuzz_gguf", "split", gguf([key("split.no", 2, b"\0\0"), key("split.count", 2, b"\x02\0")], []))


if __name__ == "__main__":
    main()
