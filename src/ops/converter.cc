#include "ops/converter.h"

#include <arrow/array.h>
#include <arrow/array/util.h>
#include <arrow/scalar.h>
#include <arrow/type_traits.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>
#include <utility>

#include "ops/chain.h"
#include "ops/gather.h"
#include "ops/leaf_reader.h"

namespace penstock {
namespace {

/// The calling thread's buffers, about 260 KiB: made at its first conversion, freed with the thread.
struct Scratch {
  static constexpr int64_t kTableBytes = 64 << 10;

  alignas(64) uint8_t steps[2][Converter::kStrip * 16];  ///< Between kernels, in turns.
  alignas(64) uint8_t aligned[Converter::kStrip * 16];   ///< Input that is not aligned for its type.
  alignas(64) uint8_t table[kTableBytes];                ///< A dictionary's values, converted.
  LeafScratch leaf;
};

Scratch& ThisThreadsScratch() {
  thread_local const auto scratch = std::make_unique<Scratch>();
  return *scratch;
}

/// The first value that did not convert.
struct Fault {
  int64_t position;
  std::string complaint;
};

bool IsAligned(const void* values, DType type) {
  const int64_t alignment = std::min<int64_t>(ByteWidth(type), 8);
  return reinterpret_cast<uintptr_t>(values) % static_cast<uintptr_t>(alignment) == 0;
}

int64_t FirstMissing(const uint8_t* valid, int64_t n) {
  const void* found = valid == nullptr ? nullptr : std::memchr(valid, 0, static_cast<size_t>(n));
  return found == nullptr ? n : static_cast<const uint8_t*>(found) - valid;
}

SlotTarget Advance(SlotTarget target, int64_t elements, int64_t width) {
  return {target.values + elements * width, target.mask == nullptr ? nullptr : target.mask + elements};
}

class CompiledConverter final : public Converter {
 public:
  CompiledConverter(Field field, Chain chain, const NullPolicy& nulls, Layout layout)
      : chain_(std::move(chain)), width_(ByteWidth(chain_.dtype)), items_(field.items()) {
    field_ = std::move(field);
    refuses_null_lists_ = layout == Layout::kArrow && !chain_.fill;
    const bool is_masking = layout == Layout::kArrow || nulls.otherwise == NullPolicy::Kind::kMask;
    field_.has_mask = is_masking && !chain_.fill && chain_.rule.is_nullable;
    fails_on_null_ = !chain_.fill && !field_.has_mask;
    null_advice_ = is_masking ? " is null, but the first file has no nulls here; use ps.ops.fill_null or nulls={\""
                              : " is null; use ps.ops.fill_null, nulls=\"mask\" or nulls={\"";
    null_advice_ += field_.name + "\": value}";
  }

  bool is_identity() const override {
    const Decoder& decoder = chain_.rule.decoder(field_.dtype);
    const bool has_same_form = !chain_.rule.is_dictionary && PhysicalType(*chain_.rule.leaf) == field_.dtype;
    return has_same_form && decoder.is_accepted && decoder.kernel == nullptr && chain_.kernels.empty() &&
           chain_.spinners.empty() && !chain_.fill;
  }
  bool is_pure() const override { return chain_.spinners.empty(); }
  bool is_dear() const override { return !chain_.spinners.empty(); }

  arrow::Status Convert(const ValueSpan& input, int64_t first_row, SlotTarget target) const override {
    ARROW_RETURN_NOT_OK(CheckAccepted(input.type));
    for (int64_t done = 0; done < input.length; done += kStrip) {
      ValueSpan strip = input;
      strip.values = static_cast<const uint8_t*>(input.values) + done * ByteWidth(input.type);
      strip.valid = input.valid == nullptr ? nullptr : input.valid + done;
      strip.length = std::min(kStrip, input.length - done);
      ARROW_RETURN_NOT_OK(ConvertStrip(strip, done, first_row, Advance(target, done, width_)));
    }
    return arrow::Status::OK();
  }

