#include "ops/chain.h"

#include <arrow/array.h>
#include <arrow/type.h>
#include <arrow/type_traits.h>
#include <arrow/util/checked_cast.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <utility>

#include "ops/message.h"

namespace penstock {
namespace {

using arrow::internal::checked_cast;

// A dictionary column whose values no op looks at stays codes.
bool LooksAtValues(const Op& op) {
  return !std::holds_alternative<ops::FillNull>(op) && !std::holds_alternative<ops::Spin>(op) &&
         !std::holds_alternative<ops::PadList>(op) && !std::holds_alternative<ops::Pack>(op);
}

class ChainBuilder {
 public:
  ChainBuilder(Chain chain, Layout layout, std::shared_ptr<arrow::Array> vocabulary)
      : chain_(std::move(chain)), layout_(layout), codes_vocabulary_(std::move(vocabulary)) {
    chain_.dtype = chain_.rule.natural;
  }

  arrow::Status Add(const ops::Cast& op) {
    if (op.to == chain_.dtype) return arrow::Status::OK();
    return AddKernel(MakeCast(chain_.dtype, op.to));
  }
  arrow::Status Add(const ops::HashBucket& op) { return AddKernel(MakeHashBucket(chain_.dtype, op)); }
  arrow::Status Add(const ops::Scale& op) { return AddKernel(MakeScale(chain_.dtype, op)); }
  arrow::Status Add(const ops::Clip& op) { return AddKernel(MakeClip(chain_.dtype, op)); }
  arrow::Status Add(const ops::Lookup& op) {
    ARROW_RETURN_NOT_OK(AddKernel(MakeLookup(chain_.dtype, op)));
    chain_.vocabulary = op.vocabulary;
    return arrow::Status::OK();
  }
  arrow::Status Add(const ops::Spin& op) {
    ARROW_ASSIGN_OR_RAISE(Spinner spinner, Spinner::Make(op));
    chain_.spinners.push_back(spinner);
    return arrow::Status::OK();
  }
  arrow::Status Add(const ops::FillNull& op) {
    // A number for a dictionary column is a code, text is one of its values.
    if (chain_.is_coded && !op.text) ARROW_RETURN_NOT_OK(Encode());
    Element fill;
    ARROW_RETURN_NOT_OK(In("fill_null", EncodeElement(op, &fill)));
    ARROW_RETURN_NOT_OK(In("fill_null", CheckCode(fill)));
    if (!chain_.fill) chain_.fill = fill;
    return arrow::Status::OK();
  }
  arrow::Status Add(const ops::PadList& op) {
    if (chain_.pad_list) return arrow::Status::Invalid("pad_list is given twice");
    ARROW_RETURN_NOT_OK(AddPadding("pad_list", op.value));
    chain_.pad_list = op;
    return arrow::Status::OK();
  }
  arrow::Status Add(const ops::Pack& op) {
    if (chain_.is_packed) return arrow::Status::Invalid("pack is given twice");
    ARROW_RETURN_NOT_OK(AddPadding("pack", op.value));
    chain_.is_packed = true;
    return arrow::Status::OK();
  }
  // These come first or not at all: MakeIntake's.
  arrow::Status Add(const ops::ListLength&) { return arrow::Status::OK(); }
  arrow::Status Add(const ops::Custom&) { return arrow::Status::OK(); }

  /// For dictionary columns: from values to codes. Does nothing where that was done.
  arrow::Status Encode() {
    if (!chain_.is_coded || std::exchange(is_encoded_, true)) return arrow::Status::OK();
    ARROW_RETURN_NOT_OK(AddKernel(MakeCodes(chain_.dtype, codes_vocabulary_)));
    chain_.vocabulary = codes_vocabulary_;
    return arrow::Status::OK();
  }

  Chain Finish() && { return std::move(chain_); }
  const Chain& chain() const { return chain_; }

 private:
  static arrow::Status In(const char* op, const arrow::Status& status) {
    return status.ok() ? status : status.WithMessage(op, ": ", status.message());
  }

