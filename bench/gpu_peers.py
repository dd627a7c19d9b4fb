"""Compare a GPU's speed.json (gpu_check --part 3) with PyTorch on the same machine, eager and compiled.

    python bench/gpu_peers.py results/speed.json --out results/gpu_peers.json [--device cuda] [--seconds 5]
        [--budget 540]

Each of PyTorch's steps takes its batch from pinned memory, as ours does. f32 is full f32 on both sides, and tf32 is f32 whose products and
convolutions may round to TF32 on both; bf16 is autocast in training, and the whole network in inference. A ratio above 1: ours is
faster than the better of the two. What PyTorch refuses is reported with its reason. All cases run eager first, then compiled; the
result is written after each figure, and what --budget leaves no time for is reported as refused.
"""
import argparse
import json
import os
import signal
import statistics
import sys
import time

import torch
import torch._inductor.config

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from peers_cases import INFERENCE, TRAINING  # noqa: E402


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def step_of(row, device, compiled):
    """A function that runs one step of the row's case."""
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = row["precision"] == "tf32"
    trains, bf16 = row["what"] == "train", row["precision"] == "bf16"
    case = (TRAINING if trains else INFERENCE)[row["case"]]
    host = [case.inputs(row["batch"])] + ([case.targets(row["batch"])] if trains else [])
    net = case.make().to(device)
    if host[0].dim() == 4:
        net = net.to(memory_format=torch.channels_last)
        host[0] = host[0].contiguous(memory_format=torch.channels_last)
    if device.type == "cuda":
        host = [h.pin_memory() for h in host]
    net = net.train() if trains else (net.eval().bfloat16() if bf16 else net.eval())
    if compiled:
        torch._dynamo.reset()  # an earlier row's shapes would make this one's dynamic
        torch._inductor.config.freezing = not trains
    run = torch.compile(net, mode="max-autotune", dynamic=False) if compiled else net
    optimiser = case.optimiser(net.parameters()) if trains else None

    side = torch.cuda.Stream() if device.type == "cuda" else None
    ahead = []

    def fetch():
        with torch.cuda.stream(side):
            ahead.append([h.to(device, non_blocking=True) for h in host])

    def batch():
        """The next batch, whose copy went on beside the step before, as ours does."""
        if side is None:
            return host
        if not ahead:
            fetch()
        now = torch.cuda.current_stream()
        now.wait_stream(side)
        moved = ahead.pop()
        for m in moved:
            m.record_stream(now)
        fetch()
        return moved

    def train():
        x, target = batch()
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            y = run(x)
        case.loss(y, target).backward()
        optimiser.step()

    def infer():
        x = batch()[0]
        with torch.inference_mode() if not compiled else torch.no_grad():
            run(x.bfloat16() if bf16 else x)

    return train if trains else infer


def median_ms(step, device, seconds):
    """Of one of ten steps behind each other, after ten that are not counted."""
    for _ in range(10):
        step()
    wait(device)
    times, end = [], time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(10):
            step()
        wait(device)
        times.append((time.perf_counter() - start) * 1e2)
    return statistics.median(times)


class BudgetUsed(BaseException):
    """No Exception, which a compiler that tries one way after the other would catch and go on."""


def on_alarm(signum, frame):
    raise BudgetUsed


def limited(what, end):
    """What a call gives, or BudgetUsed at `end`. The alarm comes again where somebody catches it."""
    left = end - time.perf_counter()
    if left <= 0:
        raise BudgetUsed
    signal.setitimer(signal.ITIMER_REAL, left, 5)
    try:
        return what()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def measure(result, name, device, seconds, end):
    """One figure of a row, eager or compiled."""
    try:
        result[name + "_ms"] = limited(
            lambda: median_ms(step_of(result, device, name == "compiled"), device, seconds), end)
    except BudgetUsed:
        result[name + "_refused"] = "the budget is used up"
    except Exception as error:  # whatever a peer throws is a result: it could not do the case
        result[name + "_refused"] = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    peers = [result[k] for k in ("eager_ms", "compiled_ms") if k in result]
    result["ratio"] = min(peers) / result["ms"] if peers else None


def write(path, result):
    with open(path + ".new", "w") as f:
        json.dump(result, f, indent=1)
    os.replace(path + ".new", path)


def main():
    begin = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speed", help="speed.json")
    parser.add_argument("--out", required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=5, help="for each engine of each case")
    parser.add_argument("--budget", type=float, default=540, help="seconds for all of it")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("gpu_peers: PyTorch sees no GPU here")
    torch.backends.cudnn.benchmark = True
    signal.signal(signal.SIGALRM, on_alarm)
    with open(options.speed) as f:
        ours = json.load(f)
    rows = [dict(row) for row in ours["steps"]]
    result = {"device": ours["device"], "libraries": ours.get("libraries"), "torch": torch.__version__, "steps": rows}
    for name in ("eager", "compiled"):
        for row in rows:
            measure(row, name, device, options.seconds, begin + options.budget)
            write(options.out, result)
            print(json.dumps(row), flush=True)
    if time.perf_counter() > begin + options.budget:
        sys.stdout.flush()
        os._exit(0)  # what compiles still is not waited for


if __name__ == "__main__":
    main()
