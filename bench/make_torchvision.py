#!/usr/bin/env python3
"""Exports the networks of the structured-pruning benchmark: torchvision's architectures and a few of our own.

    make_torchvision.py FOLDER [NAME...] [--seed N]

Writes FOLDER/NAME.onnx for every NAME (default: all) that is not there yet: opset 17, constants folded, a free batch
where the exporter keeps it free. The weights are seeded, not trained; the statistics of each BatchNorm are those of its
own input over a few random pictures, scales and shifts vary, so that activations are spread as a trained network's are.
BatchNorm nodes are kept. Own models: unet (GroupNorm), yolo (C2f blocks of split and concat, three detection heads),
bilstm (two bidirectional layers).
"""

import argparse
import pathlib
import sys
import time

import torch
import torchvision
from torch import nn
from torch.nn import functional


class UNet(nn.Module):
    """Encoder and decoder with GroupNorm, transposed convolutions and skip connections by concatenation."""

    def __init__(self, width=32, groups=8):
        super().__init__()

        def double(inputs, outputs):
            return nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(groups, outputs), nn.SiLU(),
                nn.Conv2d(outputs, outputs, 3, padding=1), nn.GroupNorm(groups, outputs), nn.SiLU())

        self.down = nn.ModuleList([double(3, width), double(width, 2 * width), double(2 * width, 4 * width)])
        self.middle = double(4 * width, 8 * width)
        self.up = nn.ModuleList([nn.ConvTranspose2d(8 * width, 4 * width, 2, 2),
                                 nn.ConvTranspose2d(4 * width, 2 * width, 2, 2),
                                 nn.ConvTranspose2d(2 * width, width, 2, 2)])
        self.merge = nn.ModuleList([double(8 * width, 4 * width), double(4 * width, 2 * width),
                                    double(2 * width, width)])
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x):
        skips = []
        for block in self.down:
            x = block(x)
            skips.append(x)
            x = functional.max_pool2d(x, 2)
        x = self.middle(x)
        for up, merge in zip(self.up, self.merge):
            x = merge(torch.cat([skips.pop(), up(x)], 1))
        return self.head(x)


