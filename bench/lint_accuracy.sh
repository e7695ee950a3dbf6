#!/usr/bin/env bash
# How often `onnxpress lint` is right: over a folder of models (its .onnx files and those of its subfolder more/), as they
# are, quantized by onnxpress (static, dynamic) and by onnxruntime.quantization (QDQ with uint8, int8 and per tensor,
# QOperator, dynamic). Prints right/total for each and every miss.
#
#   lint_accuracy.sh ZOO [FOLDER]
#
# FOLDER keeps the quantized models; what is there already is not made again. Models with NAME_train*.npz or a data file
# below are calibrated on it, the others on random inputs.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
[ $# -eq 1 ] || [ $# -eq 2 ] || usage
need_binary
zoo=$1
scratch=${2:-$(mktemp -d)}
[ $# -eq 2 ] || trap 'rm -rf "$scratch"' EXIT
mkdir -p "$scratch"

calibration() {
  case $1 in
    resnet20) echo "$zoo/cifar10_train512.npz" ;;
    kws_ds_cnn_m | kws_gru_m) echo "$zoo/kws_train256.npz" ;;
    vit_3_3_8) echo "$zoo/cifar10_vit_train256.npz" ;;
    stories260k) echo "$zoo/stories_calib.npz" ;;
    digits_*) echo "$bench/../testdata/data/digits_train.npz" ;;
  esac
}

make_forms() {
  local model=$1 name=$2 calib data
  calib=$(calibration "$name")
  data=${calib:-random:seed=1}
  "$ONNXPRESS" -qq quant-static "$model" -o "$scratch/$name.static.onnx" --data "$data" --samples 2 --no-latency >/dev/null ||
    echo "$name: no quant-static" >&2
  "$ONNXPRESS" -qq quant-dynamic "$model" -o "$scratch/$name.ours_dynamic.onnx" >/dev/null ||
    echo "$name: no quant-dynamic" >&2
  python3 "$bench/peer_forms.py" "$model" "$scratch" ${calib:+--calib "$calib"} || true
}

for model in "$bench"/../testdata/models/*.onnx "$zoo"/*.onnx "$zoo"/more/*.onnx; do
  name=$(basename "$model" .onnx)
  [ -e "$scratch/$name.done" ] || { make_forms "$model" "$name"; touch "$scratch/$name.done"; }
  ln -sf "$(realpath "$model")" "$scratch/$name.float.onnx"
done
for form in "$scratch"/*.onnx; do
  "$ONNXPRESS" -qq --format json lint "$form" --verify --target ort-x86-vnni >"${form%.onnx}.json" || [ $? -eq 1 ] ||
    { rm -f "${form%.onnx}.json"; echo "$form: not linted" >&2; }
done
python3 "$bench/lint_table.py" "$scratch"
