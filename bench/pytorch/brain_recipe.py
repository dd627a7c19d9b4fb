"""The main job's recipe in PyTorch: brain_recipe.md states it as a list, `./run demo` follows the same list.

Trains a U-Net with a ResNet-18 encoder on slices of the Colin27 brain and scores it on held-out slabs:

    python brain_recipe.py --seed 0 --dtype bf16 --out seed0.json

Needs torch, torchvision and numpy, and the templates of Debian's `mricron-data`. Everything the recipe fixes is
a constant below; --steps shortens the schedule for a trial and is not part of the recipe.
"""
import argparse
import gzip
import json
import math
import os
import platform
import struct
import time

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # spinning wastes a shared machine
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

TEMPLATES = "/usr/share/mricron/templates"
GROUPS = {  # both sides of each region, by the numbers in aal.nii.txt
    "cerebrum": list(range(1, 91)),
    "cortex": list(range(1, 29)) + list(range(43, 71)) + list(range(79, 91)),
    "all_regions": list(range(1, 117)),
}
OUTPUTS = ["brain", *GROUPS]
HELD_OUT = [(34, 39), (74, 79), (104, 109), (122, 127)]  # slabs of slices, last one excluded
GUARD = 2                                    # slices on each side of a slab, neither trained on nor scored
CROP = (192, 160)                            # rows (y) and columns (x) of a training sample
MULTIPLE = 32                                # whole slices are padded to a multiple of this
BATCH, EPOCHS = 4, 22
PEAK_RATE, WARM_UP = 2e-3, 20
NORM_MOMENTUM = 0.03                         # of running statistics: batches are small
HEAD_BIAS = -2.0                             # most voxels belong to no output: start near that
ROTATE, SCALE, SHIFT = 4.0, 0.04, 3.0        # degrees, fraction, pixels: all uniform in +-
BRIGHTNESS, CONTRAST = 0.1, 0.1              # uniform in +-, on normalised intensities


def read_nifti(path):
    """Return the u8 volume of a little-endian single-file NIfTI-1 as an array [z, y, x]."""
    with gzip.open(path) as f:
        raw = f.read()
    size, = struct.unpack("<i", raw[:4])
    rank, nx, ny, nz = struct.unpack("<4h", raw[40:48])
    kind, = struct.unpack("<h", raw[70:72])
    start, = struct.unpack("<f", raw[108:112])
    if size != 348 or raw[344:348] != b"n+1\0" or rank != 3 or kind != 2:
        raise SystemExit(f"{path}: expected a 3-D u8 NIfTI-1 file, found header {size}, rank {rank}, type {kind}")
    return np.frombuffer(raw, np.uint8, nx * ny * nz, int(start)).reshape(nz, ny, nx)


def load(folder):
    """Return image f32 [z, y, x] (raw intensities) and masks bool [z, output, y, x]."""
    image = read_nifti(f"{folder}/ch2.nii.gz").astype(np.float32)
    brain = read_nifti(f"{folder}/ch2bet.nii.gz") > 0
    regions = read_nifti(f"{folder}/aal.nii.gz")
    return image, np.stack([brain] + [np.isin(regions, labels) for labels in GROUPS.values()], 1)


def split(masks):
    """Return the lists of training and held-out slices: guard bands are in neither."""
    held = [z for a, b in HELD_OUT for z in range(a, b)]
    near = {z for a, b in HELD_OUT for z in range(a - GUARD, b + GUARD)}
    labelled = np.flatnonzero(masks.any((1, 2, 3)))
    return [z for z in range(labelled[0], labelled[-1] + 1) if z not in near], held


def triples(image, slices):
    """Stack each slice with its two neighbours: [n, 3, y, x]; beyond the volume lie zeros."""
    ext = np.pad(image, ((1, 1), (0, 0), (0, 0)))
    return np.stack([ext[z:z + 3] for z in slices])


