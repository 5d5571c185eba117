// How a type is taken apart into nodes and strands.
#include <arrow/extension_type.h>
#include <arrow/type.h>
#include <arrow/type_traits.h>
#include <arrow/util/checked_cast.h>

#include <utility>

#include "batch/varying_node.h"

namespace penstock {
namespace {

using arrow::Type;
using arrow::internal::checked_cast;
using NodeForm = VaryingNode::Form;

class TreeMaker {
 public:
  explicit TreeMaker(const VaryingColumn::Options& options) : options_(options) {}

  arrow::Result<VaryingTree> Make(const arrow::Field& input) {
    ARROW_ASSIGN_OR_RAISE(tree_.root, MakeNode(*input.type(), input.nullable(), 0, false));
    return std::move(tree_);
  }

 private:
  int AddStrand(Strand::Kind kind, int domain, int64_t width) {
    tree_.strands.push_back({kind, domain, width});
    return static_cast<int>(tree_.strands.size()) - 1;
  }
  int AddMask(int domain, bool is_nullable) {
    return is_nullable && options_.has_masks ? AddStrand(Strand::Kind::kMask, domain, 1) : -1;
  }

  VaryingNode Open(NodeForm form, int domain, bool is_nullable) {
    VaryingNode node;
    node.form = form;
    node.domain = domain;
    node.is_null_refused = !options_.has_masks;
    const bool has_validity = form != NodeForm::kNull && form != NodeForm::kUnion;
    if (has_validity) node.mask = AddMask(domain, is_nullable);
    return node;
  }

  /// The children of a nested type, and that type with theirs.
  arrow::Status AddChildren(const arrow::DataType& type, int domain, bool is_narrow, VaryingNode* node) {
    arrow::FieldVector fields;
    for (const auto& field : type.fields()) {
      ARROW_ASSIGN_OR_RAISE(auto child, MakeNode(*field->type(), field->nullable(), domain, is_narrow));
      fields.push_back(field->WithType(child.type));
      node->children.push_back(std::move(child));
    }
    node->type = WithChildren(type, fields);
    return arrow::Status::OK();
  }

  /// Strings, binary and lists: what has offsets.
  VaryingNode OpenItems(NodeForm form, int domain, bool is_nullable, bool is_narrow) {
    VaryingNode node = Open(form, domain, is_nullable);
    node.offsets = AddStrand(Strand::Kind::kOffsets, domain, 8);
    node.items = ++tree_.num_domains;
    node.is_narrow = is_narrow;
    return node;
  }

  arrow::Result<VaryingNode> MakeBytes(const arrow::DataType& type, bool is_nullable, int domain, bool is_narrow) {
    // Views have no offsets to keep narrow.
    const bool is_text = type.id() == Type::STRING || type.id() == Type::LARGE_STRING || type.id() == Type::STRING_VIEW;
    const bool stays_narrow = is_narrow && (type.id() == Type::STRING || type.id() == Type::BINARY);
    VaryingNode node = OpenItems(NodeForm::kBytes, domain, is_nullable, stays_narrow);
    node.values = AddStrand(Strand::Kind::kValues, node.items, 1);
    node.type = is_text ? (stays_narrow ? arrow::utf8() : arrow::large_utf8())
                        : (stays_narrow ? arrow::binary() : arrow::large_binary());
    return node;
  }

  arrow::Result<VaryingNode> MakeList(const arrow::DataType& type, bool is_nullable, int domain, bool is_narrow) {
    const bool is_map = type.id() == Type::MAP;  // There is no map with 64-bit offsets.
    const bool stays_narrow = is_map || (is_narrow && type.id() == Type::LIST);
    VaryingNode node = OpenItems(NodeForm::kList, domain, is_nullable, stays_narrow);
    const int items = node.items;
    ARROW_RETURN_NOT_OK(AddChildren(type, items, is_narrow, &node));
    if (!is_map) {
      const auto& field = node.type->field(0);
      node.type = stays_narrow ? arrow::list(field) : arrow::large_list(field);
    }
    return node;
  }

  arrow::Result<VaryingNode> MakeFixedList(const arrow::DataType& type, bool is_nullable, int domain, bool is_narrow) {
    // A tensor has no place for the mask of a list that is no level of its own.
    VaryingNode node = Open(NodeForm::kFixedList, domain, is_nullable && !options_.as_tensors);
    node.items = ++tree_.num_domains;
    node.width = checked_cast<const arrow::FixedSizeListType&>(type).list_size();
    const int items = node.items;
    ARROW_RETURN_NOT_OK(AddChildren(type, items, is_narrow, &node));
    return node;
  }

  /// Structs and unions: their children have as many elements as they have.
  arrow::Result<VaryingNode> MakeFields(const arrow::DataType& type, bool is_nullable, int domain, bool is_narrow) {
    const bool is_struct = type.id() == Type::STRUCT;
    VaryingNode node = Open(is_struct ? NodeForm::kStruct : NodeForm::kUnion, domain, is_nullable);
    if (!is_struct) node.values = AddStrand(Strand::Kind::kValues, domain, 1);
    ARROW_RETURN_NOT_OK(AddChildren(type, domain, is_narrow, &node));
    return node;
  }

