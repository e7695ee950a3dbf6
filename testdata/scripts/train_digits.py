#!/usr/bin/env python3
"""Train the three test models on scikit-learn's digits and export them to ONNX.

    tools/debian13 --with-peers -- python3 testdata/scripts/train_digits.py

Writes testdata/models/digits_{cnn,transformer,lstm}.onnx and testdata/data/digits_{train,test}.npz and prints the
accuracy of each model, in torch and in ONNX Runtime. Everything is seeded and runs on one thread, so a second run on
the same machine gives the same bytes.
"""

import argparse
import contextlib
import math
import os
import pathlib
import warnings

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # read when numpy and torch are imported

import numpy as np
import onnx
import onnx.reference  # Debian's onnxruntime shares onnx's schema registry: onnx must come first
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn


@contextlib.contextmanager
def quiet_stderr():
    """Debian's onnxruntime registers every schema a second time and says so 567 times, below Python's sys.stderr."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


with quiet_stderr():
    import onnxruntime

SEED = 20240713
HELD_OUT = 597  # of 1797; the rest is trained on
CALIBRATION = 512  # training images that are kept in digits_train.npz


class ResidualBlock(nn.Module):
    """relu(x + bn(conv(relu(bn(conv x)))))"""

    def __init__(self, channels, kernel):
        super().__init__()
        pad = kernel // 2
        self.conv1 = nn.Conv2d(channels, channels, kernel, padding=pad, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel, padding=pad, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(x + self.bn2(self.conv2(y)))


class DepthwiseSeparable(nn.Module):
    """Depthwise 3x3 with stride 2, then pointwise to more channels."""

    def __init__(self, channels, out_channels):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, stride=2, padding=1, groups=channels, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def forward(self, x):
        x = F.relu(self.bn1(self.depthwise(x)))
        return F.relu(self.bn2(self.pointwise(x)))


class DigitsCnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 32, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(32)
        self.block1 = ResidualBlock(32, 3)
        self.down1 = DepthwiseSeparable(32, 88)
        self.block2 = ResidualBlock(88, 3)
        self.down2 = DepthwiseSeparable(88, 128)
        self.block3 = ResidualBlock(128, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(128, 10)

    def forward(self, x):
        x = F.relu(self.stem_bn(self.stem(x)))
        x = self.block2(self.down1(self.block1(x)))
        x = self.pool(self.block3(self.down2(x)))
        return self.head(torch.flatten(x, 1))


class EncoderBlock(nn.Module):
    """Pre-norm transformer encoder block, written out so that it exports to MatMul, Add, Softmax and Erf."""

    def __init__(self, width, heads, hidden):
        super().__init__()
        self.width, self.heads, self.head_width = width, heads, width // heads
        self.norm1 = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)
        self.drop = nn.Dropout(0.1)

    def split(self, x):
        return x.reshape(-1, 8, self.heads, self.head_width).transpose(1, 2)

    def attention(self, x):
        q, k, v = self.split(self.query(x)), self.split(self.key(x)), self.split(self.value(x))
        weights = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(self.head_width), dim=-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(-1, 8, self.width))

    def forward(self, x):
        x = x + self.drop(self.attention(self.norm1(x)))
        return x + self.drop(self.down(F.gelu(self.up(self.norm2(x)))))


class DigitsTransformer(nn.Module):
    """The eight image rows are the tokens."""

    def __init__(self, width=64, heads=4, hidden=192):
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(0.02 * torch.randn(1, 8, width))
        self.block1 = EncoderBlock(width, heads, hidden)
        self.block2 = EncoderBlock(width, heads, hidden)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = self.embed(x.reshape(-1, 8, 8)) + self.position
        x = self.norm(self.block2(self.block1(x)))
        return self.head(x.mean(dim=1))


class DigitsLstm(nn.Module):
    """The eight image rows are the time steps; the last hidden state is classified."""

    def __init__(self, hidden=128):
        super().__init__()
        self.hidden = hidden
        self.lstm = nn.LSTM(8, hidden)
        self.head = nn.Linear(hidden, 10)

    def forward(self, x):
        steps = x.reshape(-1, 8, 8).transpose(0, 1)
        zero = torch.zeros(1, steps.shape[1], self.hidden)
        _, (last, _) = self.lstm(steps, (zero, zero))
        return self.head(last.squeeze(0))


def load_data():
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None, :, :]
    labels = digits.target.astype(np.int64)
    return train_test_split(images, labels, test_size=HELD_OUT, random_state=SEED, stratify=labels)


def augment(x):
    """Each image rotated, scaled, slanted and shifted a little, with a little noise."""
    n = x.shape[0]
    angle = (torch.rand(n) - 0.5) * 0.5
    scale = 1.0 + (torch.rand(n) - 0.5) * 0.3
    slant = (torch.rand(n) - 0.5) * 0.3
    shift = (torch.rand(n, 2) - 0.5) * 0.35
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack([torch.stack([cos, -sin + slant, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
    warped = F.grid_sample(x, F.affine_grid(theta, x.shape, align_corners=False), align_corners=False)
    return (warped + 0.03 * torch.randn_like(warped)).clamp(0, 1)


def train(model, images, labels, epochs, rate):
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    batch = 48
    steps = epochs * math.ceil(len(x) / batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.15)
    model.train()
    for _ in range(epochs):
        for part in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(augment(x[part])), y[part], label_smoothing=0.05)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    model.eval()


def export(model, path, keep_batchnorm):
    preserve = {"training": torch.onnx.TrainingMode.PRESERVE, "do_constant_folding": False} if keep_batchnorm else {}
    # Two images, not one: a traced batch of one would be taken for a constant. What torch warns of for the LSTM, a
    # baked batch size, is what check() tries.
    warnings.filterwarnings("ignore", message="Exporting a model to ONNX with a batch_size other than 1")
    torch.onnx.export(model, (torch.zeros(2, 1, 8, 8),), str(path), input_names=["input"], output_names=["logits"],
                      dynamic_axes={"input": {0: "batch"}, "logits": {0: "batch"}}, opset_version=17, dynamo=False,
                      **preserve)
    proto = onnx.load(path)
    for node in proto.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    assert proto.ir_version == 8 and [(o.domain, o.version) for o in proto.opset_import] == [("", 17)]
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return proto


def check(model, path, images, labels):
    """Accuracy in torch and in ONNX Runtime, whose logits must agree at any batch size."""
    with torch.no_grad():
        expected = model(torch.from_numpy(images)).numpy()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {"input": images})
    (single,) = session.run(None, {"input": images[:1]})
    np.testing.assert_allclose(got, expected, atol=1e-4)
    np.testing.assert_allclose(single, expected[:1], atol=1e-4)
    return np.mean(expected.argmax(1) == labels), np.mean(got.argmax(1) == labels)


def main():
    default = pathlib.Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=default, help="folder of models/ and data/")
    parser.add_argument("--only", help="train this model only")
    args = parser.parse_args()
    out = args.out
    (out / "models").mkdir(parents=True, exist_ok=True)
    (out / "data").mkdir(parents=True, exist_ok=True)

    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)

    train_x, test_x, train_y, test_y = load_data()
    np.savez_compressed(out / "data" / "digits_train.npz", input=train_x[:CALIBRATION], labels=train_y[:CALIBRATION])
    np.savez_compressed(out / "data" / "digits_test.npz", input=test_x, labels=test_y)

    jobs = [("digits_cnn", DigitsCnn, 40, 4e-3, True, 0.98),
            ("digits_transformer", DigitsTransformer, 150, 2e-3, False, 0.95),
            ("digits_lstm", DigitsLstm, 150, 5e-3, False, 0.95)]
    for name, build, epochs, rate, keep_batchnorm, wanted in jobs:
        if args.only not in (None, name):
            continue
        torch.manual_seed(SEED)
        model = build()
        train(model, train_x, train_y, epochs, rate)
        path = out / "models" / f"{name}.onnx"
        proto = export(model, path, keep_batchnorm)
        in_torch, in_runtime = check(model, path, test_x, test_y)
        parameters = sum(p.numel() for p in model.parameters())
        ops = sorted({node.op_type for node in proto.graph.node})
        print(f"{name}: top-1 {100 * in_runtime:.2f} % in ONNX Runtime, {100 * in_torch:.2f} % in torch, "
              f"{parameters} parameters, {path.stat().st_size} bytes, {len(proto.graph.node)} nodes: {' '.join(ops)}",
              flush=True)
        assert in_runtime >= wanted, f"{name} did not reach {wanted}"


if __name__ == "__main__":
    main()