  arrow::Status ConvertArray(const arrow::Array& array, int64_t offset, int64_t length, int64_t first_row,
                             SlotTarget target) const override;
  bool ConvertDictionary(const ValueSpan& dictionary, uint8_t* table) const override;
  arrow::Status Gather(const uint8_t* table, const int32_t* indices, const uint8_t* valid, int64_t length,
                       int64_t first_row, SlotTarget target) const override;
  arrow::Status ConvertConstant(const arrow::Scalar& value, int64_t length, SlotTarget target) const override;

 private:
  const uint8_t* missing() const { return chain_.fill ? chain_.fill->bytes.data() : nullptr; }
  int64_t RowOf(int64_t element, int64_t first_row) const { return first_row + element / std::max<int64_t>(items_, 1); }

  arrow::Status CheckAccepted(DType type) const {
    if (chain_.rule.decoder(type).is_accepted) return arrow::Status::OK();
    return arrow::Status::TypeError("values come as ", DTypeName(type), ", which is no form of ",
                                    field_.source_type->ToString());
  }
  arrow::Status NullError(int64_t element, int64_t first_row) const {
    return arrow::Status::Invalid("row ", RowOf(element, first_row), null_advice_);
  }

  std::optional<Fault> RunKernels(const ValueSpan& span, int64_t n, uint8_t* out) const;
  void Spend(int64_t element, int64_t n, int64_t first_row) const;
  arrow::Status ConvertStrip(const ValueSpan& span, int64_t element, int64_t first_row, SlotTarget target) const;
  arrow::Status CheckArray(const LeafReader& reader) const;
  arrow::Status ConvertLeaves(const LeafReader& reader, int64_t first, int64_t n, int64_t element, int64_t first_row,
                              const uint8_t* table, SlotTarget target) const;
  const uint8_t* TableOf(const LeafReader& reader, int64_t elements) const;
  void WriteMask(const uint8_t* valid, int64_t n, uint8_t* mask) const;

