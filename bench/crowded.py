#!/usr/bin/env python3
"""Training steps beside other busy processes: steps in the same time with libgomp's own waiting and with ours.

    bench/crowded.py [--espalier BINARY] [--seconds S] [--nets lenet:64,resnet18:4]

Each round runs both ways, one after the other, beside the same number of busy loops. With GOMP_SPINCOUNT set Espalier leaves the waiting to
libgomp (300000 is its default).
"""
import argparse
import json
import os
import pathlib
import statistics
import subprocess

root = pathlib.Path(__file__).resolve().parent.parent


def steps(binary, net, batch, seconds, busy, spin):
    loops = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(busy)]
    try:
        env = {k: v for k, v in os.environ.items() if k not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
        if spin:
            env["GOMP_SPINCOUNT"] = spin
        command = [binary, "bench", "--net", net, "--train", "--batch", batch, "--seconds", str(seconds), "--json"]
        out = json.loads(subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE).stdout)
        return out["runs"] / seconds, out["p90_ms"]
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--espalier", default=str(root / "build/release/bin/espalier"))
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nets", default="lenet:64,mlp:128,resnet18:4,unet-r18:4")
    options = parser.parse_args()
    print("| net | busy processes | libgomp, steps/s | p90 ms | ours, steps/s | p90 ms | ours / libgomp |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for case in options.nets.split(","):
        net, batch = case.split(":")
        for busy in (0, 1, 2):
            rounds = []
            for _ in range(options.rounds):
                theirs = steps(options.espalier, net, batch, options.seconds, busy, "300000")
                ours = steps(options.espalier, net, batch, options.seconds, busy, None)
                rounds.append((theirs, ours))
            middle = [statistics.median(r[i][j] for r in rounds) for i in (0, 1) for j in (0, 1)]
            ratio = statistics.median(o[0] / t[0] for t, o in rounds)
            print(f"| {net} | {busy} | {middle[0]:.4g} | {middle[1]:.4g} | {middle[2]:.4g} | {middle[3]:.4g} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
