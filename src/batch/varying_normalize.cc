// Layouts without offsets are rewritten, so that counting and copying have ranges to go by.
#include <arrow/array/array_base.h>
#include <arrow/array/array_dict.h>
#include <arrow/array/array_nested.h>
#include <arrow/array/builder_primitive.h>
#include <arrow/array/util.h>
#include <arrow/compute/api_vector.h>
#include <arrow/compute/cast.h>
#include <arrow/compute/exec.h>
#include <arrow/datum.h>
#include <arrow/extension_type.h>
#include <arrow/type.h>
#include <arrow/type_traits.h>
#include <arrow/util/bitmap_ops.h>
#include <arrow/util/checked_cast.h>

#include <utility>

#include "batch/varying_node.h"
#include "ops/type_rule.h"

namespace penstock {
namespace {

using arrow::ArrayData;
using arrow::Type;
using arrow::internal::checked_cast;
using DataPtr = std::shared_ptr<ArrayData>;
using NodeForm = VaryingNode::Form;

bool HasForm(const VaryingNode& node, const arrow::DataType& type) {
  switch (node.form) {
    case NodeForm::kNull:
      return type.id() == Type::NA;
    case NodeForm::kBool:
      return type.id() == Type::BOOL;
    case NodeForm::kFixed:
      return type.Equals(*StorageType(node.type));
    case NodeForm::kBytes:
      return arrow::is_base_binary_like(type.id());
    case NodeForm::kList:
      return arrow::is_var_length_list(type.id()) || arrow::is_list_view(type.id());
    case NodeForm::kFixedList:
      return type.id() == Type::FIXED_SIZE_LIST &&
             checked_cast<const arrow::FixedSizeListType&>(type).list_size() == node.width;
    case NodeForm::kStruct:
      return type.id() == Type::STRUCT && type.num_fields() == static_cast<int>(node.children.size());
    case NodeForm::kUnion:
      return arrow::is_union(type.id()) && type.num_fields() == static_cast<int>(node.children.size());
  }
  return false;
}

class Normalizer {
 public:
  explicit Normalizer(arrow::MemoryPool* pool) : pool_(pool), context_(pool) { context_.set_use_threads(false); }

  arrow::Result<DataPtr> Run(const VaryingNode& node, DataPtr data) {
    ARROW_ASSIGN_OR_RAISE(data, Plain(node, std::move(data)));
    if (node.cast != nullptr && !data->type->Equals(*node.cast)) {
      ARROW_ASSIGN_OR_RAISE(data, Cast(data, node.cast));
    }
    ARROW_RETURN_NOT_OK(CheckForm(node, *data->type));
    return Children(node, std::move(data));
  }

 private:
  static arrow::Status CheckForm(const VaryingNode& node, const arrow::DataType& type) {
    if (HasForm(node, type)) return arrow::Status::OK();
    return arrow::Status::TypeError("an array of ", type.ToString(), " came where ", node.type->ToString(),
                                    " was promised");
  }

  arrow::Result<DataPtr> Cast(const DataPtr& data, const std::shared_ptr<arrow::DataType>& to) {
    ARROW_ASSIGN_OR_RAISE(arrow::Datum cast,
                          arrow::compute::Cast(arrow::Datum(data), to, arrow::compute::CastOptions::Safe(), &context_));
    return cast.array();
  }

  arrow::Result<DataPtr> Take(const arrow::Array& values, const arrow::Array& indices) {
    ARROW_ASSIGN_OR_RAISE(
        const auto taken,
        arrow::compute::Take(values, indices, arrow::compute::TakeOptions::NoBoundsCheck(), &context_));
    return taken->data();
  }

  /// `data` without extension types, dictionaries, run ends, views and dense unions at the top level.
  arrow::Result<DataPtr> Plain(const VaryingNode& node, DataPtr data) {
    for (;;) {
      switch (data->type->id()) {
        case Type::EXTENSION: {
          DataPtr storage = data->Copy();
          storage->type = checked_cast<const arrow::ExtensionType&>(*data->type).storage_type();
          data = std::move(storage);
          break;
        }
        case Type::DICTIONARY: {
          ARROW_ASSIGN_OR_RAISE(data, Decode(node, data));
          break;
        }
        case Type::RUN_END_ENCODED: {
          ARROW_ASSIGN_OR_RAISE(arrow::Datum decoded, arrow::compute::RunEndDecode(arrow::Datum(data), &context_));
          data = decoded.array();
          break;
        }
        case Type::STRING_VIEW: {
          ARROW_ASSIGN_OR_RAISE(data, Cast(data, arrow::large_utf8()));
          return data;
        }
        case Type::BINARY_VIEW: {
          ARROW_ASSIGN_OR_RAISE(data, Cast(data, arrow::large_binary()));
          return data;
        }
        case Type::LIST_VIEW:
          return ToList<int32_t>(node, *data);
        case Type::LARGE_LIST_VIEW:
          return ToList<int64_t>(node, *data);
        case Type::DENSE_UNION:
          return ToSparse(node, data);
        default:
          return data;
      }
    }
  }

  arrow::Result<DataPtr> Decode(const VaryingNode& node, const DataPtr& data) {
    const arrow::DictionaryArray array(data);
    ARROW_ASSIGN_OR_RAISE(DataPtr values, Run(node, array.dictionary()->data()));
    // Repeated as often as there are rows, they may outgrow 32-bit offsets.
    if (values->type->id() == Type::STRING) {
      ARROW_ASSIGN_OR_RAISE(values, Cast(values, arrow::large_utf8()));
    }
    if (values->type->id() == Type::BINARY) {
      ARROW_ASSIGN_OR_RAISE(values, Cast(values, arrow::large_binary()));
    }
    return Take(*arrow::MakeArray(values), *array.indices());
  }