  Chain chain_;
  int64_t width_;  // Of an output element, in bytes.
  int64_t items_;
  bool refuses_null_lists_ = false;
  bool fails_on_null_ = false;
  std::string null_advice_;
};

// Runs decoder and kernels over the first `n` values of a span of at most kStrip. Missing values come out as anything.
std::optional<Fault> CompiledConverter::RunKernels(const ValueSpan& span, int64_t n, uint8_t* out) const {
  Scratch& scratch = ThisThreadsScratch();
  const void* from = span.values;
  const auto bytes = static_cast<size_t>(n * ByteWidth(span.type));
  const Kernel* decoder = chain_.rule.decoder(span.type).kernel.get();
  const size_t steps = chain_.kernels.size() + (decoder != nullptr ? 1 : 0);
  if (steps == 0) {
    if (from != out && n > 0) std::memcpy(out, from, bytes);
    return std::nullopt;
  }
  // Input may be the output itself, which kernels do not expect.
  if (!IsAligned(from, span.type) || from == out) from = std::memcpy(scratch.aligned, from, bytes);
  for (size_t step = 0; step < steps; ++step) {
    const Kernel* kernel = decoder == nullptr ? chain_.kernels[step].get()
                           : step == 0        ? decoder
                                              : chain_.kernels[step - 1].get();
    uint8_t* to = step + 1 == steps ? out : scratch.steps[step & 1];
    const int64_t position = kernel->Run(from, span.valid, n, to);
    if (position >= 0) {
      Fault fault{position, kernel->Complaint(from, position)};
      // A later kernel may refuse an earlier value: the first by row is the one to tell of.
      auto earlier = RunKernels(span, position, out);
      return earlier ? earlier : std::move(fault);
    }
    from = to;
  }
  return std::nullopt;
}

void CompiledConverter::Spend(int64_t element, int64_t n, int64_t first_row) const {
  // Each row is paid for where its first element is.
  const int64_t items = std::max<int64_t>(items_, 1);
  const int64_t begin = (element + items - 1) / items;
  const int64_t end = (element + n + items - 1) / items;
  for (const Spinner& spinner : chain_.spinners) spinner.Spend(first_row + begin, end - begin);
}

void CompiledConverter::WriteMask(const uint8_t* valid, int64_t n, uint8_t* mask) const {
  if (mask == nullptr) return;
  if (valid == nullptr) {
    std::memset(mask, 0, static_cast<size_t>(n));
  } else {
    for (int64_t i = 0; i < n; ++i) mask[i] = valid[i] == 0;
  }
}

// `element`: of the span's first, counted from row `first_row`.
arrow::Status CompiledConverter::ConvertStrip(const ValueSpan& span, int64_t element, int64_t first_row,
                                              SlotTarget target) const {
  Spend(element, span.length, first_row);
  const int64_t missing_at = FirstMissing(span.valid, span.length);
  const bool is_refused = fails_on_null_ && missing_at < span.length;
  const int64_t n = is_refused ? missing_at : span.length;
  if (const auto fault = RunKernels(span, n, target.values)) {
    return arrow::Status::Invalid("row ", RowOf(element + fault->position, first_row), ": ", fault->complaint);
  }
  if (is_refused) return NullError(element + missing_at, first_row);
  if (missing_at < n) FillMissing(width_, span.valid, missing(), n, target.values);
  WriteMask(span.valid, n, target.mask);
  return arrow::Status::OK();
}

arrow::Status CompiledConverter::CheckArray(const LeafReader& reader) const {
  const auto& expected = *chain_.rule.leaf;
  const auto& found = *reader.leaf_type();
  const auto is_text = [](const arrow::DataType& type) {
    return arrow::is_base_binary_like(type.id()) || arrow::is_binary_view_like(type.id());
  };
  const bool is_same_leaf = (is_text(expected) && is_text(found)) || expected.Equals(found);
  if (is_same_leaf && reader.list_sizes() == chain_.rule.list_sizes) return arrow::Status::OK();
  return arrow::Status::TypeError("an array of ", found.ToString(), " came where ", field_.source_type->ToString(),
                                  " was promised");
}

arrow::Status CompiledConverter::ConvertArray(const arrow::Array& array, int64_t offset, int64_t length,
                                              int64_t first_row, SlotTarget target) const {
  ARROW_ASSIGN_OR_RAISE(const LeafReader reader, LeafReader::Open(*array.data()));
  ARROW_RETURN_NOT_OK(CheckArray(reader));
  ARROW_RETURN_NOT_OK(CheckAccepted(reader.type()));
  const int64_t elements = length * items_;
  const uint8_t* table = TableOf(reader, elements);
  for (int64_t done = 0; done < elements; done += kStrip) {
    const int64_t n = std::min(kStrip, elements - done);
    ARROW_RETURN_NOT_OK(
        ConvertLeaves(reader, offset * items_ + done, n, done, first_row, table, Advance(target, done, width_)));
  }
  return arrow::Status::OK();
}

// One strip: leaves [first, first + n) of the array; `element` counts them from `first_row`.
arrow::Status CompiledConverter::ConvertLeaves(const LeafReader& reader, int64_t first, int64_t n, int64_t element,
                                               int64_t first_row, const uint8_t* table, SlotTarget target) const {
  const int64_t null_list = refuses_null_lists_ ? reader.FindNullList(first, n) : -1;
  if (null_list >= 0) {
    return arrow::Status::Invalid("row ", RowOf(element + null_list, first_row),
                                  ": a whole list is null, which format \"arrow\" cannot carry in a fixed-size list; "
                                  "use ps.ops.fill_null or nulls={\"",
                                  field_.name, "\": value}");
  }
  LeafScratch* scratch = &ThisThreadsScratch().leaf;
  auto span = table != nullptr ? reader.ReadIndices(first, n, scratch) : reader.Read(first, n, scratch);
  if (!span.ok()) {
    return span.status().WithMessage("rows ", RowOf(element, first_row), " to ", RowOf(element + n - 1, first_row),
                                     ": ", span.status().message());
  }
  if (table == nullptr) return ConvertStrip(*span, element, first_row, target);
  const int64_t missing_at = FirstMissing(span->valid, n);
  if (missing_at < n && fails_on_null_) return NullError(element + missing_at, first_row);
  GatherValues(width_, table, scratch->indices, span->valid, missing(), n, target.values);
  WriteMask(span->valid, n, target.mask);
  return arrow::Status::OK();
}

// The dictionary's values converted, where that is less work than converting the rows and all of them convert; or null.
const uint8_t* CompiledConverter::TableOf(const LeafReader& reader, int64_t elements) const {
  if (!reader.is_dictionary() || !is_pure()) return nullptr;
  const LeafReader& dictionary = reader.dictionary();
  const int64_t size = dictionary.length();
  if (size == 0 || size > elements || size * width_ > Scratch::kTableBytes) return nullptr;
  Scratch& scratch = ThisThreadsScratch();
  for (int64_t done = 0; done < size; done += kStrip) {
    const auto span = dictionary.Read(done, std::min(kStrip, size - done), &scratch.leaf);
    if (!span.ok() || RunKernels(*span, span->length, scratch.table + done * width_)) return nullptr;
  }
  return scratch.table;
}

bool CompiledConverter::ConvertDictionary(const ValueSpan& dictionary, uint8_t* table) const {
  if (!is_pure() || !CheckAccepted(dictionary.type).ok()) return false;
  for (int64_t done = 0; done < dictionary.length; done += kStrip) {
    ValueSpan strip = dictionary;
    strip.values = static_cast<const uint8_t*>(dictionary.values) + done * ByteWidth(dictionary.type);
    strip.valid = dictionary.valid == nullptr ? nullptr : dictionary.valid + done;
    strip.length = std::min(kStrip, dictionary.length - done);
    if (RunKernels(strip, strip.length, table + done * width_)) return false;
  }
  return true;
}

arrow::Status CompiledConverter::Gather(const uint8_t* table, const int32_t* indices, const uint8_t* valid,
                                        int64_t length, int64_t first_row, SlotTarget target) const {
  const int64_t missing_at = FirstMissing(valid, length);
  if (missing_at == length) valid = nullptr;
  if (valid != nullptr && fails_on_null_) return NullError(missing_at, first_row);
  GatherValues(width_, table, indices, valid, missing(), length, target.values);
  WriteMask(valid, length, target.mask);
  return arrow::Status::OK();
}

arrow::Status CompiledConverter::ConvertConstant(const arrow::Scalar& value, int64_t length, SlotTarget target) const {
  const int64_t elements = length * items_;
  if (elements == 0) return arrow::Status::OK();
  if (!value.is_valid) {
    if (fails_on_null_ || (refuses_null_lists_ && !chain_.rule.list_sizes.empty())) return NullError(0, 0);
    FillAll(width_, missing(), elements, target.values);
    if (target.mask != nullptr) std::memset(target.mask, !chain_.fill, static_cast<size_t>(elements));
    return arrow::Status::OK();
  }
  ARROW_ASSIGN_OR_RAISE(const auto array, arrow::MakeArrayFromScalar(value, 1));
  ARROW_RETURN_NOT_OK(ConvertArray(*array, 0, 1, 0, target));
  const int64_t row_bytes = items_ * width_;
  for (int64_t row = 1; row < length; ++row) {
    std::memcpy(target.values + row * row_bytes, target.values, static_cast<size_t>(row_bytes));
    if (target.mask == nullptr) continue;
    std::memcpy(target.mask + row * items_, target.mask, static_cast<size_t>(items_));
  }
  return arrow::Status::OK();
}

}  // namespace

arrow::Result<std::shared_ptr<const Converter>> Converter::Make(const std::string& field_name,
                                                                const arrow::Field& input, const std::vector<Op>& ops,
                                                                const NullPolicy& nulls, Layout layout,
                                                                std::shared_ptr<arrow::Array> vocabulary) {
  const auto fill = nulls.fill.find(field_name);
  auto made = MakeChain(input, ops, fill == nulls.fill.end() ? nullptr : &fill->second, layout, std::move(vocabulary));
  if (!made.ok()) return made.status().WithMessage("column '", field_name, "': ", made.status().message());
  Chain chain = std::move(made).ValueUnsafe();
  Field field;
  field.name = field_name;
  field.dtype = chain.dtype;
  field.shape = chain.rule.shape;
  field.source_type = input.type();
  field.arrow_type = OutputType(chain, input.type());
  field.vocabulary = chain.vocabulary;
  return std::make_shared<const CompiledConverter>(std::move(field), std::move(chain), nulls, layout);
}

}  // namespace penstock