class ConvUnit(nn.Module):
    def __init__(self, inputs, outputs, kernel=1, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return functional.silu(self.norm(self.conv(x)))


class C2f(nn.Module):
    """YOLOv8's block: a 1x1 convolution split in two, bottlenecks chained on one half, everything concatenated."""

    def __init__(self, inputs, outputs, depth, shortcut):
        super().__init__()
        self.half = outputs // 2
        self.shortcut = shortcut
        self.first = ConvUnit(inputs, 2 * self.half)
        self.last = ConvUnit((2 + depth) * self.half, outputs)
        self.inner = nn.ModuleList([nn.Sequential(ConvUnit(self.half, self.half, 3), ConvUnit(self.half, self.half, 3))
                                    for _ in range(depth)])

    def forward(self, x):
        parts = list(self.first(x).chunk(2, 1))
        for block in self.inner:
            y = block(parts[-1])
            parts.append(parts[-1] + y if self.shortcut else y)
        return self.last(torch.cat(parts, 1))


class Yolo(nn.Module):
    """A small YOLOv8: C2f backbone, spatial pyramid pooling, two-way neck, decoupled heads with a box distribution."""

    def __init__(self, classes=20, bins=16, width=32):
        super().__init__()
        w = width
        self.bins, self.classes = bins, classes
        self.stem = nn.Sequential(ConvUnit(3, w // 2, 3, 2), ConvUnit(w // 2, w, 3, 2), C2f(w, w, 1, True))
        self.stage3 = nn.Sequential(ConvUnit(w, 2 * w, 3, 2), C2f(2 * w, 2 * w, 2, True))
        self.stage4 = nn.Sequential(ConvUnit(2 * w, 4 * w, 3, 2), C2f(4 * w, 4 * w, 2, True))
        self.stage5 = nn.Sequential(ConvUnit(4 * w, 8 * w, 3, 2), C2f(8 * w, 8 * w, 1, True))
        self.pyramid_in, self.pyramid_out = ConvUnit(8 * w, 4 * w), ConvUnit(16 * w, 8 * w)
        self.top4, self.top3 = C2f(12 * w, 4 * w, 1, False), C2f(6 * w, 2 * w, 1, False)
        self.down4, self.bottom4 = ConvUnit(2 * w, 2 * w, 3, 2), C2f(6 * w, 4 * w, 1, False)
        self.down5, self.bottom5 = ConvUnit(4 * w, 4 * w, 3, 2), C2f(12 * w, 8 * w, 1, False)
        self.boxes = nn.ModuleList([nn.Sequential(ConvUnit(c, 2 * w, 3), ConvUnit(2 * w, 2 * w, 3),
                                                  nn.Conv2d(2 * w, 4 * bins, 1)) for c in (2 * w, 4 * w, 8 * w)])
        self.labels = nn.ModuleList([nn.Sequential(ConvUnit(c, 2 * w, 3), ConvUnit(2 * w, 2 * w, 3),
                                                   nn.Conv2d(2 * w, classes, 1)) for c in (2 * w, 4 * w, 8 * w)])

    def pyramid(self, x):
        parts = [self.pyramid_in(x)]
        for _ in range(3):
            parts.append(functional.max_pool2d(parts[-1], 5, 1, 2))
        return self.pyramid_out(torch.cat(parts, 1))

    def neck(self, p3, p4, p5):
        t4 = self.top4(torch.cat([functional.interpolate(p5, scale_factor=2.0), p4], 1))
        t3 = self.top3(torch.cat([functional.interpolate(t4, scale_factor=2.0), p3], 1))
        b4 = self.bottom4(torch.cat([self.down4(t3), t4], 1))
        return t3, b4, self.bottom5(torch.cat([self.down5(b4), p5], 1))

    def forward(self, x):
        p3 = self.stage3(self.stem(x))
        p4 = self.stage4(p3)
        levels = self.neck(p3, p4, self.pyramid(self.stage5(p4)))
        found = [torch.cat([box(f), label(f)], 1).flatten(2) for f, box, label in zip(levels, self.boxes, self.labels)]
        box, label = torch.cat(found, 2).split((4 * self.bins, self.classes), 1)
        bins = torch.arange(self.bins, dtype=torch.float32).view(1, self.bins, 1, 1)
        distances = (box.view(box.shape[0], 4, self.bins, -1).transpose(2, 1).softmax(1) * bins).sum(1)
        return torch.cat([distances, label.sigmoid()], 1)


class BiLstm(nn.Module):
    """Two bidirectional layers between a projection of the features and a classifier of every frame."""

    def __init__(self, features=40, hidden=64, classes=30):
        super().__init__()
        self.inner = nn.Linear(features, 64)
        self.lstm = nn.LSTM(64, hidden, num_layers=2, bidirectional=True)
        self.head = nn.Linear(2 * hidden, classes)

    def forward(self, x):
        return self.head(self.lstm(functional.relu(self.inner(x)))[0])


class Segmentation(nn.Module):
    """Only the tensor of a segmentation network, not its dictionary."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)["out"]


class DetectionCore(nn.Module):
    """A detector without its data-dependent pre- and postprocessing: backbone and head on a picture of fixed size."""

    def __init__(self, model):
        super().__init__()
        self.backbone, self.head = model.backbone, model.head

    def forward(self, x):
        found = self.head(list(self.backbone(x).values()))
        return found["bbox_regression"], found["cls_logits"]


def vision(name, size=224, **options):
    return lambda: (getattr(torchvision.models, name)(weights=None, **options), torch.randn(2, 3, size, size))


def deeplab():
    model = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(weights=None, weights_backbone=None)
    return Segmentation(model), torch.randn(2, 3, 224, 224)


def ssdlite():
    model = torchvision.models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    return DetectionCore(model), torch.randn(2, 3, 320, 320)


MODELS = {
    "resnet18": vision("resnet18"),
    "resnet50": vision("resnet50"),
    "mobilenet_v2": vision("mobilenet_v2"),
    "mobilenet_v3_small": vision("mobilenet_v3_small"),
    "shufflenet_v2_x1_0": vision("shufflenet_v2_x1_0"),
    "efficientnet_b0": vision("efficientnet_b0"),
    "unet": lambda: (UNet(), torch.randn(2, 3, 64, 64)),
    "yolo": lambda: (Yolo(), torch.randn(2, 3, 128, 128)),
    "bilstm": lambda: (BiLstm(), torch.randn(16, 2, 40)),
    "resnext50_32x4d": vision("resnext50_32x4d"),
    "densenet121": vision("densenet121"),
    "regnet_y_400mf": vision("regnet_y_400mf"),
    "squeezenet1_0": vision("squeezenet1_0"),
    "convnext_tiny": vision("convnext_tiny"),
    "swin_t": vision("swin_t"),
    "vit_b_16": vision("vit_b_16"),
    "googlenet": vision("googlenet", aux_logits=False, init_weights=False),
    "deeplabv3_mobilenet_v3_large": deeplab,
    "ssdlite320_mobilenet_v3_large": ssdlite,
}
BATCH_AXIS = {"bilstm": 1}  # sequences first
# The exporter would write the batch of the example anyway, or join it with the attention heads in one axis.
FIXED_BATCH = {"swin_t", "vit_b_16", "ssdlite320_mobilenet_v3_large"}


def make_plausible(model, example):
    """BatchNorm statistics from the network's own activations, biases and layer scales that are not all the same."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.2)
        nn.init.normal_(norm.bias, 0, 0.2)
        norm.momentum = None  # the plain average over what it sees
    for module in model.modules():
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.2)
            nn.init.normal_(module.bias, 0, 0.1)
        elif isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)) and module.bias is not None:
            nn.init.normal_(module.bias, 0, 0.05)
    for name, parameter in model.named_parameters():
        if name.endswith("layer_scale"):  # ConvNeXt starts at 1e-6, which hides everything behind it
            nn.init.uniform_(parameter, 0.2, 0.6)
        elif not parameter.detach().any():  # heads that start at zero hide everything too
            nn.init.normal_(parameter, 0, 0.02)
    model.eval()
    for norm in norms:
        norm.train()
    if norms:
        with torch.no_grad():
            for _ in range(2):
                model(torch.randn_like(example))
    return model.eval()


