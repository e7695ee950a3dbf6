"""Shared by the comparisons: ONNX Runtime without its noise, metrics of a model, and what the runtime makes of it.

Run inside the root with the Python peers (see README.md). Import this before anything else that uses onnxruntime.
"""

import collections
import contextlib
import math
import os
import tempfile

import numpy as np
import onnx
import onnx.reference  # Debian's onnxruntime shares onnx's schema registry: onnx must come first


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

# Ops that take part in integer arithmetic once the runtime has fused a quantized graph.
INTEGER_OPS = {"QLinearConv", "QLinearMatMul", "QLinearAdd", "QLinearMul", "QLinearAveragePool",
               "QLinearGlobalAveragePool", "QLinearConcat", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax",
               "QLinearWhere", "QGemm", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul",
               "DynamicQuantizeLSTM", "ConvInteger", "QAttention", "QEmbedLayerNormalization"}
# Their float counterparts: work that stayed float.
FLOAT_OPS = {"Conv", "FusedConv", "ConvTranspose", "MatMul", "FusedMatMul", "Gemm", "FusedGemm", "LSTM", "GRU", "RNN",
             "Add", "Mul", "AveragePool", "GlobalAveragePool", "Concat", "Sigmoid", "Softmax"}


def session(path, threads=1, spinning=True):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def load_npz(path):
    with np.load(path, allow_pickle=False) as archive:
        data = {key: archive[key] for key in archive.files}
    labels = data.pop("labels", None)
    return data, labels


def batches(data, first_dim, limit):
    """Feeds of `first_dim` samples when the model fixes its batch, else of at most `limit`."""
    step = first_dim if isinstance(first_dim, int) and first_dim > 0 else limit
    count = min(len(a) for a in data.values())
    for start in range(0, count - count % step if step != limit else count, step):
        yield start, {key: a[start:start + step] for key, a in data.items()}


def top1(path, eval_path):
    data, labels = load_npz(eval_path)
    run = session(path)
    hits = total = 0
    for start, feed in batches(data, run.get_inputs()[0].shape[0], 100):
        guess = run.run(None, feed)[0].reshape(len(next(iter(feed.values()))), -1).argmax(1)
        hits += int(np.sum(guess == labels[start:start + len(guess)]))
        total += len(guess)
    return 100.0 * hits / total


def perplexity(path, eval_path):
    data, _ = load_npz(eval_path)
    run = session(path)
    loss, count = 0.0, 0
    for _, feed in batches(data, run.get_inputs()[0].shape[0], 16):
        tokens = feed[run.get_inputs()[0].name]
        logits = run.run(None, feed)[0][:, :-1].astype(np.float64)
        peak = logits.max(-1, keepdims=True)
        log_sum = peak[..., 0] + np.log(np.exp(logits - peak).sum(-1))
        target = np.take_along_axis(logits, tokens[:, 1:, None].astype(np.int64), -1)[..., 0]
        loss += float((log_sum - target).sum())
        count += target.size
    return math.exp(loss / count)


METRICS = {"top1": top1, "perplexity": perplexity}


def count_ops(graph, counts):
    for node in graph.node:
        counts[node.op_type] += 1
        for attribute in node.attribute:
            for body in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                count_ops(body, counts)


def optimized_ops(path):
    """Histogram of op types in the graph the runtime really executes (level EXTENDED)."""
    with tempfile.TemporaryDirectory() as folder:
        target = os.path.join(folder, "optimized.onnx")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = target
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        counts = collections.Counter()
        count_ops(onnx.load(target, load_external_data=False).graph, counts)
    return dict(sorted(counts.items()))


def model_bytes(path):
    """The model file and every external file it refers to."""
    total, seen = os.path.getsize(path), set()
    folder = os.path.dirname(os.path.abspath(path))
    for tensor in onnx.load(path, load_external_data=False).graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location" and entry.value not in seen:
                seen.add(entry.value)
                total += os.path.getsize(os.path.join(folder, entry.value))
    return total


def measure(tool, path, base, eval_path, metric):
    """One row of a comparison: `path` made by `tool` out of the float model `base`."""
    ops = optimized_ops(path)
    size = model_bytes(path)
    return {"tool": tool, "metric": metric, "file_bytes": size, "file_ratio": round(size / model_bytes(base), 4),
            "value": round(METRICS[metric](path, eval_path), 6),
            "integer_ops": sum(n for op, n in ops.items() if op in INTEGER_OPS),
            "float_ops": sum(n for op, n in ops.items() if op in FLOAT_OPS), "optimized_ops": ops}