  arrow::Result<VaryingNode> MakeFixed(const arrow::DataType& type, bool is_nullable, int domain) {
    if (type.id() == Type::BOOL) {
      VaryingNode node = Open(NodeForm::kBool, domain, is_nullable);
      node.values = AddStrand(Strand::Kind::kValues, domain, 1);
      node.type = arrow::boolean();
      return node;
    }
    if (!arrow::is_fixed_width(type.id())) {
      return arrow::Status::TypeError(type.ToString(), " cannot be loaded; leave the column out (columns=)");
    }
    VaryingNode node = Open(NodeForm::kFixed, domain, is_nullable);
    node.type = type.GetSharedPtr();
    if (options_.as_tensors && arrow::is_decimal(type.id())) node.cast = arrow::float64();
    if (options_.as_tensors && type.id() == Type::DATE64) node.cast = arrow::date32();
    if (node.cast != nullptr) node.type = node.cast;
    node.width = node.type->bit_width() / 8;
    node.values = AddStrand(Strand::Kind::kValues, domain, node.width);
    return node;
  }

  /// The extension type over what its storage becomes: over wide storage where the type has such a form, else over
  /// narrow storage, else the storage alone.
  arrow::Result<VaryingNode> MakeExtension(const arrow::ExtensionType& type, bool is_nullable, int domain,
                                           bool is_narrow) {
    const VaryingTree before = tree_;
    const arrow::DataType& storage = *type.storage_type();
    for (const bool tries_narrow : {is_narrow, true}) {
      tree_ = before;
      ARROW_ASSIGN_OR_RAISE(auto node, MakeNode(storage, is_nullable, domain, tries_narrow));
      auto extension = type.Deserialize(node.type, type.Serialize());
      if (!extension.ok()) continue;
      if (!checked_cast<const arrow::ExtensionType&>(**extension).storage_type()->Equals(*node.type)) continue;
      node.type = *extension;
      return node;
    }
    tree_ = before;
    return MakeNode(storage, is_nullable, domain, is_narrow);
  }

  arrow::Result<VaryingNode> MakeNode(const arrow::DataType& type, bool is_nullable, int domain, bool is_narrow) {
    switch (type.id()) {
      case Type::NA: {
        VaryingNode node = Open(NodeForm::kNull, domain, is_nullable);
        node.type = arrow::null();
        return node;
      }
      case Type::STRING:
      case Type::LARGE_STRING:
      case Type::STRING_VIEW:
      case Type::BINARY:
      case Type::LARGE_BINARY:
      case Type::BINARY_VIEW:
        return MakeBytes(type, is_nullable, domain, is_narrow);
      case Type::LIST:
      case Type::LARGE_LIST:
      case Type::LIST_VIEW:
      case Type::LARGE_LIST_VIEW:
      case Type::MAP:
        return MakeList(type, is_nullable, domain, is_narrow);
      case Type::FIXED_SIZE_LIST:
        return MakeFixedList(type, is_nullable, domain, is_narrow);
      case Type::STRUCT:
      case Type::SPARSE_UNION:
      case Type::DENSE_UNION:
        return MakeFields(type, is_nullable, domain, is_narrow);
      case Type::DICTIONARY:
        return MakeNode(*checked_cast<const arrow::DictionaryType&>(type).value_type(), is_nullable, domain, is_narrow);
      case Type::RUN_END_ENCODED:
        return MakeNode(*checked_cast<const arrow::RunEndEncodedType&>(type).value_type(), is_nullable, domain,
                        is_narrow);
      case Type::EXTENSION:
        return MakeExtension(checked_cast<const arrow::ExtensionType&>(type), is_nullable, domain, is_narrow);
      default:
        return MakeFixed(type, is_nullable, domain);
    }
  }

  const VaryingColumn::Options options_;
  VaryingTree tree_;
};

}  // namespace

std::shared_ptr<arrow::DataType> WithChildren(const arrow::DataType& type, const arrow::FieldVector& children) {
  switch (type.id()) {
    case Type::LIST:
      return arrow::list(children[0]);
    case Type::LIST_VIEW:
      return arrow::list_view(children[0]);
    case Type::LARGE_LIST_VIEW:
      return arrow::large_list_view(children[0]);
    case Type::LARGE_LIST:
      return arrow::large_list(children[0]);
    case Type::MAP:
      return std::make_shared<arrow::MapType>(children[0], checked_cast<const arrow::MapType&>(type).keys_sorted());
    case Type::FIXED_SIZE_LIST:
      return arrow::fixed_size_list(children[0], checked_cast<const arrow::FixedSizeListType&>(type).list_size());
    case Type::STRUCT:
      return arrow::struct_(children);
    default:
      return arrow::sparse_union(children, checked_cast<const arrow::UnionType&>(type).type_codes());
  }
}

arrow::Result<VaryingTree> MakeVaryingTree(const arrow::Field& input, const VaryingColumn::Options& options) {
  return TreeMaker(options).Make(input);
}

}  // namespace penstock