  /// Arrow's own conversions go wrong where views are missing or sliced (26.0).
  template <typename Offset>
  arrow::Result<DataPtr> ToList(const VaryingNode& node, const ArrayData& views) {
    ARROW_RETURN_NOT_OK(CheckForm(node, *views.type));
    const auto* starts = views.GetValues<Offset>(1);
    const auto* sizes = views.GetValues<Offset>(2);
    const int64_t n = views.length;
    std::shared_ptr<arrow::Buffer> validity;
    if (views.MayHaveNulls()) {
      ARROW_ASSIGN_OR_RAISE(validity, arrow::internal::CopyBitmap(pool_, views.buffers[0]->data(), views.offset, n));
    }
    const auto size_of = [&](int64_t i) { return views.IsValid(i) ? int64_t{sizes[i]} : 0; };
    int64_t first = 0, end = 0;
    bool is_in_order = true;
    for (int64_t i = 0, seen = 0; i < n; ++i) {
      if (size_of(i) == 0) continue;
      if (seen++ == 0) {
        first = end = starts[i];
      }
      is_in_order &= starts[i] == end;
      end += size_of(i);
    }
    ARROW_ASSIGN_OR_RAISE(std::shared_ptr<arrow::Buffer> offsets, arrow::AllocateBuffer((n + 1) * 8, pool_));
    auto* out = offsets->mutable_data_as<int64_t>();
    out[0] = is_in_order ? first : 0;
    for (int64_t i = 0; i < n; ++i) out[i + 1] = out[i] + size_of(i);
    DataPtr items = views.child_data[0];
    if (!is_in_order) {
      arrow::Int64Builder indices(pool_);
      ARROW_RETURN_NOT_OK(indices.Reserve(out[n]));
      for (int64_t i = 0; i < n; ++i) {
        for (int64_t k = 0; k < size_of(i); ++k) indices.UnsafeAppend(starts[i] + k);
      }
      ARROW_ASSIGN_OR_RAISE(const auto index_array, indices.Finish());
      ARROW_ASSIGN_OR_RAISE(items, Run(node.children[0], std::move(items)));
      ARROW_ASSIGN_OR_RAISE(items, Take(*arrow::MakeArray(items), *index_array));
    }
    auto type = arrow::large_list(views.type->field(0)->WithType(items->type));
    return ArrayData::Make(std::move(type), n, {std::move(validity), std::move(offsets)}, {std::move(items)});
  }

  /// Each child gets an element per element of the union: null where it is another child's turn.
  arrow::Result<DataPtr> ToSparse(const VaryingNode& node, const DataPtr& data) {
    ARROW_RETURN_NOT_OK(CheckForm(node, *data->type));
    const auto& type = checked_cast<const arrow::DenseUnionType&>(*data->type);
    const auto* codes = data->GetValues<int8_t>(1);
    const auto* offsets = data->GetValues<int32_t>(2);
    DataPtr sparse = ArrayData::Make(type.GetSharedPtr(), data->length, {nullptr}, 0);
    ARROW_ASSIGN_OR_RAISE(std::shared_ptr<arrow::Buffer> copied, arrow::AllocateBuffer(data->length, pool_));
    std::copy(codes, codes + data->length, copied->mutable_data_as<int8_t>());
    sparse->buffers.push_back(std::move(copied));
    arrow::FieldVector fields;
    for (int i = 0; i < type.num_fields(); ++i) {
      arrow::Int32Builder indices(pool_);
      ARROW_RETURN_NOT_OK(indices.Reserve(data->length));
      const int8_t code = type.type_codes()[static_cast<size_t>(i)];
      for (int64_t row = 0; row < data->length; ++row) {
        if (codes[row] == code) {
          indices.UnsafeAppend(offsets[row]);
        } else {
          indices.UnsafeAppendNull();
        }
      }
      ARROW_ASSIGN_OR_RAISE(const auto index_array, indices.Finish());
      const auto at = static_cast<size_t>(i);
      ARROW_ASSIGN_OR_RAISE(DataPtr child, Run(node.children[at], data->child_data[at]));
      ARROW_ASSIGN_OR_RAISE(child, Take(*arrow::MakeArray(child), *index_array));
      fields.push_back(type.field(i)->WithType(child->type));
      sparse->child_data.push_back(std::move(child));
    }
    sparse->type = arrow::sparse_union(std::move(fields), type.type_codes());
    return sparse;
  }

  arrow::Result<DataPtr> Children(const VaryingNode& node, DataPtr data) {
    bool is_changed = false;
    std::vector<DataPtr> children = data->child_data;
    arrow::FieldVector fields = data->type->fields();
    for (size_t i = 0; i < node.children.size(); ++i) {
      ARROW_ASSIGN_OR_RAISE(children[i], Run(node.children[i], children[i]));
      if (children[i] == data->child_data[i]) continue;
      is_changed = true;
      fields[i] = fields[i]->WithType(children[i]->type);
    }
    if (!is_changed) return data;
    DataPtr changed = data->Copy();
    changed->type = WithChildren(*data->type, fields);
    changed->child_data = std::move(children);
    return changed;
  }

  arrow::MemoryPool* const pool_;
  arrow::compute::ExecContext context_;
};

}  // namespace

arrow::Result<DataPtr> NormalizeVarying(const VaryingNode& node, DataPtr data, arrow::MemoryPool* pool) {
  return Normalizer(pool).Run(node, std::move(data));
}

}  // namespace penstock
