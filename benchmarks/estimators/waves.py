"""Parts of `planted` on waves: paths of radio waves, and transfer functions between microphones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import wavfile
from scipy.optimize import linear_sum_assignment
from scipy.signal import fftconvolve, stft

from benchmarks.estimators.draws import Found, middle, timed
from eckart.estimators.plain_isac import harmonics
from eckart.estimators.rtf_estimation import relative_transfer_functions
from eckart.linalg.exponentials import exponentials, fit_exponentials


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


def esprit(tensor: Any, count: int) -> Any:
    """Textbook ESPRIT mode by mode, and waves paired by the largest entries of the core that they leave."""
    angles = []
    for mode in range(tensor.ndim):
        unfolded = np.moveaxis(tensor, mode, 0).reshape(tensor.shape[mode], -1)
        u = np.linalg.svd(unfolded, full_matrices=False)[0][:, :count]
        angles.append(np.angle(np.linalg.eigvals(np.linalg.lstsq(u[:-1], u[1:])[0])))
    core = tensor
    for w, size in zip(angles, tensor.shape, strict=True):
        core = np.tensordot(core, np.linalg.pinv(exponentials(w, size)), axes=(0, 1))
    power, found = np.abs(core), []
    for _ in range(count):
        at = np.unravel_index(int(np.argmax(power)), power.shape)
        found.append([w[i] for w, i in zip(angles, at, strict=True)])
        for mode, i in enumerate(at):
            power[tuple(i if k == mode else slice(None) for k in range(power.ndim))] = -1
    return np.array(found)


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
                "ESPRIT mode by mode, number given": lambda t=tensor: esprit(t, 4),
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
