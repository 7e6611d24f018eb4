"""How fast is training the support vector machines against scikit-learn's SVC, in one run?

    python bench/svm.py [--train records.jsonl.gz] [--cache-dir DIR] [--device cuda]

One weighted machine a model: as `gpu-select train` fits them, to what each model is expected to gain or lose against
the best other one; and to single outcomes (quality less the query's mean), a harder problem. Both sides stop at a gap
of 1e-3 and compute their own kernel; SVC, which stays on the CPU, fits one machine after the other. Then a load
like that of `gpu-select tune`, without a peer: 8 widths x 5 bounds x 5 folds, all of whose machines are solved over one
kernel matrix a width. Without --train: 5,000 synthetic queries x 6 models. Medians of interleaved repeats; the tuning
load runs once.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from common import clustered_features, embedded_features, interleaved, save, unit
from sklearn.svm import SVC

from gpu_select.domains import N_DOMAINS
from gpu_select.training import SVMSettings
from gpu_select.training.estimate import Regression
from gpu_select.training.smo import Kernel, solve
from gpu_select.training.svm import problems
from gpu_select.training.utility import centred

GAP = 1e-3
SETTINGS = ((1.0, 1.0), (1.0, 10.0))
"""gamma and C of the comparison; single outcomes with the first."""
GAMMAS, COSTS, FOLDS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8), (0.01, 0.1, 1.0, 10.0, 100.0), 5


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--train", type=Path, help="benchmark records; their queries are embedded with all-MiniLM")
    parser.add_argument("--cache-dir", type=Path, help="where embeddings are kept")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=5000, help="of the synthetic data, and at most of the real one")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--widths", type=int, default=len(GAMMAS), help="how many of the widths the tuning load has")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if arguments.train is None:
        features_QD, domain_Q, utility_QM, quality_QM = _synthetic(arguments.rows)
    else:
        features_QD, domain_Q, utility_QM, quality_QM = _real(
            arguments.train, arguments.cache_dir, arguments.rows, device
        )
    points_QD = unit(features_QD)
    settings = SVMSettings()
    regression = Regression(features_QD, domain_Q, settings.label_gamma, seed=0)
    sign_MQ, weight_MQ = problems(regression.fit(centred(utility_QM), settings.label_ridge).held_out_QM, points_QD)
    gain_MQ = sign_MQ * weight_MQ
    single_MQ = torch.from_numpy(np.nan_to_num(quality_QM - np.nanmean(quality_QM, axis=1, keepdims=True)).T.copy())
    todo = [("expected gains", gain_MQ, *setting) for setting in SETTINGS]
    todo.append(("single outcomes", single_MQ, *SETTINGS[0]))
    results = [
        {"target": target, **_against_svc(points_QD, g_MQ, gamma, C, device, arguments.repeats)}
        for target, g_MQ, gamma, C in todo
    ]
    print("| target | rows | models | gamma | C | ours | SVC | ratio | objectives differ by | our gap |")
    for row in results:
        ours, peer = row["seconds"]["ours"], row["seconds"]["SVC"]
        print(
            f"| {row['target']} | {row['rows']:,} | {row['models']} | {row['gamma']} | {row['C']} "
            f"| {ours:.2f} s | {peer:.2f} s | {row['speedup_over_SVC']:.1f} "
            f"| {row['objective_difference']:.1e} | {row['gap']:.1e} |",
            flush=True,
        )
    tuning = _tuning(points_QD, gain_MQ, GAMMAS[: arguments.widths], device)
    print(
        f"tuning: {tuning['machines']:,} machines on {tuning['rows']:,} rows in {tuning['seconds']:.1f} s, "
        f"largest gap {tuning['gap']:.1e}"
    )
    data = "synthetic" if arguments.train is None else arguments.train.name
    document = {"data": data, "dim": points_QD.shape[1], "repeats": arguments.repeats}
    save(f"svm-{device.type}", {**document, "results": results, "tuning": tuning})


def _synthetic(n_rows: int) -> tuple[torch.Tensor, np.ndarray, np.ndarray, np.ndarray]:
    """Features of MiniLM's size, and six models' answers of all qualities that depend on them a little."""
    features_QD = clustered_features(n_rows, 398, seed=1)
    rng = np.random.default_rng(0)
    logits_QM = 0.5 * unit(features_QD).numpy() @ rng.standard_normal((398, 6)) + rng.normal(0, 0.3, 6)
    right_QM = rng.random(logits_QM.shape) < 1 / (1 + np.exp(-logits_QM))
    domain_Q = features_QD[:, -N_DOMAINS:].argmax(dim=1).numpy()
    return features_QD, domain_Q, 0.9 * right_QM + 0.1 * rng.random(logits_QM.shape), right_QM.astype(float)


def _real(
    path: Path, cache_dir: Path | None, most: int, device: torch.device
) -> tuple[torch.Tensor, np.ndarray, np.ndarray, np.ndarray]:
    from gpu_select.records import read_outcomes
    from gpu_select.training import TrainOptions
    from gpu_select.training.utility import utilities

    table, _ = read_outcomes(str(path), limit=most)
    features_QD = embedded_features(table, "minilm", cache_dir, device)
    utility_QM = utilities(table, TrainOptions().quality_weight)
    return features_QD, table.domain_groups(), utility_QM, table.quality_QM


def _against_svc(
    points_QD: torch.Tensor, gain_MQ: torch.Tensor, gamma: float, C: float, device: torch.device, repeats: int
) -> dict[str, object]:
    sign_MQ = torch.where(gain_MQ >= 0, 1.0, -1.0).double()
    cost_MQ = C * gain_MQ.abs()
    inputs = [x.to(device) for x in (points_QD, sign_MQ, cost_MQ)]
    points, parts = points_QD.double().numpy(), [cost_Q.nonzero().squeeze(1).numpy() for cost_Q in cost_MQ]
    sides: dict[str, torch.Tensor] = {}

    def ours() -> None:
        sides["ours"] = solve(Kernel(inputs[0], gamma), inputs[1], inputs[2], tolerance=GAP)[0].cpu().double()

    def svc() -> None:
        beta_MQ = torch.zeros_like(cost_MQ)
        for m, part in enumerate(parts):
            if len(sign_MQ[m, part].unique()) < 2:  # a constant machine, without support vectors
                continue
            machine = SVC(C=C, gamma=gamma, tol=GAP, cache_size=1000)
            machine.fit(points[part], sign_MQ[m].numpy()[part], sample_weight=cost_MQ[m].numpy()[part] / C)
            beta_MQ[m, part[machine.support_]] = torch.from_numpy(machine.dual_coef_[0])
        sides["SVC"] = beta_MQ

    seconds = interleaved({"ours": ours, "SVC": svc}, repeats)
    exact = Kernel(points_QD, gamma)
    values = {side: _objective(exact, beta_MQ, sign_MQ) for side, beta_MQ in sides.items()}
    return {
        "rows": len(points_QD),
        "models": len(gain_MQ),
        "gamma": gamma,
        "C": C,
        "seconds": seconds,
        "speedup_over_SVC": seconds["SVC"] / seconds["ours"],
        "objective_difference": float(((values["ours"] - values["SVC"]) / values["SVC"]).nan_to_num().abs().max()),
        "gap": _gap(exact, sides["ours"], sign_MQ, cost_MQ),
    }


def _objective(kernel: Kernel, beta_PQ: torch.Tensor, sign_PQ: torch.Tensor) -> torch.Tensor:
    return (beta_PQ * (0.5 * kernel.product(beta_PQ) - sign_PQ)).sum(dim=1)


def _gap(kernel: Kernel, beta_PQ: torch.Tensor, sign_PQ: torch.Tensor, cost_PQ: torch.Tensor) -> float:
    """Largest violation of the optimality conditions, in float64."""
    error_PQ = sign_PQ - kernel.product(beta_PQ)
    alpha_PQ = beta_PQ * sign_PQ
    can_grow_PQ = torch.where(sign_PQ > 0, alpha_PQ < cost_PQ, alpha_PQ > 0)
    can_shrink_PQ = torch.where(sign_PQ > 0, alpha_PQ > 0, alpha_PQ < cost_PQ)
    up_P = error_PQ.where(can_grow_PQ, -torch.inf).amax(dim=1)
    return float((up_P - error_PQ.where(can_shrink_PQ, torch.inf).amin(dim=1)).max())


def _tuning(
    points_QD: torch.Tensor, gain_MQ: torch.Tensor, gammas: tuple[float, ...], device: torch.device
) -> dict[str, object]:
    fold_Q = torch.from_numpy(np.random.default_rng(0).permutation(len(points_QD)) % FOLDS)
    sign_PQ = torch.where(gain_MQ >= 0, 1.0, -1.0).double().repeat(FOLDS, 1).to(device)
    weight_PQ = torch.cat([gain_MQ.abs().where(fold_Q != fold, 0.0) for fold in range(FOLDS)]).to(device)
    points_QD = points_QD.to(device)
    seconds, worst, by_width = 0.0, 0.0, []
    for gamma in gammas:
        begin = time.perf_counter()
        kernel = Kernel(points_QD, gamma)
        found: list[torch.Tensor] = []
        for smaller, C in zip((None, *COSTS), COSTS, strict=False):
            start = None if smaller is None else found[-1] * (C / smaller)
            found.append(solve(kernel, sign_PQ, C * weight_PQ, tolerance=GAP, start_PQ=start)[0])
        if device.type == "cuda":
            torch.cuda.synchronize()
        by_width.append(time.perf_counter() - begin)
        seconds += by_width[-1]
        gaps = [_gap(kernel, beta_PQ, sign_PQ, C * weight_PQ) for beta_PQ, C in zip(found, COSTS, strict=True)]
        worst = max(worst, *gaps)
        print(f"  tuning, gamma {gamma}: {by_width[-1]:.1f} s", flush=True)
    return {
        "rows": len(points_QD),
        "machines": len(gammas) * len(COSTS) * len(sign_PQ),
        "gammas": list(gammas),
        "C": list(COSTS),
        "folds": FOLDS,
        "seconds": seconds,
        "seconds_by_gamma": by_width,
        "gap": worst,
    }


if __name__ == "__main__":
    main()
