#pragma once

#include <arrow/array/data.h>
#include <arrow/result.h>
#include <arrow/type.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "batch/varying_column.h"

namespace penstock {

/// One level of a column's type, and which strands it has.
struct VaryingNode {
  enum class Form : uint8_t { kNull, kBool, kFixed, kBytes, kList, kFixedList, kStruct, kUnion };

  Form form = Form::kNull;
  int domain = 0;   ///< What its elements are.
  int items = -1;   ///< kBytes, kList, kFixedList: the domain that it opens.
  int values = -1;  ///< Strands, -1: it has none. kUnion: the type codes.
  int offsets = -1;
  int mask = -1;
  int64_t width = 0;                      ///< kFixed: bytes of an element. kFixedList: items of an element.
  bool is_narrow = false;                 ///< Array() gives 32-bit offsets.
  bool is_null_refused = false;           ///< kNull: its elements count as missing.
  std::shared_ptr<arrow::DataType> type;  ///< That Array() gives.
  std::shared_ptr<arrow::DataType> cast;  ///< What Normalize() casts to; null: nothing.
  std::vector<VaryingNode> children;
};

/// A column's nodes and their strands.
struct VaryingTree {
  VaryingNode root;
  std::vector<Strand> strands;
  int num_domains = 0;
};

arrow::Result<VaryingTree> MakeVaryingTree(const arrow::Field& input, const VaryingColumn::Options& options);

/// `type` (list, map, fixed-size list, struct or union) with other children.
std::shared_ptr<arrow::DataType> WithChildren(const arrow::DataType& type, const arrow::FieldVector& children);

arrow::Result<std::shared_ptr<arrow::ArrayData>> NormalizeVarying(const VaryingNode& node,
                                                                  std::shared_ptr<arrow::ArrayData> data,
                                                                  arrow::MemoryPool* pool);

/// \param begin  of the node's elements in `data`, before data.offset is added; so below.
void CountVarying(const VaryingNode& node, const arrow::ArrayData& data, int64_t begin, int64_t n, int64_t* counts);
void CopyVarying(const VaryingNode& node, const arrow::ArrayData& data, int64_t begin, int64_t n,
                 const VaryingColumn::Target& target);
/// \return how far behind `begin` the first unmasked null is, or -1.
int64_t FindVaryingNull(const VaryingNode& node, const arrow::ArrayData& data, int64_t begin, int64_t n);

std::optional<RaggedForm> RaggedFormOf(const VaryingNode& root);

arrow::Result<std::shared_ptr<arrow::ArrayData>> VaryingArray(const VaryingNode& node, uint8_t* const* strands,
                                                              int64_t rows, const int64_t* counts,
                                                              const std::shared_ptr<void>& hold);

/// Items of elements [begin, begin + n) of a list, string or binary array with offsets: where they begin in the child
/// or data buffer, and where they end.
struct ItemRange {
  int64_t begin = 0;
  int64_t end = 0;
};
ItemRange ItemsOf(const arrow::ArrayData& data, int64_t begin, int64_t n);
/// Whether the array has 64-bit offsets (else 32-bit ones).
bool HasWideOffsets(const arrow::ArrayData& data);

}  // namespace penstock
