#!/usr/bin/env python3
"""Writes testdata/ort/*.json: ranges of digits_cnn as onnxruntime.quantization 1.21 writes them.

    tools/debian13 --with-peers -- python3 testdata/scripts/make_ort_tables.py
"""
import os
import pathlib
import shutil
import sys
import tempfile

import numpy as np
import onnx.reference  # noqa: F401  before onnxruntime: both register operator schemas
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime.quantization.quant_utils import compute_scale_zp, write_calibration_table
from onnxruntime.quantization.tensor_quant_overrides import TensorQuantOverridesHelper

HERE = pathlib.Path(__file__).parent.parent


class Samples(CalibrationDataReader):
    def __init__(self, path, name, count):
        self.rows = iter(np.load(path)[name][:count])
        self.name = name

    def get_next(self):
        row = next(self.rows, None)
        return None if row is None else {self.name: row[None]}


def collect(method, folder):
    model = HERE / "models/digits_cnn.onnx"
    name = onnx.load(model).graph.input[0].name
    calibrator = create_calibrator(
        model, ["Conv", "Gemm", "Relu"], augmented_model_path=os.path.join(folder, "augmented.onnx"),
        calibrate_method=method)
    calibrator.collect_data(Samples(HERE / "data/digits_train.npz", name, 32))
    return calibrator.compute_data()


def main():
    out = HERE / "ort"
    out.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        minmax = collect(CalibrationMethod.MinMax, folder)
        entropy = collect(CalibrationMethod.Entropy, folder)
        for data in entropy.data.values():
            # 1.21 cannot write what its own histogram methods return: json knows no numpy.float32. The histograms are
            # thousands of numbers that no reader of ranges wants.
            data._attrs = ["lowest", "highest"]
            data.lowest, data.highest = np.array(data.lowest), np.array(data.highest)
        for name, table in [("minmax", minmax), ("entropy", entropy)]:
            write_calibration_table(table, folder)
            shutil.copy(os.path.join(folder, "calibration.json"), out / f"calibration_{name}.json")
        # The inner dictionary alone is what tools pass around too.
        write_calibration_table(minmax.data, folder)
        shutil.copy(os.path.join(folder, "calibration.json"), out / "calibration_inner.json")
    overrides = {}
    for i, (name, data) in enumerate(minmax.data.items()):
        low, high = (np.array(np.ravel(v)[0], dtype=np.float32) for v in data.range_value)
        low, high = np.minimum(low, np.float32(0)), np.maximum(high, np.float32(0))
        if i % 3 == 0:
            zero_point, scale = compute_scale_zp(low, high, np.array(0, np.uint8), np.array(255, np.uint8))
            overrides[name] = [{"quant_type": QuantType.QUInt8, "scale": scale, "zero_point": zero_point}]
        elif i % 3 == 1:
            overrides[name] = [{"quant_type": QuantType.QUInt16, "rmin": low, "rmax": high}]
        else:
            overrides[name] = [{"rmin": low, "rmax": high, "symmetric": True}]
    overrides["some_weight"] = [{"quant_type": QuantType.QInt8, "axis": 0}]
    overrides["other"] = [{"quant_type": QuantType.QInt8, "symmetric": True}]
    (out / "overrides.json").write_text(TensorQuantOverridesHelper(overrides).pprint_str(indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
