#include "ops/compiled_converter.h"

#include <arrow/array.h>
#include <arrow/array/util.h>
#include <arrow/scalar.h>
#include <arrow/type_traits.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "ops/gather.h"

namespace penstock {
namespace {

bool IsAligned(const void* values, DType type) {
  const int64_t alignment = std::min<int64_t>(ByteWidth(type), 8);
  return reinterpret_cast<uintptr_t>(values) % static_cast<uintptr_t>(alignment) == 0;
}

int64_t FirstMissing(const uint8_t* valid, int64_t n) {
  const void* found = valid == nullptr ? nullptr : std::memchr(valid, 0, static_cast<size_t>(n));
  return found == nullptr ? n : static_cast<const uint8_t*>(found) - valid;
}

void WriteMask(const uint8_t* valid, int64_t n, uint8_t* mask) {
  if (mask == nullptr) return;
  if (valid == nullptr) {
    std::memset(mask, 0, static_cast<size_t>(n));
  } else {
    for (int64_t i = 0; i < n; ++i) mask[i] = valid[i] == 0;
  }
}

ValueSpan Strip(const ValueSpan& span, int64_t done) {
  ValueSpan strip = span;
  strip.values = static_cast<const uint8_t*>(span.values) + done * ByteWidth(span.type);
  strip.valid = span.valid == nullptr ? nullptr : span.valid + done;
  strip.length = std::min(Converter::kStrip, span.length - done);
  return strip;
}

}  // namespace

CompiledConverter::Scratch& CompiledConverter::ThisThreadsScratch() {
  thread_local const auto scratch = std::make_unique<Scratch>();
  return *scratch;
}

CompiledConverter::CompiledConverter(Field field, Chain chain, const NullPolicy& nulls, Layout layout)
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

bool CompiledConverter::is_identity() const {
  if (takes_arrays_only()) return false;
  const Decoder& decoder = chain_.rule.decoder(field_.dtype);
  const bool has_same_form = !chain_.rule.is_dictionary && PhysicalType(*chain_.rule.leaf) == field_.dtype;
  return has_same_form && decoder.is_accepted && decoder.kernel == nullptr && chain_.kernels.empty() &&
         chain_.spinners.empty() && !chain_.fill;
}

int64_t CompiledConverter::RowOf(int64_t element, const RowKey& key) const {
  return key.row(element / std::max<int64_t>(items_, 1));
}

arrow::Status CompiledConverter::CheckAccepted(DType type) const {
  if (chain_.rule.decoder(type).is_accepted) return arrow::Status::OK();
  return arrow::Status::TypeError("values come as ", DTypeName(type), ", which is no form of ",
                                  field_.source_type->ToString());
}

arrow::Status CompiledConverter::NullError(int64_t element, const RowKey& key) const {
  return arrow::Status::Invalid("row ", RowOf(element, key), null_advice_);
}

void CompiledConverter::Spend(const RowKey& key, int64_t rows) const {
  for (const Spinner& spinner : chain_.spinners) spinner.Spend(key, rows);
}

arrow::Status CompiledConverter::Convert(const ValueSpan& input, int64_t first_row, SlotTarget target) const {
  Spend(first_row, input.length / std::max<int64_t>(items_, 1));
  return ConvertSpan(input, 0, first_row, target);
}

arrow::Status CompiledConverter::ConvertSpan(const ValueSpan& span, int64_t element, const RowKey& key,
                                             SlotTarget target) const {
  ARROW_RETURN_NOT_OK(CheckAccepted(span.type));
  for (int64_t done = 0; done < span.length; done += kStrip) {
    ARROW_RETURN_NOT_OK(ConvertStrip(Strip(span, done), element + done, key, Advance(target, done)));
  }
  return arrow::Status::OK();
}

// Runs decoder and kernels over the first `n` values of a span of at most kStrip. Missing values come out as anything.
std::optional<CompiledConverter::Fault> CompiledConverter::RunKernels(const ValueSpan& span, int64_t n,
                                                                      uint8_t* out) const {
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

arrow::Status CompiledConverter::ConvertStrip(const ValueSpan& span, int64_t element, const RowKey& key,
                                              SlotTarget target) const {
  const int64_t missing_at = FirstMissing(span.valid, span.length);
  const bool is_refused = fails_on_null_ && missing_at < span.length;
  const int64_t n = is_refused ? missing_at : span.length;
  if (const auto fault = RunKernels(span, n, target.values)) {
    return arrow::Status::Invalid("row ", RowOf(element + fault->position, key), ": ", fault->complaint);
  }
  if (is_refused) return NullError(element + missing_at, key);
  if (missing_at < n) FillMissing(width_, span.valid, missing(), n, target.values);
  WriteMask(span.valid, n, target.mask);
  return arrow::Status::OK();
}

arrow::Status CompiledConverter::WriteMissing(int64_t n, int64_t element, const RowKey& key, SlotTarget target) const {
  if (n == 0) return arrow::Status::OK();
  if (fails_on_null_) return NullError(element, key);
  FillAll(width_, missing(), n, target.values);
  if (target.mask != nullptr) std::memset(target.mask, !chain_.fill, static_cast<size_t>(n));
  return arrow::Status::OK();
}

arrow::Status CompiledConverter::CheckArray(const LeafReader& reader) const {
  const auto& expected = *chain_.rule.leaf;
  const auto& found = *reader.leaf_type();
  const auto is_text = [](const arrow::DataType& type) {
    return arrow::is_base_binary_like(type.id()) || arrow::is_binary_view_like(type.id());
  };
  const bool is_same_leaf = (is_text(expected) && is_text(found)) || expected.Equals(found);
  if (is_same_leaf && reader.list_sizes() == chain_.rule.list_sizes) return CheckAccepted(reader.type());
  return arrow::Status::TypeError("an array of ", found.ToString(), " came where ", field_.source_type->ToString(),
                                  " was promised");
}

arrow::Status CompiledConverter::ConvertArray(const arrow::Array& array, int64_t offset, int64_t length,
                                              const RowKey& key, SlotTarget target) const {
  ARROW_ASSIGN_OR_RAISE(const LeafReader reader, LeafReader::Open(*array.data()));
  ARROW_RETURN_NOT_OK(CheckArray(reader));
  Spend(key, length);
  const int64_t elements = length * items_;
  return ConvertLeaves(reader, offset * items_, elements, 0, key, TableOf(reader, elements), target);
}

arrow::Status CompiledConverter::ConvertLeaves(const LeafReader& reader, int64_t first, int64_t n, int64_t element,
                                               const RowKey& key, const uint8_t* table, SlotTarget target) const {
  for (int64_t done = 0; done < n; done += kStrip) {
    ARROW_RETURN_NOT_OK(ConvertLeafStrip(reader, first + done, std::min(kStrip, n - done), element + done, key, table,
                                         Advance(target, done)));
  }
  return arrow::Status::OK();
}

arrow::Status CompiledConverter::ConvertLeafStrip(const LeafReader& reader, int64_t first, int64_t n, int64_t element,
                                                  const RowKey& key, const uint8_t* table, SlotTarget target) const {
  const int64_t null_list = refuses_null_lists_ ? reader.FindNullList(first, n) : -1;
  if (null_list >= 0) {
    return arrow::Status::Invalid("row ", RowOf(element + null_list, key),
                                  ": a whole list is null, which format \"arrow\" cannot carry in a fixed-size list; "
                                  "use ps.ops.fill_null or nulls={\"",
                                  field_.name, "\": value}");
  }
  LeafScratch* scratch = &ThisThreadsScratch().leaf;
  auto span = table != nullptr ? reader.ReadIndices(first, n, scratch) : reader.Read(first, n, scratch);
  if (!span.ok()) {
    return span.status().WithMessage("rows ", RowOf(element, key), " to ", RowOf(element + n - 1, key), ": ",
                                     span.status().message());
  }
  if (table == nullptr) return ConvertStrip(*span, element, key, target);
  const int64_t missing_at = FirstMissing(span->valid, n);
  if (missing_at < n && fails_on_null_) return NullError(element + missing_at, key);
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
    const ValueSpan strip = Strip(dictionary, done);
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

bool CompiledConverter::Fill(int64_t length, SlotTarget target) const {
  if (missing() == nullptr) return false;
  FillAll(width_, missing(), length * items_, target.values);
  if (target.mask != nullptr) std::memset(target.mask, 0, static_cast<size_t>(length * items_));
  return true;
}

arrow::Status CompiledConverter::ConvertConstant(const arrow::Scalar& value, int64_t length, SlotTarget target) const {
  const int64_t elements = length * items_;
  if (elements == 0) return arrow::Status::OK();
  if (!value.is_valid) {
    if (refuses_null_lists_ && !chain_.rule.list_sizes.empty()) return NullError(0, 0);
    return WriteMissing(elements, 0, 0, target);
  }
  ARROW_ASSIGN_OR_RAISE(const auto array, arrow::MakeArrayFromScalar(value, 1));
  ARROW_RETURN_NOT_OK(ConvertArray(*array, 0, 1, 0, target));
  RepeatRow(length, target);
  return arrow::Status::OK();
}

void CompiledConverter::RepeatRow(int64_t length, SlotTarget target) const {
  const int64_t row_bytes = items_ * width_;
  for (int64_t row = 1; row < length; ++row) {
    std::memcpy(target.values + row * row_bytes, target.values, static_cast<size_t>(row_bytes));
    if (target.mask == nullptr) continue;
    std::memcpy(target.mask + row * items_, target.mask, static_cast<size_t>(items_));
  }
}

}  // namespace penstock
