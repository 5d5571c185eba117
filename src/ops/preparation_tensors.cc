// Lists that stand for tensors.
#include <arrow/array/array_base.h>
#include <arrow/array/array_nested.h>
#include <arrow/array/builder_primitive.h>
#include <arrow/array/util.h>
#include <arrow/compute/api_vector.h>
#include <arrow/compute/cast.h>
#include <arrow/compute/exec.h>
#include <arrow/extension_type.h>
#include <arrow/type.h>
#include <arrow/util/bitmap_ops.h>
#include <arrow/util/checked_cast.h>

#include <utility>

#include "ops/preparation_steps.h"

namespace penstock {
namespace {

using arrow::Type;
using arrow::internal::checked_cast;
using ArrayPtr = std::shared_ptr<arrow::Array>;
using BufferPtr = std::shared_ptr<arrow::Buffer>;

ArrayPtr StorageOf(ArrayPtr array) {
  while (array->type_id() == Type::EXTENSION) array = checked_cast<const arrow::ExtensionArray&>(*array).storage();
  return array;
}

/// Lists in any layout: their items, and where each one's are.
struct Lists {
  struct Range {
    int64_t begin;
    int64_t size;
  };
  ArrayPtr items;
  std::vector<Range> ranges;  // Of missing lists: empty.
};

template <typename ListsArray>
Lists ReadLists(const arrow::Array& array) {
  const auto& typed = checked_cast<const ListsArray&>(array);
  Lists lists{typed.values(), {}};
  lists.ranges.reserve(static_cast<size_t>(array.length()));
  for (int64_t i = 0; i < array.length(); ++i) {
    if (array.IsNull(i)) {
      lists.ranges.push_back({0, 0});
    } else {
      lists.ranges.push_back({typed.value_offset(i), typed.value_length(i)});
    }
  }
  return lists;
}

arrow::Result<Lists> ReadLists(const arrow::Array& array) {
  switch (array.type_id()) {
    case Type::LIST:
      return ReadLists<arrow::ListArray>(array);
    case Type::LARGE_LIST:
      return ReadLists<arrow::LargeListArray>(array);
    case Type::LIST_VIEW:
      return ReadLists<arrow::ListViewArray>(array);
    case Type::LARGE_LIST_VIEW:
      return ReadLists<arrow::LargeListViewArray>(array);
    case Type::FIXED_SIZE_LIST:
      return ReadLists<arrow::FixedSizeListArray>(array);
    default:
      return arrow::Status::TypeError("an array of ", array.type()->ToString(), " came where lists were promised");
  }
}

/// The items of all lists one after the other. \param extent  >= 0: a missing list has as many missing items.
arrow::Result<ArrayPtr> GatherItems(const Lists& lists, const arrow::Array& array, int64_t extent,
                                    arrow::MemoryPool* pool) {
  int64_t first = 0, end = 0;
  bool is_in_order = true;
  for (size_t i = 0, seen = 0; i < lists.ranges.size(); ++i) {
    const auto [begin, size] = lists.ranges[i];
    if (extent > 0 && array.IsNull(static_cast<int64_t>(i))) is_in_order = false;
    if (size == 0) continue;
    if (seen++ == 0) first = end = begin;
    is_in_order &= begin == end;
    end = begin + size;
  }
  if (is_in_order) return lists.items->Slice(first, end - first);
  arrow::Int64Builder indices(pool);
  for (size_t i = 0; i < lists.ranges.size(); ++i) {
    const auto [begin, size] = lists.ranges[i];
    if (extent > 0 && array.IsNull(static_cast<int64_t>(i))) ARROW_RETURN_NOT_OK(indices.AppendNulls(extent));
    for (int64_t k = 0; k < size; ++k) ARROW_RETURN_NOT_OK(indices.Append(begin + k));
  }
  ARROW_ASSIGN_OR_RAISE(const ArrayPtr index_array, indices.Finish());
  arrow::compute::ExecContext context(pool);
  return arrow::compute::Take(*lists.items, *index_array, arrow::compute::TakeOptions::NoBoundsCheck(), &context);
}

arrow::Result<BufferPtr> ValidityOf(const arrow::Array& array, arrow::MemoryPool* pool) {
  if (array.null_count() == 0) return nullptr;
  return arrow::internal::CopyBitmap(pool, array.null_bitmap_data(), array.offset(), array.length());
}

arrow::Result<ArrayPtr> ToLargeList(const Lists& lists, const ArrayPtr& items, const arrow::Array& array,
                                    arrow::MemoryPool* pool) {
  ARROW_ASSIGN_OR_RAISE(BufferPtr validity, ValidityOf(array, pool));
  ARROW_ASSIGN_OR_RAISE(BufferPtr offsets, arrow::AllocateBuffer((array.length() + 1) * 8, pool));
  auto* out = offsets->mutable_data_as<int64_t>();
  out[0] = 0;
  for (size_t i = 0; i < lists.ranges.size(); ++i) out[i + 1] = out[i] + lists.ranges[i].size;
  return std::make_shared<arrow::LargeListArray>(arrow::large_list(items->type()), array.length(), std::move(offsets),
                                                 items, std::move(validity));
}

ArrayPtr ToFixedList(const ArrayPtr& items, int64_t extent, int64_t length, BufferPtr validity) {
  return std::make_shared<arrow::FixedSizeListArray>(
      arrow::fixed_size_list(items->type(), static_cast<int32_t>(extent)), length, items, std::move(validity));
}

class FixedStep final : public Preparation::Step {
 public:
  FixedStep(std::vector<int64_t> extents, bool is_flat) : extents_(std::move(extents)), is_flat_(is_flat) {}