def export(name, path, seed):
    torch.manual_seed(seed)
    model, example = MODELS[name]()
    make_plausible(model, example)
    axis = BATCH_AXIS.get(name, 0)
    options = {}
    if name in FIXED_BATCH:
        example = example.narrow(axis, 0, 1)
    else:
        options["dynamic_axes"] = {"input": {axis: "N"}, "output": {axis: "N"}}
    outputs = ["boxes", "scores"] if name.startswith("ssdlite") else ["output"]
    torch.onnx.export(model, example, str(path), opset_version=17, do_constant_folding=True, input_names=["input"],
                      output_names=outputs, training=torch.onnx.TrainingMode.PRESERVE, dynamo=False, **options)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    unknown = sorted(set(args.names) - set(MODELS))
    if unknown:
        parser.error(f"no such model: {', '.join(unknown)}; there are {', '.join(MODELS)}")
    args.folder.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in args.names or MODELS:
        path = args.folder / f"{name}.onnx"
        if path.exists():
            continue
        start = time.time()
        part = path.with_suffix(".part")
        try:
            export(name, part, args.seed)
        except Exception as error:  # every other model is still wanted
            failed.append(name)
            print(f"{name}: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr, flush=True)
            continue
        part.rename(path)
        print(f"{name}: {path.stat().st_size / 1e6:.1f} MB in {time.time() - start:.0f} s", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
