"""Solvers on planted problems: what the papers claim of them, beside plain forms of the published steps.

    pip install 'eckart[data]'
    python -m benchmarks.estimators.planted [--part PART] [--speech FOLDER]

Errors are relative and medians over seeds, unless said. Seconds are of one thread. FOLDER holds mono files of read
speech in 16 kHz (WAV), as those of the tests of pocketsphinx; without it "transfer" leaves speech out.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import wavfile
from scipy.optimize import least_squares, linear_sum_assignment
from scipy.signal import fftconvolve, stft
from sklearn.linear_model import ARDRegression

from benchmarks.common.rows import Rows, add_option
from eckart.estimators.blind_gain import blind_gain
from eckart.estimators.kronecker_sbl import kronecker_sbl
from eckart.estimators.matrix_sensing import matrix_sensing
from eckart.estimators.plain_isac import harmonics
from eckart.estimators.rtf_estimation import relative_transfer_functions
from eckart.estimators.self_calibration_ls import self_calibration, unit_mean
from eckart.linalg.exponentials import exponentials, fit_exponentials
from eckart.linalg.mode_products import mode_products

Found = tuple[dict[str, Any], dict[str, Any]]
"""What was measured, and what came out."""


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    found = call()
    return found, time.process_time() - start


def relative(found: Any, truth: Any) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def middle(values: list[Any]) -> list[float]:
    """Medians, column by column."""
    return [float(each) for each in np.median(np.array(values, float), axis=0)]


def sensing(seeds: int) -> Iterator[Found]:
    """Steps to a residual of 1e-6, and errors after 100 and 1000 steps, by what a rank too high does to descent."""
    n, r, m = 20, 2, 400
    arms: dict[str, dict[str, Any]] = {
        "gd, symmetric": {"method": "gd", "symmetric": True},
        "gd, start 0.5": {"method": "gd", "start": 0.5},
        "gd, start 0.1": {"method": "gd", "start": 0.1},
        "rescaled, start 0.5": {"method": "rescaled", "start": 0.5},
        "rescaled, start 0.1": {"method": "rescaled", "start": 0.1},
        "preconditioned": {},
        "preconditioned, symmetric": {"symmetric": True},
    }
    for kappa, rank in ((1.5, 4), (1.5, 2), (30.0, 4)):
        for arm, options in arms.items():
            found = []
            for seed in range(seeds):
                rng = np.random.default_rng(seed)
                u = np.linalg.qr(rng.standard_normal((n, r)))[0]
                truth = (u * np.geomspace(1, 1 / kappa, r)) @ u.T
                a = rng.standard_normal((m, n, n)) / m**0.5
                y = np.einsum("mij,ij->m", a, truth)
                solution = matrix_sensing(a, y, rank, tolerance=1e-6, max_iter=1000, generator=seed, **options)
                after = [solution.history[min(k, len(solution.history) - 1)] for k in (100, 1000)]
                steps = solution.iterations if solution.error <= 1e-6 else np.inf
                found.append((steps, *after))
            steps, early, late = middle(found)
            what = {"part": "sensing", "method": "matrix-sensing", "arm": arm, "kappa": kappa, "rank": rank}
            what |= {"n": n, "true rank": r, "measurements": m, "seeds": seeds}
            reached = f"{steps:.0f}" if np.isfinite(steps) else "not in 1000"
            yield what, {"steps": reached, "after 100": early, "after 1000": late}


def gains(seeds: int) -> Iterator[Found]:
    """Errors of gains and signals, steps and seconds, by noise and the spread of the gains."""
    p, m, n = 8, 64, 32
    for rho, decibels in ((0.5, None), (0.5, 30), (0.5, 10), (0.95, 30)):
        found: dict[tuple[str, str], list[Any]] = {}
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            a, x = rng.standard_normal((p, m, n)), rng.standard_normal(n)
            d, x = unit_mean(1 + rng.uniform(-rho, rho, m), x)
            y = d * (a @ x)
            if decibels is not None:
                y = y + rng.standard_normal(y.shape) * np.sqrt(np.square(y).mean()) * 10 ** (-decibels / 20)

            def general(a: Any = a, y: Any = y) -> tuple[Any, Any, int]:
                first = np.concatenate([np.ones(y.shape[1]), np.einsum("pm,pmn->n", y, a) / y.size])
                count = y.shape[1]
                best = least_squares(lambda z: (z[:count] * (a @ z[count:]) - y).ravel(), first)
                return *unit_mean(best.x[:count], best.x[count:]), best.nfev

            def of(solution: Any) -> tuple[Any, Any, int]:
                return *solution.value, solution.iterations

            calls: dict[tuple[str, str], Callable[[], tuple[Any, Any, int]]] = {
                ("self-calibration-ls", "linear least squares"): lambda a=a, y=y: of(self_calibration(a, y)),
                ("self-calibration-ls", "spectral"): lambda a=a, y=y: of(self_calibration(a, y, method="spectral")),
                ("blind-gain", "projected gradient"): lambda a=a, y=y: of(blind_gain(a, y, method="pgd")),
                ("blind-gain", "alternating, from ones"): lambda a=a, y=y: of(blind_gain(a, y, start="ones")),
                ("blind-gain", "alternating"): lambda a=a, y=y: of(blind_gain(a, y)),
                ("blind-gain", "scipy least_squares"): general,
            }
            for arm, call in calls.items():
                (gain, signal, steps), seconds = timed(call)
                found.setdefault(arm, []).append((relative(gain, d), relative(signal, x), steps, seconds))
        for (method, arm), values in found.items():
            gain, signal, steps, seconds = middle(values)
            noise = "none" if decibels is None else f"{decibels} dB"
            what = {"part": "gains", "method": method, "arm": arm, "rho": rho, "noise": noise, "seeds": len(values)}
            what |= {"p": p, "m": m, "n": n}
            yield what, {"gains": gain, "signal": signal, "steps": steps, "seconds": seconds}


def phases(seeds: int) -> Iterator[Found]:
    """How often gains are found without noise (1e-3), by measurements for each unknown."""
    m, n, rho = 64, 32, 0.5
    for p in (2, 3, 4, 6):
        hits = {"linear least squares": 0, "projected gradient": 0, "alternating": 0}
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            a, x = rng.standard_normal((p, m, n)), rng.standard_normal(n)
            d, x = unit_mean(1 + rng.uniform(-rho, rho, m), x)
            y = d * (a @ x)
            solved = {
                "linear least squares": self_calibration(a, y),
                "projected gradient": blind_gain(a, y, method="pgd", max_iter=2000),
                "alternating": blind_gain(a, y, start="ones", max_iter=300),
            }
            for arm, solution in solved.items():
                hits[arm] += relative(solution.value.gains, d) < 1e-3
        for arm, count in hits.items():
            method = "self-calibration-ls" if arm.startswith("linear") else "blind-gain"
            what = {"part": "phases", "method": method, "arm": arm, "ratio": p * m / (m + n), "seeds": seeds}
            yield what | {"m": m, "n": n}, {"found": count / seeds}


def dense_sbl(h: Any, y: Any, noise: float, steps: int) -> Any:
    """Sparse Bayesian learning with a variance for each entry, by the whole dictionary: EM with the noise known."""
    g = np.ones(h.shape[1])
    for _ in range(steps):
        scaled = g[:, None] * h.T
        inverse = np.linalg.inv(h @ scaled + noise * np.eye(len(y)))
        mean = scaled @ (inverse @ y)
        g = g - np.einsum("ij,ji->i", scaled @ inverse, h * g) + np.square(mean)
    return mean


def published_step(factors: Any, y: Any, scales: Any, noise: float) -> Any:
    """The E step by the dense covariance, as the published program forms it."""
    h, g = np.ones((1, 1)), np.ones(1)
    for a, s in zip(factors, scales, strict=True):
        h, g = np.kron(h, a), np.kron(g, s)
    covariance = np.linalg.inv(h.T @ h / noise + np.diag(1 / g))
    return covariance @ (h.T @ y.ravel()) / noise, np.diag(covariance)


def kronecker(seeds: int) -> Iterator[Found]:
    """Squared errors by that of the truth, steps and seconds."""
    shape, side, k = (10, 12, 15), 15, 3
    small = {"part": "kronecker", "method": "kronecker-sbl", "dictionary": "10 x 12 x 15 of 15^3"}
    for decibels in (10, 20, 30):
        found: dict[str, list[Any]] = {}
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            factors = [rng.standard_normal((m, side)) for m in shape]
            x = np.zeros((side,) * 3)
            x[np.ix_(*[rng.choice(side, k, replace=False) for _ in range(3)])] = rng.standard_normal((k,) * 3)
            clean = mode_products(x, factors)
            y = clean + rng.standard_normal(shape) * np.sqrt(np.square(clean).mean()) * 10 ** (-decibels / 20)
            for arm, step in (("svd", "svd"), ("am", "am")):
                solution, seconds = timed(lambda f=factors, y=y, s=step: kronecker_sbl(f, y, m_step=s))
                error = relative(solution.value.mean, x) ** 2
                found.setdefault(arm, []).append((error, solution.iterations, seconds))
        for arm, values in found.items():
            error, steps, seconds = middle(values)
            yield (
                small | {"arm": arm, "noise": f"{decibels} dB", "seeds": seeds},
                {"nmse": error, "steps": steps, "seconds": seconds},
            )
    # Peers that need the Kronecker product itself: a dictionary that they can hold.
    tiny = {"part": "kronecker", "method": "kronecker-sbl", "dictionary": "6 x 7 x 7 of 8^3", "noise": "20 dB"}
    found = {}
    for seed in range(min(seeds, 5)):
        rng = np.random.default_rng(seed)
        factors = [rng.standard_normal((m, 8)) for m in (6, 7, 7)]
        x = np.zeros((8, 8, 8))
        x[np.ix_(*[rng.choice(8, 2, replace=False) for _ in range(3)])] = rng.standard_normal((2, 2, 2))
        clean = mode_products(x, factors)
        noise = float(np.square(clean).mean()) / 100
        y = clean + noise**0.5 * rng.standard_normal(clean.shape)
        h = np.kron(np.kron(factors[0], factors[1]), factors[2])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            calls: dict[str, Callable[[], Any]] = {
                "svd": lambda f=factors, y=y: kronecker_sbl(f, y).value.mean.ravel(),
                "am": lambda f=factors, y=y: kronecker_sbl(f, y, m_step="am").value.mean.ravel(),
                "SBL without structure, 50 steps": lambda h=h, y=y, s=noise: dense_sbl(h, y.ravel(), s, 50),
                "scikit-learn ARDRegression": lambda h=h, y=y: (
                    ARDRegression(fit_intercept=False, max_iter=50).fit(h, y.ravel()).coef_
                ),
            }
            for arm, call in calls.items():
                mean, seconds = timed(call)
                found.setdefault(arm, []).append((relative(mean, x.ravel()) ** 2, seconds))
    for arm, values in found.items():
        error, seconds = middle(values)
        yield tiny | {"arm": arm, "seeds": len(values)}, {"nmse": error, "seconds": seconds}


def large(seeds: int) -> Iterator[Found]:
    """One step as published and by mode products; and 64^3 unknowns, complex."""
    from eckart.estimators.kronecker_sbl import posterior

    rng = np.random.default_rng(0)
    factors, y = [rng.standard_normal((m, 11)) for m in (7, 9, 11)], rng.standard_normal((7, 9, 11))
    scales = [rng.uniform(0.5, 1.5, 11) for _ in range(3)]
    (mean, variance), published = timed(lambda: published_step(factors, y, scales, 0.1))
    ours, _ = timed(lambda: posterior(factors, y, scales, 0.1))
    seconds = timed(lambda: [posterior(factors, y, scales, 0.1) for _ in range(100)])[1] / 100
    prior = np.kron(np.kron(scales[0], scales[1]), scales[2])
    off = max(relative(ours.mean.ravel(), mean), relative(prior * ours.shrink.ravel(), variance))
    what = {"part": "large", "method": "kronecker-sbl", "dictionary": "7 x 9 x 11 of 11^3, one step"}
    yield what, {"seconds": seconds, "published": published, "ratio": published / seconds, "difference": off}

    def white(*shape: int) -> Any:
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / 2**0.5

    factors, x = [white(40, 64) for _ in range(3)], np.zeros((64,) * 3, complex)
    x[np.ix_(*[rng.choice(64, 4, replace=False) for _ in range(3)])] = white(4, 4, 4)
    clean = mode_products(x, factors)
    y = clean + 0.1 * np.sqrt(np.square(np.abs(clean)).mean()) * white(*clean.shape)
    solution, seconds = timed(lambda: kronecker_sbl(factors, y))
    what = {"part": "large", "method": "kronecker-sbl", "dictionary": "40^3 of 64^3, complex, 20 dB"}
    error = relative(solution.value.mean, x) ** 2
    yield what, {"nmse": error, "steps": solution.iterations, "seconds": seconds}


def fft_peaks(tensor: Any, count: int) -> Any:
    """Frequencies of the largest peaks of a periodogram on a grid of twice the size, one after the other taken off."""
    rest, w = tensor, np.zeros((0, tensor.ndim))
    for _ in range(count):
        size = tuple(2 * n for n in tensor.shape)
        power = np.abs(np.fft.fftn(rest, size))
        at = np.unravel_index(int(np.argmax(power)), size)
        fresh = np.angle(np.exp(2j * np.pi * np.array(at) / np.array(size)))
        for mode, i in enumerate(at):  # the top of a parabola through the peak and its neighbours
            line = power[tuple(slice(None) if k == mode else j for k, j in enumerate(at))]
            left, mid, right = line[i - 1], line[i], line[(i + 1) % len(line)]
            fresh[mode] += np.pi * (left - right) / (left - 2 * mid + right) / len(line)
        w = np.vstack([w, fresh])
        c = fit_exponentials(tensor, w, steps=0)[1]
        waves = [exponentials(w[:, m], n) for m, n in enumerate(tensor.shape)]
        rest = tensor - np.einsum("ap,bp,cp,p->abc", *waves, c, optimize=True)
    return w


def paths(seeds: int) -> Iterator[Found]:
    """How often all paths are found, and errors by the Cramér-Rao bound over the draws where they are."""
    shape, deltas, count = (16, 40, 80), (1, 2, 4), 4
    for decibels in (-20, -10, 0, 10, 20):
        found: dict[str, list[Any]] = {}
        for seed in range(seeds):
            rng = np.random.default_rng(seed)
            w = np.stack([rng.uniform(-0.8, 0.8, count) * np.pi / d for d in deltas], axis=1)
            c = rng.uniform(0.5, 1, count) * np.exp(2j * np.pi * rng.random(count))
            clean = np.einsum("ap,bp,cp,p->abc", *[exponentials(w[:, m], n) for m, n in enumerate(shape)], c)
            noise = rng.standard_normal((2, *shape)) * 10 ** (-decibels / 20) / 2**0.5
            tensor = clean + noise[0] + 1j * noise[1]
            # Standard errors at the truth, scaled to the noise that was drawn, are the bound.
            _, _, errors, rest = fit_exponentials(tensor, w, steps=0)
            bound = errors * np.sqrt(10 ** (-decibels / 10) / (rest / tensor.size))
            calls: dict[str, Callable[[], Any]] = {
                "all three stages, refined": lambda t=tensor: harmonics(t, deltas).value.frequencies,
                "as published, MDL": lambda t=tensor: harmonics(t, deltas, refine=False).value.frequencies,
                "as published, number given": lambda t=tensor: harmonics(t, deltas, 4, refine=False).value.frequencies,
                "3-D FFT, number given": lambda t=tensor: fft_peaks(t, 4),
            }
            for arm, call in calls.items():
                said, seconds = timed(call)
                hit, score = False, np.nan
                if len(said) == count:
                    off = np.abs(np.angle(np.exp(1j * (said[:, None] - w))))
                    cells = (off / (2 * np.pi / np.array(shape))).max(axis=2)
                    i, j = linear_sum_assignment(np.minimum(cells, 10.0))
                    hit = bool((cells[i, j] < 1).all())
                    score = float(np.sqrt(np.mean(np.square(off[i, j] / bound[j])))) if hit else np.nan
                found.setdefault(arm, []).append((hit, score, seconds))
        for arm, values in found.items():
            hits, scores, seconds = (np.array(each, float) for each in zip(*values, strict=True))
            what = {"part": "paths", "method": "plain-isac", "arm": arm, "snr": decibels, "seeds": seeds}
            what |= {"shape": "16 x 40 x 80", "deltas": "1, 2, 4", "paths": count}
            score = float(np.sqrt(np.nanmean(np.square(scores)))) if hits.any() else None
            yield what, {"detected": float(hits.mean()), "rmse": score, "seconds": float(np.median(seconds))}


def angles(found: Any, truth: Any) -> Any:
    """Degrees between columns (M, F), whatever their phases: (F,)."""
    norms = np.linalg.norm(found, axis=0) * np.linalg.norm(truth, axis=0)
    return np.degrees(np.arccos(np.minimum(np.abs((found.conj() * truth).sum(axis=0)) / norms, 1)))


def spectra(seeds: int) -> Iterator[Found]:
    """Mean angles where frames are drawn from the model: the source's bins combine so many signals, noise is white."""
    m, f, t = 4, 64, 60
    for signals in (1, 4, 16, 64):
        for decibels in (-10, 0):
            found: dict[str, list[float]] = {}
            for seed in range(seeds):
                rng = np.random.default_rng(seed)

                def white(*shape: int, rng: Any = rng) -> Any:
                    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / 2**0.5

                truth, deviation = white(m, f), 10 ** (-decibels / 20)
                mixing = white(f, signals) / signals**0.5 if signals < f else np.eye(f)
                noisy = truth[:, :, None] * (mixing @ white(signals, t)) + deviation * white(m, f, t)
                noise = deviation * white(m, f, t)
                for arm in ("cw", "svd-direct"):
                    value = relative_transfer_functions(noisy, noise, method=arm).value
                    found.setdefault(arm, []).append(float(angles(value, truth).mean()))
            for arm, values in found.items():
                what = {"part": "spectra", "method": "rtf-estimation", "arm": arm, "signals": signals, "snr": decibels}
                yield what | {"bins": f, "frames": t, "seeds": seeds}, {"angle": float(np.median(values))}


