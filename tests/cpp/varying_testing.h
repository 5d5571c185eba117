#pragma once

#include <arrow/array.h>
#include <arrow/json/from_string.h>
#include <arrow/type.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "batch/varying_column.h"

namespace penstock::testing {

using ArrayPtr = std::shared_ptr<arrow::Array>;
using TypePtr = std::shared_ptr<arrow::DataType>;

inline ArrayPtr Json(const TypePtr& type, const std::string& json) {
  return arrow::json::ArrayFromJSONString(type, json).ValueOrDie();
}

/// Random values of a type as JSON, so that the same rows can be had in another layout.
class RandomJson {
 public:
  explicit RandomJson(unsigned seed) : random_(seed) {}

  std::string Rows(const arrow::Field& field, int64_t rows) {
    std::string json = "[";
    for (int64_t i = 0; i < rows; ++i) json += (i == 0 ? "" : ",") + Value(field);
    return json + "]";
  }
  int64_t Below(int64_t n) { return n <= 0 ? 0 : static_cast<int64_t>(random_() % static_cast<uint64_t>(n)); }

 private:
  std::string Value(const arrow::Field& field);
  std::string Items(const arrow::Field& field, int64_t n) {
    std::string json = "[";
    for (int64_t i = 0; i < n; ++i) json += (i == 0 ? "" : ",") + Value(field);
    return json + "]";
  }

  std::mt19937_64 random_;
};

/// A slot's memory for one column: batches of the given numbers of rows.
class FakeSlot : public std::enable_shared_from_this<FakeSlot> {
 public:
  /// \param counts  per batch, per domain.
  FakeSlot(std::shared_ptr<const VaryingColumn> column, std::vector<int64_t> batch_rows,
           std::vector<std::vector<int64_t>> counts)
      : column_(std::move(column)), batch_rows_(std::move(batch_rows)), counts_(std::move(counts)) {
    const auto domains = static_cast<size_t>(column_->num_domains());
    std::vector<int64_t> ends(domains, 0);
    int64_t rows = 0;
    for (size_t b = 0; b < batch_rows_.size(); ++b) {
      row_of_batch_.push_back(rows);
      rows += batch_rows_[b];
      first_of_batch_.push_back(ends);
      for (size_t d = 0; d < domains; ++d) {
        ends[d] +=
            (counts_[b][d] + VaryingColumn::kAlignment - 1) / VaryingColumn::kAlignment * VaryingColumn::kAlignment;
      }
    }
    for (const Strand& strand : column_->strands()) {
      const int64_t elements = strand.domain == 0 ? rows : ends[static_cast<size_t>(strand.domain) - 1];
      const auto extra = static_cast<int64_t>(strand.kind == Strand::Kind::kOffsets ? batch_rows_.size() : 0);
      memory_.emplace_back(static_cast<size_t>((elements + extra) * strand.width + 1), uint8_t{0xA5});
    }
    for (auto& memory : memory_) strands_.push_back(memory.data());
  }

  /// Where row `row` of a batch goes; `before`: elements per domain of the batch's rows before it. Both must outlive
  /// it.
  VaryingColumn::Target At(size_t batch, int64_t row, std::vector<int64_t>* before) {
    for (size_t d = 0; d < before->size(); ++d) (*before)[d] += first_of_batch_[batch][d];
    VaryingColumn::Target target;
    target.strands = strands_.data();
    target.batch = static_cast<int64_t>(batch);
    target.batch_row = row_of_batch_[batch];
    target.row = target.batch_row + row;
    target.first = before->data();
    target.batch_first = first_of_batch_[batch].data();
    return target;
  }

  arrow::Result<ArrayPtr> Array(size_t batch) {
    std::vector<int64_t> none(counts_[batch].size(), 0);
    const auto begins = column_->View(At(batch, 0, &none));
    return column_->Array(begins.data(), batch_rows_[batch], counts_[batch].data(), shared_from_this());
  }

 private:
  std::shared_ptr<const VaryingColumn> column_;
  std::vector<int64_t> batch_rows_;
  std::vector<std::vector<int64_t>> counts_;
  std::vector<int64_t> row_of_batch_;
  std::vector<std::vector<int64_t>> first_of_batch_;
  std::vector<std::vector<uint8_t>> memory_;
  std::vector<uint8_t*> strands_;
};

inline std::string RandomJson::Value(const arrow::Field& field) {
  using arrow::Type;
  const arrow::DataType& type = *field.type();
  if (type.id() == Type::NA || (field.nullable() && Below(5) == 0 && !arrow::is_union(type.id()))) return "null";
  switch (type.id()) {
    case Type::BOOL:
      return Below(2) == 0 ? "true" : "false";
    case Type::STRING:
    case Type::LARGE_STRING:
    case Type::STRING_VIEW:
    case Type::BINARY:
    case Type::LARGE_BINARY:
    case Type::BINARY_VIEW:
      return '"' + std::string(static_cast<size_t>(Below(30)), static_cast<char>('a' + Below(26))) + '"';
    case Type::FIXED_SIZE_BINARY:
      return '"' +
             std::string(static_cast<size_t>(static_cast<const arrow::FixedSizeBinaryType&>(type).byte_width()),
                         static_cast<char>('a' + Below(26))) +
             '"';
    case Type::DECIMAL128:
    case Type::DECIMAL256:
      return '"' + std::to_string(Below(1000)) + ".25\"";
    case Type::INTERVAL_MONTH_DAY_NANO:
      return "[" + std::to_string(Below(12)) + "," + std::to_string(Below(28)) + "," + std::to_string(Below(1000)) +
             "]";
    case Type::INTERVAL_DAY_TIME:
      return "[" + std::to_string(Below(12)) + "," + std::to_string(Below(28)) + "]";
    case Type::LIST:
    case Type::LARGE_LIST:
    case Type::LIST_VIEW:
    case Type::LARGE_LIST_VIEW:
      return Items(*type.field(0), Below(4));
    case Type::FIXED_SIZE_LIST:
      return Items(*type.field(0), static_cast<const arrow::FixedSizeListType&>(type).list_size());
    case Type::MAP: {
      std::string json = "[";
      for (int64_t i = 0, n = Below(3); i < n; ++i) {
        const auto& entries = *type.field(0)->type();
        json += std::string(i == 0 ? "" : ",") + "[" + Value(*entries.field(0)) + "," + Value(*entries.field(1)) + "]";
      }
      return json + "]";
    }
    case Type::STRUCT: {
      std::string json = "{";
      for (int i = 0; i < type.num_fields(); ++i) {
        json += std::string(i == 0 ? "" : ",") + '"' + type.field(i)->name() + "\":" + Value(*type.field(i));
      }
      return json + "}";
    }
    case Type::SPARSE_UNION:
    case Type::DENSE_UNION: {
      const auto& codes = static_cast<const arrow::UnionType&>(type).type_codes();
      const auto child = static_cast<size_t>(Below(static_cast<int64_t>(codes.size())));
      return "[" + std::to_string(codes[child]) + "," + Value(*type.field(static_cast<int>(child))) + "]";
    }
    case Type::DATE64:
      return std::to_string(Below(100) * 86400000);
    case Type::DICTIONARY:
      return Value(*field.WithType(static_cast<const arrow::DictionaryType&>(type).value_type()));
    default:
      return std::to_string(Below(100));
  }
}

}  // namespace penstock::testing