  static arrow::Status Apply(const Kernel& kernel, Element* element) {
    Element next;
    if (kernel.Run(element->bytes.data(), nullptr, 1, next.bytes.data()) >= 0) {
      return arrow::Status::Invalid(kernel.Complaint(element->bytes.data(), 0));
    }
    *element = next;
    return arrow::Status::OK();
  }

  arrow::Status AddKernel(KernelResult result) {
    ARROW_ASSIGN_OR_RAISE(std::shared_ptr<const Kernel> kernel, std::move(result));
    if (chain_.fill) ARROW_RETURN_NOT_OK(In("fill_null", Apply(*kernel, &*chain_.fill)));
    if (chain_.pad_list) ARROW_RETURN_NOT_OK(In("pad_list", Apply(*kernel, &chain_.pad)));
    if (chain_.is_packed) ARROW_RETURN_NOT_OK(In("pack", Apply(*kernel, &chain_.pad)));
    chain_.dtype = kernel->output();
    chain_.vocabulary = nullptr;
    chain_.kernels.push_back(std::move(kernel));
    return arrow::Status::OK();
  }

  arrow::Status AddPadding(const char* op, const ops::FillNull& value) {
    if (chain_.is_coded) ARROW_RETURN_NOT_OK(Encode());
    if (chain_.dtype == DType::kBytes) {
      return arrow::Status::TypeError(op, ": the items are ", ValuesOf(chain_.dtype),
                                      " there; put ps.ops.hash_bucket or ps.ops.lookup in front of it");
    }
    ARROW_RETURN_NOT_OK(In(op, EncodeFill(value, chain_.dtype, chain_.pad.bytes.data())));
    return In(op, CheckCode(chain_.pad));
  }

  // Tensors may have a code of their own for what is missing. In an Arrow dictionary it would point to no value; a
  // dictionary without values has none that could.
  arrow::Status CheckCode(const Element& element) const {
    const bool is_code = chain_.is_coded && is_encoded_ && layout_ == Layout::kArrow;
    const int64_t entries = is_code ? codes_vocabulary_->length() : 0;
    if (entries == 0) return arrow::Status::OK();
    int32_t code = 0;
    std::memcpy(&code, element.bytes.data(), sizeof code);
    if (code >= 0 && code < entries) return arrow::Status::OK();
    return arrow::Status::Invalid("the code ", code, " is not in the dictionary, which has ", entries,
                                  " entries; give a code from 0 to ", entries - 1,
                                  " or one of its values, or use format=\"torch\" or \"numpy\", where any code can "
                                  "stand for what is missing");
  }

  arrow::Status EncodeElement(const ops::FillNull& op, Element* out) {
    if (chain_.dtype == DType::kDecimal128) return EncodeDecimalFill(op, *chain_.rule.leaf, out->bytes.data());
    if (chain_.dtype != DType::kBytes || !op.text) return EncodeFill(op, chain_.dtype, out->bytes.data());
    fill_text_ = *op.text;
    const BytesView view{static_cast<uint32_t>(fill_text_.size()), reinterpret_cast<const uint8_t*>(fill_text_.data())};
    std::memcpy(out->bytes.data(), &view, sizeof view);
    return arrow::Status::OK();
  }