def augment(images, masks, rng):
    """Sample one crop per slice by a random similarity: bilinear for images, nearest for masks, zero outside."""
    n, _, h, w = images.shape
    ch, cw = CROP
    theta = np.radians(rng.uniform(-ROTATE, ROTATE, n))
    scale = rng.uniform(1 - SCALE, 1 + SCALE, n)
    flip = np.where(rng.random(n) < 0.5, -1.0, 1.0)
    ty, tx = rng.uniform(-SHIFT, SHIFT, n), rng.uniform(-SHIFT, SHIFT, n)
    cos, sin = np.cos(theta) / scale, np.sin(theta) / scale
    v = (np.arange(ch) - (ch - 1) / 2)[None, :, None]
    u = (np.arange(cw) - (cw - 1) / 2)[None, None, :]
    at = lambda a: a[:, None, None]
    x = (w - 1) / 2 + at(tx) + at(flip) * (at(cos) * u - at(sin) * v)
    y = (h - 1) / 2 + at(ty) + at(sin) * u + at(cos) * v
    grid = torch.from_numpy(np.stack([(2 * x + 1) / w - 1, (2 * y + 1) / h - 1], -1).astype(np.float32))
    images = F.grid_sample(torch.from_numpy(images), grid, "bilinear", "zeros", align_corners=False)
    masks = F.grid_sample(torch.from_numpy(masks.astype(np.float32)), grid, "nearest", "zeros", align_corners=False)
    return images, masks


def jitter(images, rng):
    """Brightness and contrast of normalised images, one draw per sample."""
    draw = lambda r: torch.from_numpy(rng.uniform(-r, r, (len(images), 1, 1, 1)).astype(np.float32))
    return images * (1 + draw(CONTRAST)) + draw(BRIGHTNESS)


class Up(nn.Module):
    """Double the resolution, join the skip connection, two convolutions."""

    def __init__(self, cin, skip, cout):
        super().__init__()
        self.up = nn.ConvTranspose2d(cin, cout, 2, stride=2)
        self.body = nn.Sequential(
            nn.Conv2d(cout + skip, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True),
            nn.Conv2d(cout, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True))

    def forward(self, x, skip=None):
        x = self.up(x)
        return self.body(x if skip is None else torch.cat([x, skip], 1))


class UNet(nn.Module):
    """U-Net over the stages of torchvision's ResNet-18 (random weights); returns logits [n, outputs, y, x]."""

    def __init__(self, outputs):
        super().__init__()
        import torchvision
        r = torchvision.models.resnet18(weights=None)
        self.stem, self.pool = nn.Sequential(r.conv1, r.bn1, r.relu), r.maxpool
        self.stages = nn.ModuleList([r.layer1, r.layer2, r.layer3, r.layer4])
        self.ups = nn.ModuleList([Up(512, 256, 256), Up(256, 128, 128), Up(128, 64, 64), Up(64, 64, 64), Up(64, 0, 32)])
        self.head = nn.Conv2d(32, outputs, 1)
        nn.init.constant_(self.head.bias, HEAD_BIAS)
        for layer in self.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = NORM_MOMENTUM

    def forward(self, x):
        skips = [self.stem(x)]
        x = self.pool(skips[0])
        for stage in self.stages:
            x = stage(x)
            skips.append(x)
        for up, skip in zip(self.ups, [*skips[3::-1], None]):
            x = up(x, skip)
        return self.head(x)


def loss_of(logits, masks):
    """Mean binary cross-entropy plus one minus the mean over outputs of the batch's soft Dice."""
    p = torch.sigmoid(logits)
    dice = (2 * (p * masks).sum((0, 2, 3)) + 1) / (p.sum((0, 2, 3)) + masks.sum((0, 2, 3)) + 1)
    return F.binary_cross_entropy_with_logits(logits, masks) + 1 - dice.mean()


