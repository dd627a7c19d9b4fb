"""One peer engine on one case, in a process of its own: prepares, says so, then measures whenever it is told to.

usage: peers_worker.py infer|train ENGINE CASE BATCH f32|bf16 THREADS

Writes one line of JSON when ready ({"ready": true} or {"refused": why}), then for each line read (a number of
seconds) one with the milliseconds of its steps: {"median_ms", "p10_ms", "p90_ms", "runs", "peak_bytes"}.
"""
import json
import os
import resource
import sys
import tempfile
import time

WARM_UP, FEWEST = 3, 5


class Refused(Exception):
    """The engine does not do this case; the text says why."""


def measure(step, seconds):
    """Time single steps for `seconds`, at least FEWEST of them, after WARM_UP unmeasured ones."""
    for _ in range(WARM_UP):
        step()
    times, end = [], time.perf_counter() + seconds
    while len(times) < FEWEST or time.perf_counter() < end:
        start = time.perf_counter()
        step()
        times.append((time.perf_counter() - start) * 1e3)
    times.sort()
    at = lambda q: times[min(len(times) - 1, int(q * len(times)))]
    return {"median_ms": at(0.5), "p10_ms": at(0.1), "p90_ms": at(0.9), "runs": len(times),
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def channels_last(thing, like):
    import torch
    return thing.to(memory_format=torch.channels_last) if like.dim() == 4 else thing


def torch_inference(case, batch, precision, compiled):
    import torch
    from peers_cases import INFERENCE
    net, x = INFERENCE[case].make().eval(), INFERENCE[case].inputs(batch)
    net, x = channels_last(net, x), channels_last(x, x)
    if precision == "bf16":
        net = net.bfloat16()
        x = x.bfloat16() if x.is_floating_point() else x
    if compiled:
        import torch._inductor.config
        torch._inductor.config.freezing = True
        net = torch.compile(net)

    def step():
        with torch.no_grad() if compiled else torch.inference_mode():
            net(x)
    return step


def torch_training(case, precision, compiled):
    import torch
    from peers_cases import TRAINING
    c = TRAINING[case]
    net, x, target = c.make().train(), c.inputs(c.batch), c.targets(c.batch)
    net, x = channels_last(net, x), channels_last(x, x)
    optimiser = c.optimiser(net.parameters())
    forward = torch.compile(net) if compiled else net

    def step():
        optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            y = forward(x)
        c.loss(y, target).backward()
        optimiser.step()
    return step


def exported(case, batch):
    """Write the case's network as ONNX into a new temporary file; return its path and the input as an array."""
    import torch
    from peers_cases import INFERENCE
    net, x = INFERENCE[case].make().eval(), INFERENCE[case].inputs(batch)
    path = os.path.join(tempfile.mkdtemp(prefix="espalier-peers-"), "model.onnx")
    with torch.no_grad():
        torch.onnx.export(net, (x,), path, input_names=["x"], output_names=["y"], dynamo=False, opset_version=18)
    return path, x.numpy()


def remove(path):
    os.remove(path)
    os.rmdir(os.path.dirname(path))


def ort_inference(case, batch, precision, threads):
    if precision != "f32":
        raise Refused("ONNX Runtime has no bf16 on x86")
    import onnxruntime
    path, x = exported(case, batch)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    remove(path)
    return lambda: session.run(None, {"x": x})


def openvino_inference(case, batch, precision, threads):
    import openvino
    path, x = exported(case, batch)
    model = openvino.Core().compile_model(path, "CPU", {
        "INFERENCE_NUM_THREADS": str(threads), "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": precision})
    remove(path)
    request = model.create_infer_request()
    request.set_input_tensor(openvino.Tensor(x))
    return request.infer


def bind(what, engine, case, batch, precision, threads):
    """Return the function that runs one step of the case on the engine."""
    if engine == "jax":
        import peers_jax
        known = peers_jax.INFERENCE if what == "infer" else peers_jax.TRAINING
        if case not in known or precision != "f32":
            raise Refused("JAX is measured on small networks in f32 only")
        return peers_jax.bind(what, case, batch)
    import torch
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if engine in ("torch", "compile"):
        compiled = engine == "compile"
        return torch_training(case, precision, compiled) if what == "train" else torch_inference(case, batch, precision, compiled)
    if what == "train":
        raise Refused(f"{engine} does not train")
    return (ort_inference if engine == "ort" else openvino_inference)(case, batch, precision, threads)


def main():
    what, engine, case, batch, precision, threads = sys.argv[1:7]
    # Peers write what they like to the standard output; answers keep the real one for themselves.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        step = bind(what, engine, case, int(batch), precision, int(threads))
        step()
    except Refused as why:
        print(json.dumps({"refused": str(why)}), file=answers)
        return
    except Exception as error:  # whatever a peer throws is a result: it could not do the case
        print(json.dumps({"refused": f"{type(error).__name__}: {error}".splitlines()[0][:200]}), file=answers)
        return
    print(json.dumps({"ready": True}), file=answers)
    for line in sys.stdin:
        print(json.dumps(measure(step, float(line))), file=answers)


if __name__ == "__main__":
    main()
