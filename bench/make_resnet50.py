#!/usr/bin/env python3
"""Writes the network and the images of the calibration benchmark: ResNet-50 and smooth random pictures.

    make_resnet50.py FOLDER [--images N] [--batchnorm] [--seed N]

FOLDER gets resnet50.onnx (torchvision's architecture, opset 13, input [N, 3, 224, 224] with a free N) and images.npz
(256 images by default). The weights are seeded, not trained. The statistics of each BatchNorm are those of its own
input over a few of the images, scales and shifts vary, so that activations are spread as a trained network's are: half
of them cut by Relu, channels of different size. --batchnorm keeps the BatchNorm nodes; without it they are folded into
the convolutions, as PyTorch's exporter does by default.
"""

import argparse
import pathlib

import numpy as np
import torch
import torchvision


def smooth_images(count, seed):
    """Sums of a few octaves of interpolated noise: large areas, soft edges and some texture, about unit variance."""
    rng = np.random.default_rng(seed)
    images = np.empty((count, 3, 224, 224), np.float32)
    for image in images:
        total = np.zeros((1, 3, 224, 224), np.float32)
        for size in (2, 4, 8, 16, 56, 224):
            noise = torch.from_numpy(rng.standard_normal((1, 3, size, size), dtype=np.float32))
            octave = torch.nn.functional.interpolate(noise, (224, 224), mode="bicubic", align_corners=False)
            total += octave.numpy() / np.sqrt(size)
        image[:] = (total[0] - total.mean()) / total.std() * rng.uniform(0.5, 1.5) + rng.normal(0, 0.5, (3, 1, 1))
    return images


def network(images, seed):
    torch.manual_seed(seed)
    model = torchvision.models.resnet50(weights=None)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        torch.nn.init.uniform_(norm.weight, 0.3, 1.2)
        torch.nn.init.normal_(norm.bias, 0, 0.3)
        norm.momentum = None  # the plain average over what it sees
    model.train()
    with torch.no_grad():
        for batch in torch.from_numpy(images).split(8):
            model(batch)
    return model.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batchnorm", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    images = smooth_images(args.images, args.seed)
    model = network(images[:16], args.seed)
    training = torch.onnx.TrainingMode.PRESERVE if args.batchnorm else torch.onnx.TrainingMode.EVAL
    torch.onnx.export(model, torch.from_numpy(images[:1]), str(args.folder / "resnet50.onnx"), opset_version=13,
                      training=training, input_names=["input"], output_names=["logits"],
                      dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}}, dynamo=False)
    np.savez(args.folder / "images.npz", input=images)


if __name__ == "__main__":
    main()
