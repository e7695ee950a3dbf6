// One layer of a repair: the rows that are collected for it, and the fit.
#pragma once

#include <cstdint>
#include <memory>

#include "calib/rows.h"
#include "repair/repair.h"
#include "repair/repair_layers.h"

namespace onnxpress {

using RowsOfLayer = std::unique_ptr<RowsAccumulator>;

class Refitter {
 public:
  Refitter(PassContext& context, const RepairOptions& options, bool keep_zeros);

  std::size_t positions() const { return static_cast<std::size_t>(options_.positions); }
  // Bytes of rows that may be kept at a time.
  std::uint64_t budget() const { return budget_; }
  // Of target or shortcut; `channels` of it, all when that is empty.
  RowsOfLayer output_rows(const RepairLayer& layer, const Indices& channels) const;
  // Fewer than positions() where the rows of so many samples would not fit the budget.
  std::size_t input_positions(const RepairLayer& layer, std::uint64_t samples) const;
  RowsOfLayer input_rows(const RepairLayer& layer, std::uint64_t samples) const;

  // Fits the layer to these rows (`shortcut` may be null) and writes what is better on samples held out. Errors:
  // unsupported says why nothing was written, the others end the run.
  Result<Reconstruction> refit(const RepairLayer& layer, const RowsAccumulator& input, const RowsAccumulator& target,
                               const RowsAccumulator* shortcut, Rewriter& rewriter) const;

 private:
  PassContext& context_;
  const RepairOptions& options_;
  bool keep_zeros_;
  std::uint64_t budget_;
};

}  // namespace onnxpress
