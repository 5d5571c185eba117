#include "ops/lookup.h"

#include <arrow/array.h>
#include <arrow/type_traits.h>

#include <bit>
#include <limits>

#include "ops/hash.h"
#include "ops/kernels.h"
#include "ops/leaf_reader.h"
#include "ops/message.h"

namespace penstock {

namespace {

uint64_t SlotsFor(int64_t capacity) { return std::bit_ceil(2 * static_cast<uint64_t>(capacity) + 2); }

}  // namespace

IntegerPositions::IntegerPositions(int64_t capacity) : mask_(SlotsFor(capacity) - 1), slots_(mask_ + 1) {}

bool IntegerPositions::Insert(int64_t key, int32_t position) {
  uint64_t i = Slot(key);
  for (; slots_[i].position >= 0; i = (i + 1) & mask_) {
    if (slots_[i].key == key) return false;
  }
  slots_[i] = {key, position};
  return true;
}

BytesPositions::BytesPositions(int64_t capacity) : mask_(SlotsFor(capacity) - 1), slots_(mask_ + 1) {}

bool BytesPositions::Insert(std::string_view key, int32_t position) {
  const uint64_t hash = Hash64(key);
  uint64_t i = hash & mask_;
  for (; slots_[i].position >= 0; i = (i + 1) & mask_) {
    if (slots_[i].hash == hash && slots_[i].key == key) return false;
  }
  slots_[i] = {hash, key, position};
  return true;
}

int32_t BytesPositions::Find(std::string_view key) const {
  const uint64_t hash = Hash64(key);
  for (uint64_t i = hash & mask_;; i = (i + 1) & mask_) {
    const Entry& entry = slots_[i];
    if (entry.position < 0 || (entry.hash == hash && entry.key == key)) return entry.position;
  }
}

namespace {

template <typename T>
int64_t KeyOf(T value) {
  if constexpr (std::is_same_v<T, Half>) {
    return value.bits;
  } else if constexpr (std::is_same_v<T, float>) {
    return std::bit_cast<int32_t>(value);
  } else if constexpr (std::is_same_v<T, double>) {
    return std::bit_cast<int64_t>(value);
  } else {
    return static_cast<int64_t>(Arithmetic(value));
  }
}

/// The vocabulary as a map; `array` keeps the strings.
template <typename Positions>
struct Vocabulary {
  std::shared_ptr<arrow::Array> array;
  Positions positions;
};

template <typename T, typename Position>
struct LookupFn {
  using In = T;
  using Out = Position;
  using Positions = std::conditional_t<std::is_same_v<T, BytesView>, BytesPositions, IntegerPositions>;

  std::shared_ptr<const Vocabulary<Positions>> vocabulary;
  std::optional<Position> missing;
  const char* complaint;

