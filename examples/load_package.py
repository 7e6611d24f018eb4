"""Decide with what `gpu-select export` wrote. This file needs torch alone, and tokenizers where it is given texts.

    python load_package.py router.pt2 < queries.jsonl

A line is {"text": "Integrate x^2.", "domain": "math"}, or {"input_ids": [101, ...], "domain": "math"}; for a package of
the kind `selector` it is {"features": [0.1, ...]}. A line comes out for each.
"""

import functools
import json
import sys
import zipfile

import torch
from torch.nn.utils.rnn import pad_sequence


@functools.cache
def tokenizer_in(path, ending):
    """The tokenizer inside of a package, which cuts texts as the encoder wants it."""
    from tokenizers import Tokenizer

    with zipfile.ZipFile(path) as archive:
        return Tokenizer.from_str(archive.read(next(n for n in archive.namelist() if n.endswith(ending))).decode())


def tensors_of(row, path, about, encoder):
    """Features, or tokens and domain. What does not fit is refused here: of compiled code's errors few are clear."""
    if about["kind"] == "selector":
        return [torch.tensor(row["features"], dtype=torch.float32).reshape(about["inputs"][0]["shape"][1])]
    ids = row.get("input_ids") or tokenizer_in(path, encoder["tokenizer"]).encode(encoder["prefix"] + row["text"]).ids
    if not 1 <= len(ids) <= encoder["max_length"] or min(ids) < 0:
        raise ValueError(f"expected 1 to {encoder['max_length']} tokens")
    return [torch.tensor(ids), torch.tensor(about["domains"].index(row.get("domain", "other")))]


def main(path):
    """Read, decide, print."""
    package = torch._inductor.aoti_load_package(path)
    about, rows = json.loads(package.get_metadata()["gpu_select"]), []
    for number, line in enumerate(sys.stdin, 1):
        try:
            rows += [tensors_of(json.loads(line), path, about, about["encoder"])] if line.strip() else []
        except Exception as error:
            sys.exit(f"line {number}: {type(error).__name__}: {error}")
    if not rows:  # there are no empty batches
        return
    first, *domains = zip(*rows, strict=True)
    first = pad_sequence(first, batch_first=True, padding_value=-1)
    inputs = [first.clamp(min=0), (first >= 0).long(), torch.stack(domains[0])] if domains else [first]
    if len(inputs) < len(about["inputs"]):  # the mask of models that may be chosen
        inputs.append(torch.ones(len(rows), len(about["models"]), dtype=torch.bool))
    out = package(*(tensor.to(about["device"]) for tensor in inputs))
    for model, score in zip(out["model"].tolist(), out["score"].tolist(), strict=True):
        print(json.dumps({"model": about["models"][model], "score": score}))


if __name__ == "__main__":
    main(sys.argv[1])
