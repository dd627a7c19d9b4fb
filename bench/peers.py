"""Compare `espalier bench` with PyTorch, torch.compile, ONNX Runtime, OpenVINO and JAX, in interleaved pairs.

    python bench/peers.py --only resnet18,unet-r18 --precision f32,bf16

Each case runs in rounds, and a round measures ours and every peer one after another, so that a busy or throttled
machine slows all of them alike. A ratio is the median over rounds of (peer's median / our median) within one round:
above 1, ours is faster. Prints a Markdown table against the best peer of each case, with the CPU and its ceilings.
Nothing is reported for an engine that is not installed or refuses a case, except the reason.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ENGINES = ["torch", "compile", "ort", "openvino", "jax"]
TRAINERS = ["torch", "compile", "jax"]
SMALL = {"linear", "mlp", "lenet", "mlp-fraud"}  # JAX is a peer on these only

# What is compared by default: (what, case, batch, precision) -> what is aimed at: a ratio, milliseconds, or nothing.
TARGETS = {
    ("train", "unet-r18", 16, "f32"): 1.3, ("train", "unet-r18", 16, "bf16"): 1.0,
    ("train", "resnet18", 16, "f32"): 1.3, ("train", "resnet18", 16, "bf16"): 1.0,
    ("train", "linear", 32, "f32"): "0.003 ms", ("train", "mlp", 128, "f32"): 1.2, ("train", "lenet", 64, "f32"): 3.0,
    **{("infer", case, batch, precision): ratio for case in ("resnet18", "unet-r18") for batch in (1, 16)
       for precision, ratio in (("f32", 1.2), ("bf16", 0.9))},
    **{("infer", "resnet50", batch, precision): 0.95 for batch in (1, 16) for precision in ("f32", "bf16")},
    ("infer", "mlp-fraud", 1, "f32"): "0.003 ms", ("infer", "mlp-fraud", 64, "f32"): None,
    ("infer", "lenet", 1, "f32"): None,
}


class Peer:
    """A peer's process: prepared once, measured whenever asked, stopped by `close`."""

    def __init__(self, engine, key, threads, cpus, log):
        what, case, batch, precision = key
        self.engine, self.refused = engine, None
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(HERE, "peers_worker.py"), what, engine, case, str(batch), precision, str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, bufsize=1, env=environment(threads),
            preexec_fn=lambda: os.sched_setaffinity(0, cpus))
        self.refused = self.answer().get("refused")

    def answer(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line else {"refused": f"process ended with status {self.process.wait()}"}

    def measure(self, seconds):
        self.process.stdin.write(f"{seconds}\n")
        result = self.answer()
        self.refused = result.get("refused")
        return result

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def environment(threads):
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def measure_ours(program, key, threads, cpus, seconds):
    """Run `espalier bench` once and return its JSON object, or {"refused": why}."""
    what, case, batch, precision = key
    command = [program, "bench", "--net", case, *(["--train"] if what == "train" else []), "--batch", str(batch),
               "--precision", precision, "--threads", str(threads), "--seconds", str(seconds), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(threads),
                          preexec_fn=lambda: os.sched_setaffinity(0, cpus))
    if done.returncode:
        return {"refused": f"exit {done.returncode}: {(done.stderr.strip().splitlines() or ['no message'])[-1][:200]}"}
    return json.loads(done.stdout)


def compare(key, a, cpus, log):
    """Measure one case in interleaved rounds: {engine: [result of each round]} and {engine: why it is missing}."""
    engines = [e for e in a.engines if key[1] in SMALL or e != "jax"]
    engines = [e for e in engines if key[0] == "infer" or e in TRAINERS]
    rounds, missing, peers = {"espalier": []}, {}, []
    try:
        for engine in engines:
            peer = Peer(engine, key, a.threads, cpus, log)
            peers.append(peer)
            if peer.refused:
                missing[engine] = peer.refused
        for number in range(a.rounds):
            todo = [p for p in peers if not p.refused]
            for peer in todo if number % 2 else todo[::-1]:
                result = peer.measure(a.seconds)
                if peer.refused:
                    missing[peer.engine] = peer.refused
                else:
                    rounds.setdefault(peer.engine, []).append(result)
            ours = measure_ours(a.espalier, key, a.threads, cpus, a.seconds)
            if "refused" in ours:
                missing["espalier"] = ours["refused"]
                break
            rounds["espalier"].append(ours)
    finally:
        for peer in peers:
            peer.close()
    return rounds, missing


def middle(results, field="median_ms"):
    return statistics.median(r[field] for r in results)


def summarise(key, rounds, missing):
    """The case's line of JSON: every engine's median, the best peer, and the ratio with its spread over rounds."""
    what, case, batch, precision = key
    line = {"what": what, "case": case, "batch": batch, "precision": precision, "target": TARGETS.get(key),
            "ms": {e: round(middle(r), 5) for e, r in rounds.items() if r}, "missing": missing}
    ours = rounds["espalier"]
    whole = {e: r for e, r in rounds.items() if e != "espalier" and e not in missing}
    if ours:
        line.update({f: ours[-1].get(f) for f in ("gflop", "fraction_of_ceiling", "first_ms", "peak_bytes", "planned_bytes")})
        line["ceiling_gflops"] = ours[-1].get(f"ceiling_{precision}_gflops")
    if whole:
        best = line["best"] = min(whole, key=lambda e: middle(whole[e]))
        ratios = [p["median_ms"] / o["median_ms"] for p, o in zip(whole[best], ours)]
        if ratios:
            line.update(ratio=round(statistics.median(ratios), 3), lowest=round(min(ratios), 3), highest=round(max(ratios), 3))
    return line


def table(lines, threads, versions, load):
    """Markdown: machine and its load before the run, ceilings, one row a case, and below what is missing and why."""
    number = lambda v, form: "–" if v is None else format(v, form)
    aim = lambda t: f"under {t}" if isinstance(t, str) else number(t, ".2f")
    text = [f"CPU: {cpu_name()}, {threads} threads, load {load:.1f} before the run. {versions}"]
    if load > 0.5:
        text.append("**The machine was busy with other work: these ratios are not to be reported.** Engines that hand work "
                    "to a second thread lose most on a busy machine.")
    for precision in ("f32", "bf16"):
        known = [l["ceiling_gflops"] for l in lines if l["precision"] == precision and l.get("ceiling_gflops")]
        if known:
            text.append(f"Ceiling of {precision}: {statistics.median(known):.0f} GFLOP/s, as `espalier bench` measured it.")
    text += ["", "| case | batch | precision | ours ms | of ceiling | best peer ms | peer | ratio | over rounds | aim |",
             "|---|---:|---|---:|---:|---:|---|---:|---:|---:|"]
    for l in lines:
        best = l.get("best")
        spread = f"{l['lowest']:.2f}–{l['highest']:.2f}" if "ratio" in l else "–"
        text.append(f"| {'train ' if l['what'] == 'train' else ''}{l['case']} | {l['batch']} | {l['precision']} | "
                    f"{number(l['ms'].get('espalier'), '.4g')} | {number(l.get('fraction_of_ceiling'), '.0%')} | "
                    f"{number(l['ms'].get(best), '.4g')} | {best or '–'} | {number(l.get('ratio'), '.2f')} | {spread} | "
                    f"{aim(l['target'])} |")
    reasons = sorted({f"{e} on {l['what']} {l['case']} {l['precision']}: {why}" for l in lines for e, why in l["missing"].items()})
    return "\n".join(text + ([""] + [f"- not measured: {r}" for r in reasons] if reasons else []))


def cpu_name():
    info = {}
    with open("/proc/cpuinfo") as f:
        for line in f:
            name, _, value = line.partition(":")
            info.setdefault(name.strip(), value.strip())
    features = [n for n in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if n in info.get("flags", "").split()]
    return f"{info.get('model name', platform.processor())} ({', '.join(features)})"


def peer_versions():
    from importlib import metadata
    found = []
    for package in ("torch", "onnxruntime", "openvino", "jax"):
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            found.append(f"{package} not installed")
    return ", ".join(found) + "."


def arguments():
    words = lambda text: [w for w in text.split(",") if w]
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--espalier", default=os.path.join(HERE, "..", "build", "release", "bin", "espalier"))
    p.add_argument("--what", type=words, default=["train", "infer"], metavar="train,infer")
    p.add_argument("--only", type=words, default=[], metavar="CASE,...", help="of these networks only")
    p.add_argument("--batch", type=int, default=0, help="of this batch only")
    p.add_argument("--precision", type=words, default=["f32", "bf16"], metavar="f32,bf16")
    p.add_argument("--engines", type=words, default=ENGINES, metavar=",".join(ENGINES))
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--seconds", type=float, default=1.0, help="for each engine in each round")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--out", help="also append each case as a line of JSON to this file")
    p.add_argument("--all", action="store_true", help="every network of peers_cases.py, not only those with an aim")
    a = p.parse_args()
    for engine in a.engines:
        if engine not in ENGINES:
            p.error(f"unknown engine {engine}: one of {', '.join(ENGINES)}")
    if not os.access(a.espalier, os.X_OK):
        p.error(f"no program {a.espalier}: build it with ./run build, or name it with --espalier")
    return a


