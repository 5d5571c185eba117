#include "batch/varying_column.h"

#include <arrow/array/array_base.h>
#include <arrow/array/util.h>
#include <arrow/compute/initialize.h>

#include <cstring>
#include <utility>

#include "batch/varying_node.h"

namespace penstock {
namespace {

class TreeColumn final : public VaryingColumn {
 public:
  explicit TreeColumn(VaryingTree tree) : tree_(std::move(tree)) {}

  const std::shared_ptr<arrow::DataType>& type() const override { return tree_.root.type; }
  const std::vector<Strand>& strands() const override { return tree_.strands; }
  int num_domains() const override { return tree_.num_domains; }

  std::optional<RaggedForm> ragged() const override { return RaggedFormOf(tree_.root); }

  arrow::Result<std::shared_ptr<arrow::Array>> Normalize(std::shared_ptr<arrow::Array> array,
                                                         arrow::MemoryPool* pool) const override {
    ARROW_ASSIGN_OR_RAISE(auto data, NormalizeVarying(tree_.root, array->data(), pool));
    return data == array->data() ? std::move(array) : arrow::MakeArray(std::move(data));
  }
  void Count(const arrow::Array& array, int64_t begin, int64_t rows, int64_t* counts) const override {
    CountVarying(tree_.root, *array.data(), begin, rows, counts);
  }
  int64_t FindNull(const arrow::Array& array, int64_t begin, int64_t rows) const override {
    const int64_t found = FindVaryingNull(tree_.root, *array.data(), begin, rows);
    return found < 0 ? -1 : begin + found;
  }
  void Copy(const arrow::Array& array, int64_t begin, int64_t rows, const Target& target) const override {
    CopyVarying(tree_.root, *array.data(), begin, rows, target);
  }
  arrow::Result<std::shared_ptr<arrow::Array>> Array(uint8_t* const* strands, int64_t rows, const int64_t* counts,
                                                     const std::shared_ptr<void>& hold) const override {
    ARROW_ASSIGN_OR_RAISE(auto data, VaryingArray(tree_.root, strands, rows, counts, hold));
    return arrow::MakeArray(std::move(data));
  }

 private:
  const VaryingTree tree_;
};

}  // namespace

arrow::Result<std::shared_ptr<const VaryingColumn>> VaryingColumn::Make(const arrow::Field& input,
                                                                        const Options& options) {
  ARROW_RETURN_NOT_OK(arrow::compute::Initialize());
  ARROW_ASSIGN_OR_RAISE(VaryingTree tree, MakeVaryingTree(input, options));
  return std::make_shared<const TreeColumn>(std::move(tree));
}

std::vector<uint8_t*> VaryingColumn::View(const Target& batch) const {
  std::vector<uint8_t*> begins;
  for (size_t i = 0; i < strands().size(); ++i) {
    const Strand& strand = strands()[i];
    const bool is_offsets = strand.kind == Strand::Kind::kOffsets;
    const int64_t first = strand.domain == 0 ? batch.batch_row : batch.batch_first[strand.domain - 1];
    begins.push_back(batch.strands[i] + (first + (is_offsets ? batch.batch : 0)) * strand.width);
    if (is_offsets) std::memset(begins.back(), 0, sizeof(int64_t));
  }
  return begins;
}

}  // namespace penstock