def rate(step, steps):
    """Learning rate of a step counted from 0: linear warm-up, then half a cosine down to zero."""
    if step < WARM_UP:
        return PEAK_RATE * (step + 1) / WARM_UP
    return PEAK_RATE * 0.5 * (1 + math.cos(math.pi * (step - WARM_UP) / (steps - WARM_UP)))


def evaluate(net, image, masks, held, normalise, dtype):
    """Dice of each output over all held-out voxels at probability 0.5, whole slices padded with zeros."""
    _, h, w = image.shape
    ph, pw = -h % MULTIPLE, -w % MULTIPLE
    top, left = ph // 2, pw // 2
    x = torch.from_numpy(np.pad(triples(image, held), ((0, 0), (0, 0), (top, ph - top), (left, pw - left))))
    net.eval()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
        parts = [net(b.contiguous(memory_format=torch.channels_last)).float() for b in normalise(x).split(8)]
    found = (torch.cat(parts)[:, :, top:top + h, left:left + w] > 0).numpy()
    truth = masks[held]
    both, either = (found & truth).sum((0, 2, 3)), found.sum((0, 2, 3)) + truth.sum((0, 2, 3))
    return dict(zip(OUTPUTS, (2 * both / either).round(5).tolist()))


def cpu_name():
    names = [l.split(":")[1].strip() for l in open("/proc/cpuinfo") if l.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {len(names)} cores"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", default=TEMPLATES, help="folder with ch2, ch2bet and aal (.nii.gz)")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    p.add_argument("--steps", type=int, default=0, help="shorter trial; 0 is the recipe's own number")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--out", help="write the figures to this JSON file")
    a = p.parse_args()

    torch.set_num_threads(a.threads)
    torch.manual_seed(a.seed)
    rng = np.random.default_rng(a.seed)
    image, masks = load(a.data)
    train, held = split(masks)
    inside = image[image > 0]
    mean, std = float(inside.mean()), float(inside.std())
    normalise = lambda x: (x - mean) / std
    steps = a.steps or EPOCHS * (len(train) // BATCH)
    net = UNet(len(OUTPUTS)).to(memory_format=torch.channels_last)
    adam = torch.optim.Adam(net.parameters(), lr=PEAK_RATE)
    print(f"{len(train)} training slices, {len(held)} held out, {steps} steps, mean {mean:.3f}, std {std:.3f}", flush=True)

    losses, order, start = [], [], time.perf_counter()
    for step in range(steps):
        if len(order) < BATCH:
            order = rng.permutation(train).tolist()
        batch, order = order[:BATCH], order[BATCH:]
        x, t = augment(triples(image, batch), masks[batch], rng)
        x = jitter(normalise(x), rng).contiguous(memory_format=torch.channels_last)
        for group in adam.param_groups:
            group["lr"] = rate(step, steps)
        net.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=a.dtype == "bf16"):
            logits = net(x)
        loss = loss_of(logits.float(), t)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        losses.append(loss.item())
        if step % 10 == 9 or step + 1 == steps:
            per = (time.perf_counter() - start) / (step + 1)
            print(f"step {step + 1}/{steps} loss {np.mean(losses[-10:]):.4f} {per:.3f} s/step", flush=True)
    seconds = time.perf_counter() - start

    dice = evaluate(net, image, masks, held, normalise, a.dtype)
    other = "f32" if a.dtype == "bf16" else "bf16"
    dice_other = evaluate(net, image, masks, held, normalise, other)
    result = dict(seed=a.seed, dtype=a.dtype, steps=steps, dice=dice, **{f"dice_run_in_{other}": dice_other},
                  last_loss=round(float(np.mean(losses[-10:])), 5), train_seconds=round(seconds, 1),
                  torch=torch.__version__, threads=a.threads, cpu=cpu_name())
    print(json.dumps(result, indent=1))
    if a.out:
        with open(a.out, "w") as f:
            json.dump(result, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