def transfer(seeds: int, speech: Path | None) -> Iterator[Found]:
    """Angles in degrees between transfer functions and their estimates, a mean over bins weighted by the source."""
    fs, n_fft, hop, bins = 16000, 1024, 256, slice(5, 129)  # 80 to 2000 Hz
    clips = [] if speech is None else [wavfile.read(f)[1].astype(float) for f in sorted(speech.glob("*.wav"))]

    def room(rng: np.random.Generator) -> Any:
        """Impulse responses (4, 600): a direct sound within 10 samples, and a tail that falls 60 dB in 40 ms."""
        response = rng.standard_normal((4, 600)) * 10 ** (-3 * np.arange(600) / (0.04 * fs)) * 0.15
        response[np.arange(4), rng.integers(0, 10, 4)] += 1
        return response

    def voiced(rng: np.random.Generator, length: int) -> Any:
        phase = (
            2 * np.pi * np.cumsum((110 + 60 * rng.random()) * (1 + 0.01 * np.sin(8 * np.pi * np.arange(length) / fs)))
        )
        return sum(np.cos(k * phase / fs + rng.uniform(0, 6)) / k**0.5 for k in range(1, 13))

    def spoken(rng: np.random.Generator, length: int) -> Any:
        clip = clips[rng.integers(len(clips))]
        return clip[rng.integers(len(clip) - length) :][:length]

    def white(rng: np.random.Generator, length: int) -> Any:
        return rng.standard_normal(length)

    sources: dict[str, Any] = {"voiced": voiced} | ({"speech": spoken} if clips else {}) | {"white": white}
    arms: dict[str, dict[str, Any]] = {
        "cw": {"method": "cw"},
        "svd-direct": {"method": "svd-direct"},
        "svd-direct, loading 10": {"method": "svd-direct", "loading": 10.0},
        "svd-direct, phases as they come": {"method": "svd-direct", "hop": 0},
    }
    for source, noise in [(s, "white") for s in sources] + [(s, "voiced") for s in sources]:
        for decibels in (0, 10):
            found: dict[str, list[Any]] = {}
            for seed in range(seeds):
                rng, length = np.random.default_rng(seed), fs
                response, other = room(rng), room(rng)
                dry = sources[source](rng, length + 2000)
                clean = np.stack([fftconvolve(dry, h)[2000 : 2000 + length] for h in response])
                if noise == "white":
                    both = rng.standard_normal((2, 4, length))
                else:
                    wave = voiced(rng, 2 * length + 2000)
                    one = np.stack([fftconvolve(wave, h)[2000 : 2000 + 2 * length] for h in other])
                    both = np.stack([one[:, :length], one[:, length:]])
                    both = both + 0.03 * both.std() * rng.standard_normal(both.shape)
                both *= clean.std() / both.std() * 10 ** (-decibels / 20)

                def frames(x: Any) -> Any:
                    return stft(x, fs, nperseg=n_fft, noverlap=n_fft - hop, boundary=None, padded=False)[2][:, bins]

                truth = np.fft.rfft(response, 4 * n_fft)[:, ::4][:, bins]
                weights = np.square(np.abs(frames(clean))).sum(axis=(0, 2))
                given = {"hop": hop, "n_fft": n_fft, "first_bin": bins.start}
                for arm, options in arms.items():
                    call = given | options
                    value, seconds = timed(
                        lambda c=clean, b=both, o=call: relative_transfer_functions(frames(c + b[0]), frames(b[1]), **o)
                    )
                    angle = angles(value.value, truth)
                    found.setdefault(arm, []).append((np.average(angle, weights=weights), angle.mean(), seconds))
            for arm, values in found.items():
                weighted, plain, seconds = middle(values)
                what = {"part": "transfer", "method": "rtf-estimation", "arm": arm, "source": source, "noise": noise}
                what |= {"snr": decibels, "seeds": seeds}
                yield what, {"angle": weighted, "unweighted": plain, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", metavar="PART", help="of the parts; all where it is left out")
    parser.add_argument("--seeds", type=int, help="instead of each part's own")
    parser.add_argument("--speech", type=Path, metavar="FOLDER", help="of speech, for transfer")
    add_option(parser)
    options = parser.parse_args()
    rows = Rows("estimators.planted", options.json)
    parts: dict[str, tuple[int, Callable[[int], Iterator[Found]]]] = {
        "sensing": (3, sensing),
        "gains": (10, gains),
        "phases": (20, phases),
        "kronecker": (5, kronecker),
        "large": (1, large),
        "paths": (10, paths),
        "spectra": (10, spectra),
        "transfer": (10, lambda seeds: transfer(seeds, options.speech)),
    }
    for name in options.part or parts:
        seeds, part = parts[name]
        for what, found in part(options.seeds or seeds):
            rows.add(what, found)
            print({k: v for k, v in what.items() if k != "part"}, found, flush=True)


if __name__ == "__main__":
    main()
