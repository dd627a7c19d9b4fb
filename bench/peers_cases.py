"""The networks that `espalier bench --net NAME` builds, as PyTorch modules, so that peers run the same work.

INFERENCE and TRAINING map a name to a case. Weights are random (seed 0) and inputs are random normal numbers or
random tokens: nothing is downloaded and nothing is measured on zeros. Names, sizes and optimisers are those of our
own `bench`; change both together.
"""
from dataclasses import dataclass
from typing import Callable

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Inference:
    """A network to run: `make()` gives the module, `inputs(batch)` its one input."""
    make: Callable
    inputs: Callable
    batches: tuple


@dataclass(frozen=True)
class Training:
    """A training step: network, input, target, loss of (prediction, target), the case's one batch, optimiser."""
    make: Callable
    inputs: Callable
    targets: Callable
    loss: Callable
    batch: int
    optimiser: Callable


def torchvision_model(name, **options):
    def make():
        import torchvision
        return getattr(torchvision.models, name)(weights=None, **options)
    return make


def conv_norm_relu(cin, cout):
    return [nn.Conv2d(cin, cout, 3, padding=1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)]


class Upward(nn.Module):
    """One decoder level: transposed convolution doubles the size, the skip is appended, two 3x3 convolutions."""

    def __init__(self, cin, cskip, cout):
        super().__init__()
        self.grow = nn.ConvTranspose2d(cin, cout, kernel_size=2, stride=2)
        self.refine = nn.Sequential(*conv_norm_relu(cout + cskip, cout), *conv_norm_relu(cout, cout))

    def forward(self, x, skip=None):
        x = self.grow(x)
        return self.refine(x if skip is None else torch.cat((x, skip), dim=1))


class ResnetUnet(nn.Module):
    """U-Net on the stages of ResNet-18; gives logits [batch, classes, height, width], multiples of 32."""

    def __init__(self, classes=1):
        super().__init__()
        body = torchvision_model("resnet18")()
        self.levels = nn.ModuleList([nn.Sequential(body.conv1, body.bn1, body.relu),
                                     nn.Sequential(body.maxpool, body.layer1), body.layer2, body.layer3, body.layer4])
        self.decoder = nn.ModuleList([Upward(512, 256, 256), Upward(256, 128, 128), Upward(128, 64, 64),
                                      Upward(64, 64, 64), Upward(64, 0, 32)])
        self.head = nn.Conv2d(32, classes, kernel_size=1)

    def forward(self, x):
        seen = []
        for level in self.levels:
            x = level(x)
            seen.append(x)
        for step, skip in zip(self.decoder, (seen[3], seen[2], seen[1], seen[0], None)):
            x = step(x, skip)
        return self.head(x)


def mlp(*sizes):
    layers = []
    for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
        layers += ([nn.ReLU()] if i else []) + [nn.Linear(a, b)]
    return nn.Sequential(*layers)


def lenet():
    features = [nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*features, nn.Flatten(), *mlp(400, 120, 84, 10))


def cifar_resnet18():
    """ResNet-18 for 32x32 pictures: a 3x3 stem of stride 1 and no first pooling."""
    net = torchvision_model("resnet18", num_classes=10)()
    net.conv1 = nn.Conv2d(3, 64, kernel_size=3, padding=1, bias=False)
    net.maxpool = nn.Identity()
    return net


class LastOfLstm(nn.Module):
    """Two LSTM layers over a sequence; the last step's state to classes."""

    def __init__(self, features=64, hidden=256, classes=10):
        super().__init__()
        self.lstm = nn.LSTM(features, hidden, num_layers=2, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, x):
        states, _ = self.lstm(x)
        return self.head(states[:, -1])


class Layer(nn.Module):
    """A transformer layer; `causal` ones normalise first, mask the future and use the tanh form of gelu."""

    def __init__(self, width, heads, norm_first, causal):
        super().__init__()
        self.heads, self.norm_first, self.causal = heads, norm_first, causal
        self.norm_a, self.norm_f = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_qkv, self.to_out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def attention(self, x):
        batch, length, width = x.shape
        q, k, v = self.to_qkv(x).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.to_out(mixed.transpose(1, 2).reshape(batch, length, width))

    def feed_forward(self, x):
        return self.narrow(F.gelu(self.widen(x), approximate="tanh" if self.causal else "none"))

    def forward(self, x):
        if self.norm_first:
            x = x + self.attention(self.norm_a(x))
            return x + self.feed_forward(self.norm_f(x))
        x = self.norm_a(x + self.attention(x))
        return self.norm_f(x + self.feed_forward(x))