  Chain chain_;
  Layout layout_;
  std::shared_ptr<arrow::Array> codes_vocabulary_;
  std::string fill_text_;  // While the fill value is text: no chain ends with strings.
  bool is_encoded_ = false;
};

arrow::Status NeedsNumbers(const arrow::DataType& leaf, Layout layout) {
  const bool is_string = arrow::is_string(leaf.id()) || leaf.id() == arrow::Type::STRING_VIEW;
  const char* help = is_string ? ", or ps.ops.cast for numbers written as text" : "";
  const char* problem = layout == Layout::kTensor ? " have no tensor form" : " are not carried in format \"arrow\"";
  return arrow::Status::TypeError(is_string ? "strings" : "binary values", problem,
                                  "; use ps.ops.hash_bucket or ps.ops.lookup", help);
}

arrow::Status AddAll(std::span<const Op> ops, const ops::FillNull* policy_fill, ChainBuilder* builder) {
  const bool is_text = policy_fill != nullptr && policy_fill->text.has_value();
  const bool has_fill =
      std::ranges::any_of(ops, [](const Op& op) { return std::holds_alternative<ops::FillNull>(op); });
  const bool is_at_front = is_text && !has_fill && builder->chain().dtype == DType::kBytes;
  if (is_at_front) ARROW_RETURN_NOT_OK(builder->Add(*policy_fill));
  for (const Op& op : ops) {
    ARROW_RETURN_NOT_OK(std::visit([&](const auto& description) { return builder->Add(description); }, op));
  }
  ARROW_RETURN_NOT_OK(builder->Encode());
  const bool is_at_end = policy_fill != nullptr && !is_at_front && !has_fill && builder->chain().dtype != DType::kBytes;
  return is_at_end ? builder->Add(*policy_fill) : arrow::Status::OK();
}

// The Arrow type of a column of `source` elements after the chain.
std::shared_ptr<arrow::DataType> ElementType(const Chain& chain, const std::shared_ptr<arrow::DataType>& source) {
  if (chain.is_coded) return WithLeaf(source, arrow::dictionary(arrow::int32(), chain.vocabulary->type()));
  if (!chain.is_form_kept) return WithLeaf(source, PlainType(chain.dtype));
  auto leaf = chain.rule.leaf;
  if (chain.dtype == DType::kDecimal128) {
    const auto& decimal = checked_cast<const arrow::DecimalType&>(*leaf);
    return WithLeaf(source, arrow::decimal128(decimal.precision(), decimal.scale()));
  }
  return chain.rule.list_sizes.empty() ? source : WithLeaf(source, std::move(leaf));
}

void AddOuterShape(Chain* chain) {
  const std::vector<int64_t>& outer = chain->intake.outer_shape;
  chain->shape = outer;
  chain->shape.insert(chain->shape.end(), chain->rule.shape.begin(), chain->rule.shape.end());
  for (auto extent = outer.rbegin(); extent != outer.rend(); ++extent) {
    chain->arrow_type = arrow::fixed_size_list(chain->arrow_type, static_cast<int32_t>(*extent));
  }
}

}  // namespace

arrow::Result<Chain> MakeChain(const arrow::Field& input, const std::vector<Op>& ops, const ops::FillNull* policy_fill,
                               Layout layout, std::shared_ptr<arrow::Array> vocabulary) {
  Chain chain;
  ARROW_ASSIGN_OR_RAISE(chain.intake, MakeIntake(input, ops));
  const auto kernel_ops = std::span(ops).subspan(chain.intake.ops_done);
  const auto element = chain.intake.element;
  const bool is_changed = std::ranges::any_of(kernel_ops, LooksAtValues);
  // Codes are looked up in the form in which Arrow holds the vocabulary.
  const bool is_whole_dictionary = StorageType(element->type())->id() == arrow::Type::DICTIONARY && !is_changed;
  chain.is_form_kept = layout == Layout::kArrow && ops.empty();
  ARROW_ASSIGN_OR_RAISE(chain.rule, MakeTypeRule(*element, chain.is_form_kept || is_whole_dictionary));
  chain.is_coded = chain.rule.is_dictionary && !is_changed;
  const auto leaf = chain.rule.leaf;
  ChainBuilder builder(std::move(chain), layout, std::move(vocabulary));
  ARROW_RETURN_NOT_OK(AddAll(kernel_ops, policy_fill, &builder));
  if (builder.chain().dtype == DType::kBytes) return NeedsNumbers(*leaf, layout);
  chain = std::move(builder).Finish();
  chain.arrow_type = ElementType(chain, element->type());
  AddOuterShape(&chain);
  return chain;
}

}  // namespace penstock