def chosen(a):
    keys = list(TARGETS)
    if a.all:
        from peers_cases import INFERENCE, TRAINING
        keys = [("train", n, c.batch, p) for n, c in TRAINING.items() for p in ("f32", "bf16")]
        keys += [("infer", n, b, p) for n, c in INFERENCE.items() for b in c.batches for p in ("f32", "bf16")]
    keys = [k for k in keys if k[0] in a.what and k[3] in a.precision and (not a.only or k[1] in a.only) and a.batch in (0, k[2])]
    return keys or sys.exit("no case is left by --what, --only, --batch and --precision")


def main():
    a = arguments()
    cpus = sorted(os.sched_getaffinity(0))[:a.threads]
    lines, load = [], os.getloadavg()[0]
    with open(os.path.join(os.environ.get("TMPDIR", "/tmp"), f"espalier-peers-{os.getpid()}.log"), "w") as log:
        for key in chosen(a):
            line = summarise(key, *compare(key, a, cpus, log))
            lines.append(line)
            print(*key, json.dumps(line["ms"]), "ratio", line.get("ratio", "–"), file=sys.stderr, flush=True)
            if a.out:
                with open(a.out, "a") as f:
                    f.write(json.dumps(line) + "\n")
    print(table(lines, a.threads, peer_versions(), load))


if __name__ == "__main__":
    main()
