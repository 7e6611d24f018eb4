"""Decide with what `gpu-select export` wrote. This file needs torch alone, and tokenizers where it is given texts.

    python load_package.py router.pt2 < queries.jsonl

A line is {"text": "Integrate x^2.", "domain": "math"}, or {"input_ids": [101, ...], "domain": "math"}; for a package of
the kind `selector` it is {"features": [0.1, ...]}. A line comes out for each.
"""

import json
import sys
import zipfile

import torch
from torch.nn.utils.rnn import pad_sequence


def tokens_of(rows, path, encoder):
    """(B, T) token ids and mask: those that rows bring, or by the tokenizer inside of the package."""
    if "input_ids" in rows[0]:
        ids = pad_sequence([torch.tensor(row["input_ids"]) for row in rows], batch_first=True, padding_value=-1)
        return ids.clamp(min=0), (ids >= 0).long()
    from tokenizers import Tokenizer

    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith(encoder["tokenizer"]))
        tokenizer = Tokenizer.from_str(archive.read(name).decode())  # cuts and pads as the encoder wants it
    encodings = tokenizer.encode_batch([encoder["prefix"] + row["text"] for row in rows])
    return torch.tensor([one.ids for one in encodings]), torch.tensor([one.attention_mask for one in encodings])


def main(path):
    """Read, decide, print."""
    rows = [json.loads(line) for line in sys.stdin if line.strip()]
    package = torch._inductor.aoti_load_package(path)
    about = json.loads(package.get_metadata()["gpu_select"])
    if about["kind"] == "selector":
        inputs = [torch.tensor([row["features"] for row in rows])]
    else:
        domain = [about["domains"].index(row.get("domain", "other")) for row in rows]
        inputs = [*tokens_of(rows, path, about["encoder"]), torch.tensor(domain)]
    if len(inputs) < len(about["inputs"]):  # the mask of models that may be chosen
        inputs.append(torch.ones(len(rows), len(about["models"]), dtype=torch.bool))
    with torch.inference_mode():
        out = package(*(tensor.to(about["device"]) for tensor in inputs))
    for model, score in zip(out["model"].tolist(), out["score"].tolist(), strict=True):
        print(json.dumps({"model": about["models"][model], "score": score}))


if __name__ == "__main__":
    main(sys.argv[1])
