// A report with something in every part, names chosen to hurt.
#pragma once

#include <limits>

#include "report/report.h"

namespace onnxpress::testing {

inline ModelStats sample_stats(bool quantized) {
  ModelStats stats;
  stats.parameters = 268346;
  stats.nonzeros = quantized ? 250000 : 268346;
  stats.weight_bytes = quantized ? 275000 : 1073384;
  stats.weights["float"] = {44, quantized ? 1664U : 268346U, quantized ? 6656U : 1073384U};
  if (quantized) stats.weights["int8"] = {22, 268344, 268344};
  stats.nodes = quantized ? 180 : 66;
  stats.ops = {{"Conv", 21}, {"Relu", 19}};
  if (quantized) stats.ops["QuantizeLinear"] = 60;
  stats.macs = 40550000;
  stats.free_dims = {"N"};
  stats.macs_unknown = {{"com.microsoft.Attention", 1}};
  stats.layers = {{"Conv_0", "Conv", 432, 432, 1728, 442368}, {"Add_1", "Add", 16, 0, 64, std::nullopt}};
  stats.opsets = {{"", 17}};
  stats.ir_version = 8;
  stats.inputs = {{"input", {DType::f32, std::vector<Dim>{{std::nullopt, "N"}, {3, ""}, {32, ""}, {32, ""}}}}};
  stats.outputs = {{"output", {DType::f32, std::vector<Dim>{{std::nullopt, "N"}, {10, ""}}}}};
  return stats;
}

inline Closeness sample_closeness(float error) {
  Closeness closeness;
  closeness.add(std::vector{1.0F, 2.0F}, std::vector{1.0F, 2.0F + error});
  return closeness;
}

inline Report sample_report() {
  Report report;
  report.command = "compress";
  report.input = {"resnet20.onnx", 1094605, 0, "00112233445566778899aabbccddeeff"};
  report.output = FileReport{"r20.int8.onnx", 309112, 0, "ffeeddccbbaa99887766554433221100"};
  report.before = sample_stats(false);
  report.after = sample_stats(true);
  report.passes = {{"fold-batchnorm", true, 19, 0, 1080000, 1073384, 0.0125, 52000000},
                   {"quant-static{skip=[op:Softmax]}", true, 41, 3, 1073384, 275000, 1.5, 98000000}};
  Comparison comparison;
  comparison.metric = Metric::top1;
  comparison.samples = 2000;
  comparison.scores = {{Metric::top1, "output", 91.75, 91.7, 91.75 - 91.7, 2000},
                       {Metric::agreement, "output", 100, 98.9, 100 - 98.9, 2000}};
  comparison.outputs = {{"output", sample_closeness(0.0625F)}, {"same", sample_closeness(0)}};
  report.comparison = comparison;
  report.latencies = Latency{{0.00066, 0.0007, 0.00067, 0.0006, 100}, {0.00018, 0.0002, 0.00019, 0.00017, 100}, 1};
  report.layers =
      std::vector<LayerError>{{"bad", "bad", "Exp_3", "Exp", sample_closeness(std::numeric_limits<float>::infinity())},
                              {"a|b", "a|b_dq", "Conv_0", "Conv", sample_closeness(0.25F)}};
  report.journal = {{"fold-batchnorm", "Conv_0", "Conv", true, "BatchNorm folded"},
                    {"quant-static", "MaxPool\x1b[31m", "MaxPool", false, "producer is not quantized"},
                    {"quant-static", "größe|層", "Pad", false, "producer is not quantized"},
                    {"quant-static", "Resize_9", "Resize", false, "no int8 kernel"},
                    {"quant-static", "", "", false, "calibrated on 512 samples"}};
  report.warnings = {"activation of Conv_7 is always zero"};
  report.gates = {{"max-drop", 0.5, 0.05, true}, {"max-size", 300000, 309112, false}};
  report.provenance = {"0.1.0",
                       "ONNX Runtime 1.21.0",
                       "fold-batchnorm,quant-static{skip=[op:Softmax]}",
                       7,
                       {{"calibration", "random:seed=1", "seed:1", "", 32, true},
                        {"evaluation", "cifar10_test2k.npz (npz, 2000 samples)", "abcd", "", 2000, false}}};
  return report;
}

}  // namespace onnxpress::testing