  bool Apply(In value, Out* out) const {
    int32_t position;
    if constexpr (std::is_same_v<T, BytesView>) {
      position = vocabulary->positions.Find(value.view());
    } else {
      position = vocabulary->positions.Find(KeyOf(value));
    }
    *out = position >= 0 ? position : missing.value_or(0);
    return position >= 0 || missing.has_value();
  }
  std::string Complaint(In value) const { return "value " + FormatValue(value) + complaint; }
};

// A signed and an unsigned 64-bit integer with the same bits are different values.
bool CanOccur(DType column, DType vocabulary, int64_t key) {
  return key >= 0 || (column == DType::kUInt64) == (vocabulary == DType::kUInt64);
}

template <typename T>
bool InsertSpan(const ValueSpan& span, DType, int64_t first, BytesPositions* to, int64_t* duplicate)
  requires std::is_same_v<T, BytesView>
{
  const auto* values = static_cast<const BytesView*>(span.values);
  for (int64_t i = 0; i < span.length; ++i) {
    *duplicate = i;
    if (!to->Insert(values[i].view(), static_cast<int32_t>(first + i))) return false;
  }
  return true;
}

template <typename T>
bool InsertSpan(const ValueSpan& span, DType column, int64_t first, IntegerPositions* to, int64_t* duplicate) {
  const auto* values = static_cast<const T*>(span.values);
  for (int64_t i = 0; i < span.length; ++i) {
    const int64_t key = KeyOf(values[i]);
    *duplicate = i;
    if (CanOccur(column, span.type, key) && !to->Insert(key, static_cast<int32_t>(first + i))) return false;
  }
  return true;
}

// T: element type of the vocabulary.
template <typename T, typename Positions>
arrow::Result<std::shared_ptr<const Vocabulary<Positions>>> BuildOf(const char* op, DType column,
                                                                    std::shared_ptr<arrow::Array> array) {
  ARROW_ASSIGN_OR_RAISE(const LeafReader reader, LeafReader::Open(*array->data()));
  auto built = std::make_shared<Vocabulary<Positions>>(Vocabulary<Positions>{array, Positions(array->length())});
  LeafScratch scratch;
  for (int64_t first = 0; first < array->length(); first += LeafScratch::kElements) {
    const int64_t n = std::min(LeafScratch::kElements, array->length() - first);
    ARROW_ASSIGN_OR_RAISE(const ValueSpan span, reader.Read(first, n, &scratch));
    if (span.valid != nullptr) return arrow::Status::Invalid(op, ": the vocabulary has a null");
    int64_t duplicate = 0;
    if (!InsertSpan<T>(span, column, first, &built->positions, &duplicate)) {
      const T value = static_cast<const T*>(span.values)[duplicate];
      return arrow::Status::Invalid(op, ": value ", FormatValue(value), " is in the vocabulary twice");
    }
  }
  return built;
}

template <typename Positions>
arrow::Result<std::shared_ptr<const Vocabulary<Positions>>> Build(const char* op, DType column,
                                                                  const std::shared_ptr<arrow::Array>& array,
                                                                  bool takes_floats) {
  const auto mismatch = [&] {
    return arrow::Status::TypeError(op, ": a vocabulary of ", array->type()->ToString(), " does not go with ",
                                    ValuesOf(column));
  };
  if (array->length() > std::numeric_limits<int32_t>::max()) {
    return arrow::Status::Invalid(op, ": the vocabulary has more than 2^31 - 1 values");
  }
  auto reader = LeafReader::Open(*array->data());
  if (!reader.ok() || reader->is_dictionary() || reader->is_nested()) return mismatch();
  const DType type = reader->type();
  if constexpr (std::is_same_v<Positions, BytesPositions>) {
    if (type != DType::kBytes || arrow::is_decimal(reader->leaf_type()->id())) return mismatch();
    return BuildOf<BytesView, Positions>(op, column, array);
  } else {
    const bool is_integer = arrow::is_integer(reader->leaf_type()->id()) || type == DType::kBool;
    if (!is_integer && !(takes_floats && type == column)) return mismatch();
    return VisitNumber(
        type, [&](auto element) { return BuildOf<decltype(element), Positions>(op, column, array); },
        [&]() -> arrow::Result<std::shared_ptr<const Vocabulary<Positions>>> { return mismatch(); });
  }
}

template <typename T, typename Position>
KernelResult LookupOf(const char* op, std::shared_ptr<arrow::Array> array, std::optional<Position> missing,
                      bool takes_floats, const char* complaint) {
  using Fn = LookupFn<T, Position>;
  ARROW_ASSIGN_OR_RAISE(auto vocabulary, Build<typename Fn::Positions>(op, DTypeOf<T>(), array, takes_floats));
  return MakeKernel(Fn{std::move(vocabulary), missing, complaint});
}

}  // namespace

KernelResult MakeLookup(DType from, const ops::Lookup& op) {
  if (op.vocabulary == nullptr || op.vocabulary->length() == 0) {
    return arrow::Status::Invalid("lookup: the vocabulary is empty");
  }
  constexpr const char* kComplaint = " is not in the vocabulary; set missing= of ps.ops.lookup, or add it";
  if (from == DType::kBytes) {
    return LookupOf<BytesView, int64_t>("lookup", op.vocabulary, op.missing, false, kComplaint);
  }
  const auto refuse = [&]() -> KernelResult {
    return arrow::Status::TypeError("lookup takes strings, binary and integers, not ", ValuesOf(from),
                                    "; use ps.ops.cast first");
  };
  if (IsFloat(from)) return refuse();
  return VisitNumber(
      from,
      [&](auto in) { return LookupOf<decltype(in), int64_t>("lookup", op.vocabulary, op.missing, false, kComplaint); },
      refuse);
}

KernelResult MakeCodes(DType from, std::shared_ptr<arrow::Array> vocabulary) {
  constexpr const char* kComplaint =
      " is not in the column's vocabulary, which for a stream is what its first record batch has; use ps.ops.lookup, "
      "ps.ops.hash_bucket or ps.ops.cast, or give a table or files";
  const std::optional<int32_t> missing;
  if (vocabulary == nullptr) return arrow::Status::Invalid("dictionary: its values across the data set are not known");
  if (from == DType::kBytes) return LookupOf<BytesView, int32_t>("dictionary", vocabulary, missing, true, kComplaint);
  return VisitNumber(
      from,
      [&](auto in) { return LookupOf<decltype(in), int32_t>("dictionary", vocabulary, missing, true, kComplaint); },
      [&]() -> KernelResult {
        return arrow::Status::TypeError("dictionaries of ", ValuesOf(from), " have no codes; use ps.ops.cast");
      });
}

}  // namespace penstock