class LanguageModel(nn.Module):
    """Tokens and learned positions through layers: BERT-like to 2 classes, or GPT-like to logits of every token."""

    def __init__(self, vocabulary, width, heads, layers, length, causal):
        super().__init__()
        self.causal = causal
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(length, width)
        self.norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(Layer(width, heads, norm_first=causal, causal=causal) for _ in range(layers))
        self.head = nn.Linear(width, vocabulary if causal else 2, bias=False)

    def forward(self, ids):
        x = self.token(ids) + self.position(torch.arange(ids.shape[1], device=ids.device))
        x = x if self.causal else self.norm(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)) if self.causal else self.head(x[:, 0])


class VisionTransformer(nn.Module):
    """ViT-B/16 at 224x224: 196 patches and a class token."""

    def __init__(self, width=768, heads=12, layers=12):
        super().__init__()
        self.patches = nn.Conv2d(3, width, kernel_size=16, stride=16)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, 197, width))
        self.layers = nn.ModuleList(Layer(width, heads, norm_first=True, causal=False) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(len(x), -1, -1), x), dim=1) + self.position
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)[:, 0])


def bert(width=768, heads=12, layers=12):
    return LanguageModel(30522, width, heads, layers, length=128, causal=False)


def gpt(width=768, heads=12, layers=12, length=256):
    return LanguageModel(50257, width, heads, layers, length, causal=True)


def normal(*shape):
    return lambda batch: torch.randn(batch, *shape)


def whole(limit, *shape):
    return lambda batch: torch.randint(limit, (batch, *shape))


def adam(rate):
    return lambda parameters: torch.optim.Adam(parameters, lr=rate)


def momentum(rate):
    return lambda parameters: torch.optim.SGD(parameters, lr=rate, momentum=0.9)


def cross_entropy(logits, labels):
    return F.cross_entropy(logits.float().flatten(0, -2), labels.flatten())


def bce(logits, masks):
    return F.binary_cross_entropy_with_logits(logits.float(), masks)


PICTURE, WORDS = normal(3, 224, 224), whole(30522, 128)

INFERENCE = {
    "mlp-fraud": Inference(lambda: mlp(30, 128, 64, 1), normal(30), (1, 64, 1024)),
    "lenet": Inference(lenet, normal(1, 28, 28), (1, 16)),
    "resnet18": Inference(torchvision_model("resnet18"), PICTURE, (1, 16)),
    "resnet50": Inference(torchvision_model("resnet50"), PICTURE, (1, 16)),
    "mobilenet_v2": Inference(torchvision_model("mobilenet_v2"), PICTURE, (1, 16)),
    "efficientnet_b0": Inference(torchvision_model("efficientnet_b0"), PICTURE, (1, 16)),
    "unet-r18": Inference(ResnetUnet, normal(3, 128, 128), (1, 16)),
    "lstm": Inference(LastOfLstm, normal(128, 64), (1, 16)),
    "minilm": Inference(lambda: bert(384, 12, 6), WORDS, (1, 16)),
    "bert-base": Inference(bert, WORDS, (1, 16)),
    "gpt2-prefill": Inference(gpt, whole(50257, 128), (1,)),
    "vit-b16": Inference(VisionTransformer, PICTURE, (1, 16)),
}

TRAINING = {
    "linear": Training(lambda: nn.Linear(10, 1), normal(10), normal(1), F.mse_loss, 32, momentum(1e-2)),
    "mlp": Training(lambda: mlp(784, 512, 512, 10), normal(784), whole(10), cross_entropy, 128, adam(1e-3)),
    "lenet": Training(lenet, normal(1, 28, 28), whole(10), cross_entropy, 64, adam(1e-3)),
    "unet-r18": Training(ResnetUnet, normal(3, 128, 128), lambda b: whole(2, 1, 128, 128)(b).float(), bce, 16, adam(1e-3)),
    "resnet18-cifar": Training(cifar_resnet18, normal(3, 32, 32), whole(10), cross_entropy, 128, momentum(1e-2)),
    "resnet18": Training(torchvision_model("resnet18"), PICTURE, whole(1000), cross_entropy, 16, momentum(1e-2)),
    "resnet50": Training(torchvision_model("resnet50"), PICTURE, whole(1000), cross_entropy, 16, momentum(1e-2)),
    "mlp-fraud": Training(lambda: mlp(30, 128, 64, 1), normal(30), lambda b: whole(2, 1)(b).float(), bce, 256, adam(1e-3)),
    "lstm": Training(LastOfLstm, normal(128, 64), whole(10), cross_entropy, 32, adam(1e-3)),
    "bert-base": Training(bert, WORDS, whole(2), cross_entropy, 8, adam(1e-4)),
    "gpt-small": Training(lambda: gpt(384, 6, 6, 128), whole(50257, 128), whole(50257, 128), cross_entropy, 8, adam(1e-4)),
}
