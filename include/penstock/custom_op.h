#pragma once

#include <arrow/result.h>
#include <arrow/status.h>
#include <arrow/type_fwd.h>
#include <arrow/util/config.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "penstock/dtype.h"

namespace penstock {

/// Which rows of the source a call is about. What an op draws at random, it draws by seed, epoch, file and row: then
/// every run gives the same, whatever the workers.
struct RowKey {
  // Implicit: rows that follow one another are their first one's number.
  RowKey(int64_t first, const int64_t* numbers = nullptr) : first_row(first), row_numbers(numbers) {}

  int64_t first_row = 0;  ///< Within its row group.
  const int64_t* row_numbers =
      nullptr;           ///< Of each row, where rows are left out in between (a filter); null: none are.
  int64_t file = 0;      ///< The rows' file, as its place in the source's list.
  int64_t file_row = 0;  ///< Rows of the file in front of the row group.
  uint64_t seed = 0;
  int64_t epoch = 0;
  /// Where to take scratch memory, which is then counted; null: arrow::default_memory_pool().
  arrow::MemoryPool* pool = nullptr;

  /// Number of the i-th row of the call in its row group.
  int64_t row(int64_t i) const { return row_numbers != nullptr ? row_numbers[i] : first_row + i; }
  RowKey Advance(int64_t rows) const {
    RowKey key = *this;
    key.first_row += rows;
    if (row_numbers != nullptr) key.row_numbers += rows;
    return key;
  }
};

/// An op of your own: whole rows of a column, as they are in the file, to numbers of one shape. Give it to a loader as
/// the first op of a Transform (ops::Custom); native ops may follow.
///
/// Ownership: shared by the loaders that it is given to and by all their workers.
/// Threads:   every method may be called from any thread, from several at once; workers hold no lock and no GIL.
/// Errors:    the caller adds file, row group, column, rows and name(). Throw nothing.
class CustomOp {
 public:
  /// What comes out for each row.
  struct Output {
    DType dtype = DType::kFloat32;  ///< A number or kBool.
    std::vector<int64_t> shape;     ///< Of one row; empty for a scalar.
  };

  virtual ~CustomOp() = default;

  /// For messages: "decode_wav".
  virtual std::string name() const = 0;

  /// Called when a loader is made.
  /// \param input  the column's type and nullability.
  /// \return what Apply() gives, or an error (TypeError for a column that it does not take): no loader is made then.
  virtual arrow::Result<Output> OutputFor(const arrow::Field& input) const = 0;

  /// Converts `rows` (at least one; of the type that OutputFor() was asked for, possibly sliced, nulls included: what a
  /// missing value becomes is this op's to say, the result has none).
  /// \param rows  valid during the call; do not keep it or its buffers.
  /// \param out   rows.length() rows of the output, row-major, aligned for its dtype; write every byte. A kBool is a
  ///              byte, 0 or 1.
  /// \return an error to end the epoch; RowError() says which row it is about.
  virtual arrow::Status Apply(const arrow::Array& rows, const RowKey& key, uint8_t* out) const = 0;

  /// True where one row takes long (about 50 microseconds and more): workers then take few rows at a time.
  virtual bool is_dear() const { return false; }
};

/// What RowError() attaches.
class RowDetail final : public arrow::StatusDetail {
 public:
  static constexpr const char* kTypeId = "penstock::RowDetail";

  explicit RowDetail(int64_t row) : row_(row) {}
  const char* type_id() const override { return kTypeId; }
  std::string ToString() const override { return "row " + std::to_string(row_) + " of the call"; }
  int64_t row() const { return row_; }

 private:
  int64_t row_;
};

/// `status` as an error about the i-th row of the call; the message that users see has its number in the row group.
inline arrow::Status RowError(int64_t i, const arrow::Status& status) {
  return status.WithDetail(std::make_shared<RowDetail>(i));
}

/// Settings of an op that is loaded by name, as text.
using CustomOpParams = std::map<std::string, std::string>;

/// What passes between LoadCustomOp() and the function that PENSTOCK_EXPORT_OP defines.
struct CustomOpExchange {
  int abi = 0;         ///< Of the caller; the callee does nothing where it has another.
  int callee_abi = 0;  ///< Written by the callee.
  const CustomOpParams* params = nullptr;
  std::shared_ptr<const CustomOp> op;  ///< The answer, or ...
  arrow::Status status;                ///< ... why there is none.
};

/// Changes with this header and with Arrow, whose types cross the border.
inline constexpr int kCustomOpAbi = ARROW_VERSION_MAJOR * 1000 + 2;

/// Exports an op from a shared object, for LoadCustomOp(). `make` is a function of
/// const CustomOpParams& that returns arrow::Result<std::shared_ptr<const CustomOp>>.
#define PENSTOCK_EXPORT_OP(symbol, make)                                                                  \
  extern "C" __attribute__((visibility("default"))) void symbol(::penstock::CustomOpExchange* exchange) { \
    exchange->callee_abi = ::penstock::kCustomOpAbi;                                                      \
    if (exchange->abi != ::penstock::kCustomOpAbi) return;                                                \
    ::arrow::Result<std::shared_ptr<const ::penstock::CustomOp>> made = make(*exchange->params);          \
    exchange->status = made.status();                                                                     \
    if (made.ok()) exchange->op = std::move(made).ValueUnsafe();                                          \
  }

/// An op from a shared object, which stays loaded until the process ends. Blocking: reads the file.
/// \param symbol  the name given to PENSTOCK_EXPORT_OP.
/// \return IOError where the file cannot be loaded, Invalid where it has no such symbol or was built with another
///         Penstock or Arrow, what `make` says where it refuses.
[[nodiscard]] arrow::Result<std::shared_ptr<const CustomOp>> LoadCustomOp(const std::string& path,
                                                                          const std::string& symbol,
                                                                          const CustomOpParams& params = {});

}  // namespace penstock