  arrow::Result<ArrayPtr> Run(const ArrayPtr& array, arrow::MemoryPool* pool) const override {
    return is_flat_ ? Unflatten(*StorageOf(array), pool) : Level(StorageOf(array), 0, pool);
  }

 private:
  std::string Shape() const {
    std::string text;
    for (int64_t extent : extents_) text += (text.empty() ? "" : ", ") + (extent < 0 ? "?" : std::to_string(extent));
    return "[" + text + "]";
  }

  arrow::Result<ArrayPtr> Items(const arrow::Array& array, const Lists& lists, int64_t extent,
                                arrow::MemoryPool* pool) const {
    for (size_t i = 0; extent >= 0 && i < lists.ranges.size(); ++i) {
      if (lists.ranges[i].size == extent || array.IsNull(static_cast<int64_t>(i))) continue;
      return arrow::Status::Invalid("a list of ", lists.ranges[i].size, " items where the tensors' shape ", Shape(),
                                    " has ", extent);
    }
    return GatherItems(lists, array, extent, pool);
  }

  arrow::Result<ArrayPtr> Level(const ArrayPtr& array, size_t level, arrow::MemoryPool* pool) const {
    if (level == extents_.size()) return array;
    ARROW_ASSIGN_OR_RAISE(const Lists lists, ReadLists(*array));
    ARROW_ASSIGN_OR_RAISE(ArrayPtr items, Items(*array, lists, extents_[level], pool));
    ARROW_ASSIGN_OR_RAISE(items, Level(items, level + 1, pool));
    if (extents_[level] < 0) return ToLargeList(lists, items, *array, pool);
    ARROW_ASSIGN_OR_RAISE(BufferPtr validity, ValidityOf(*array, pool));
    return ToFixedList(items, extents_[level], array->length(), std::move(validity));
  }

  arrow::Result<ArrayPtr> Unflatten(const arrow::Array& array, arrow::MemoryPool* pool) const {
    int64_t all = 1;
    for (int64_t extent : extents_) all *= extent;
    ARROW_ASSIGN_OR_RAISE(const Lists lists, ReadLists(array));
    ARROW_ASSIGN_OR_RAISE(ArrayPtr items, Items(array, lists, all, pool));
    for (size_t level = extents_.size(); level-- > 1;) {
      all /= std::max<int64_t>(extents_[level], 1);
      items = ToFixedList(items, extents_[level], array.length() * all, nullptr);
    }
    ARROW_ASSIGN_OR_RAISE(BufferPtr validity, ValidityOf(array, pool));
    return ToFixedList(items, extents_[0], array.length(), std::move(validity));
  }

  const std::vector<int64_t> extents_;
  const bool is_flat_;
};

class TensorStep final : public Preparation::Step {
 public:
  explicit TensorStep(int ndim) : ndim_(ndim) {}

  arrow::Result<ArrayPtr> Run(const ArrayPtr& array, arrow::MemoryPool* pool) const override {
    const ArrayPtr storage = StorageOf(array);
    if (storage->type_id() != Type::STRUCT || storage->num_fields() != 2) {
      return arrow::Status::TypeError("an array of ", storage->type()->ToString(), " came where tensors were promised");
    }
    const auto& pair = checked_cast<const arrow::StructArray&>(*storage);
    ARROW_ASSIGN_OR_RAISE(const ArrayPtr data, pair.GetFlattenedField(0, pool));
    ARROW_ASSIGN_OR_RAISE(const ArrayPtr shape, pair.GetFlattenedField(1, pool));
    ARROW_ASSIGN_OR_RAISE(const Lists data_lists, ReadLists(*data));
    ARROW_ASSIGN_OR_RAISE(const Lists shape_lists, ReadLists(*shape));
    ARROW_ASSIGN_OR_RAISE(const ArrayPtr extents, Extents(shape_lists, *storage, pool));
    ARROW_RETURN_NOT_OK(Check(data_lists, static_cast<const arrow::Int64Array&>(*extents), *storage));
    ARROW_ASSIGN_OR_RAISE(const ArrayPtr items, GatherItems(data_lists, *data, -1, pool));
    ARROW_ASSIGN_OR_RAISE(ArrayPtr lists, ToLargeList(data_lists, items, *data, pool));
    ARROW_ASSIGN_OR_RAISE(BufferPtr validity, ValidityOf(*storage, pool));
    auto data_of_lists = lists->data()->Copy();
    data_of_lists->buffers[0] = nullptr;  // What is missing is said by the struct.
    data_of_lists->SetNullCount(0);
    const auto item = arrow::field("item", arrow::int64(), false);
    const auto shapes =
        std::make_shared<arrow::FixedSizeListArray>(arrow::fixed_size_list(item, ndim_), storage->length(), extents);
    lists = arrow::MakeArray(std::move(data_of_lists));
    return std::make_shared<arrow::StructArray>(
        arrow::struct_({arrow::field("data", lists->type(), false), arrow::field("shape", shapes->type(), false)}),
        storage->length(), arrow::ArrayVector{lists, shapes}, std::move(validity));
  }

 private:
  /// ndim_ numbers per tensor; 0 where the tensor is missing.
  arrow::Result<ArrayPtr> Extents(const Lists& shapes, const arrow::Array& tensors, arrow::MemoryPool* pool) const {
    arrow::compute::ExecContext context(pool);
    ARROW_ASSIGN_OR_RAISE(const ArrayPtr wide, arrow::compute::Cast(*shapes.items, arrow::int64(),
                                                                    arrow::compute::CastOptions::Safe(), &context));
    const auto& numbers = checked_cast<const arrow::Int64Array&>(*wide);
    arrow::Int64Builder builder(pool);
    for (size_t i = 0; i < shapes.ranges.size(); ++i) {
      const auto [begin, size] = shapes.ranges[i];
      if (tensors.IsNull(static_cast<int64_t>(i))) {
        for (int k = 0; k < ndim_; ++k) ARROW_RETURN_NOT_OK(builder.Append(0));
        continue;
      }
      if (size != ndim_) {
        return arrow::Status::Invalid("a tensor of ", size, " dimensions in a column of tensors of ", ndim_);
      }
      for (int64_t k = 0; k < size; ++k) ARROW_RETURN_NOT_OK(builder.Append(numbers.Value(begin + k)));
    }
    return builder.Finish();
  }

  arrow::Status Check(const Lists& data, const arrow::Int64Array& extents, const arrow::Array& tensors) const {
    for (size_t i = 0; i < data.ranges.size(); ++i) {
      if (tensors.IsNull(static_cast<int64_t>(i))) continue;
      int64_t values = 1;
      for (int k = 0; k < ndim_; ++k) {
        const int64_t extent = extents.Value(static_cast<int64_t>(i) * ndim_ + k);
        if (extent < 0 || __builtin_mul_overflow(values, extent, &values)) values = -1;
      }
      if (values != data.ranges[i].size) {
        return arrow::Status::Invalid("a tensor whose shape wants ", values, " values has ", data.ranges[i].size);
      }
    }
    return arrow::Status::OK();
  }

  const int ndim_;
};

}  // namespace

std::shared_ptr<const Preparation::Step> ListsToFixed(std::vector<int64_t> extents, bool is_flat) {
  return std::make_shared<const FixedStep>(std::move(extents), is_flat);
}

std::shared_ptr<const Preparation::Step> CheckTensors(int ndim) { return std::make_shared<const TensorStep>(ndim); }

}  // namespace penstock
