#include "source/hive.h"

#include <arrow/scalar.h>
#include <arrow/type.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <utility>

#include "source/text.h"

namespace penstock {
namespace {

constexpr std::string_view kHiveNull = "__HIVE_DEFAULT_PARTITION__";

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

/// The integer that `text` writes out in full ("-7", "01"), if it is one.
std::optional<int64_t> ParseInteger(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// One partition column: the distinct texts met, and the narrowest type that fits them all.
struct HiveColumn {
  std::string name;
  std::map<std::string, std::shared_ptr<arrow::Scalar>, std::less<>> values;
  std::shared_ptr<arrow::Scalar> null;

  void MakeScalars() {
    bool is_integer = !values.empty(), is_narrow = true;
    for (const auto& [text, scalar] : values) {
      const std::optional<int64_t> value = ParseInteger(text);
      is_integer = is_integer && value.has_value();
      is_narrow = is_narrow && value && *value >= std::numeric_limits<int32_t>::min() &&
                  *value <= std::numeric_limits<int32_t>::max();
    }
    null = arrow::MakeNullScalar(!is_integer ? arrow::utf8() : is_narrow ? arrow::int32() : arrow::int64());
    for (auto& [text, scalar] : values) {
      if (!is_integer) {
        scalar = std::make_shared<arrow::StringScalar>(text);
      } else if (is_narrow) {
        scalar = std::make_shared<arrow::Int32Scalar>(static_cast<int32_t>(*ParseInteger(text)));
      } else {
        scalar = std::make_shared<arrow::Int64Scalar>(*ParseInteger(text));
      }
    }
  }
};

/// One folder's partition values: column and text (not set: null).
using FolderValues = std::vector<std::pair<size_t, std::optional<std::string>>>;

class HiveReader {
 public:
  /// Reads the folders of `path` behind its first `base_length` characters; each distinct folder once.
  arrow::Result<const FolderValues*> Read(const std::string& path, int64_t base_length) {
    const size_t base = std::min(static_cast<size_t>(base_length), path.size());
    const size_t name = path.find_last_of('/');
    const std::string folder = name == std::string::npos || name < base ? "" : path.substr(base, name - base);
    const auto [place, is_new] = folders_.try_emplace(folder);
    if (is_new) {
      for (size_t start = 0; start < folder.size();) {
        const size_t end = std::min(folder.find('/', start), folder.size());
        ARROW_RETURN_NOT_OK(ReadPart(path, std::string_view(folder).substr(start, end - start), &place->second));
        start = end + 1;
      }
    }
    return &place->second;
  }

  std::vector<HiveColumn>& columns() { return columns_; }

 private:
  arrow::Status ReadPart(const std::string& path, std::string_view part, FolderValues* values) {
    const size_t equals = part.find('=');
    if (equals == std::string_view::npos || equals == 0) return arrow::Status::OK();
    const std::string key = UnquoteUri(part.substr(0, equals));
    const std::string text = UnquoteUri(part.substr(equals + 1));
    if (!text::IsUtf8(key) || !text::IsUtf8(text)) {
      return arrow::Status::Invalid(text::Quoted(path), ": the partition folder ", text::Quoted(part),
                                    " is not UTF-8; rename it");
    }
    const size_t column = ColumnOf(key);
    for (const auto& [other, value] : *values) {
      if (other == column) {
        return arrow::Status::Invalid(text::Quoted(path), ": the partition key '", key,
                                      "' occurs twice; rename a folder");
      }
    }
    const bool is_null = text == kHiveNull;
    if (!is_null) columns_[column].values.try_emplace(text);
    values->emplace_back(column, is_null ? std::nullopt : std::optional(text));
    return arrow::Status::OK();
  }

  size_t ColumnOf(const std::string& key) {
    for (size_t i = 0; i < columns_.size(); ++i) {
      if (columns_[i].name == key) return i;
    }
    columns_.push_back({key, {}, nullptr});
    return columns_.size() - 1;
  }

  std::vector<HiveColumn> columns_;
  std::unordered_map<std::string, FolderValues> folders_;  // Its nodes stay where they are.
};

}  // namespace

std::string UnquoteUri(std::string_view text) {
  std::string plain;
  plain.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const bool is_escape =
        text[i] == '%' && i + 2 < text.size() && HexDigit(text[i + 1]) >= 0 && HexDigit(text[i + 2]) >= 0;
    plain += is_escape ? static_cast<char>(HexDigit(text[i + 1]) * 16 + HexDigit(text[i + 2])) : text[i];
    if (is_escape) i += 2;
  }
  return plain;
}

arrow::Status AddHivePartitions(const std::vector<int64_t>& base_lengths, FileSet* files) {
  HiveReader reader;
  std::vector<const FolderValues*> values(files->files.size(), nullptr);
  for (size_t i = 0; i < values.size(); ++i) {
    if (base_lengths[i] < 0) continue;
    ARROW_ASSIGN_OR_RAISE(values[i], reader.Read(files->files[i].path, base_lengths[i]));
  }
  std::vector<HiveColumn>& columns = reader.columns();
  if (columns.empty()) return arrow::Status::OK();
  std::vector<std::shared_ptr<arrow::Scalar>> nulls;
  for (HiveColumn& column : columns) {
    column.MakeScalars();
    nulls.push_back(column.null);
    files->partition_fields.push_back(arrow::field(column.name, column.null->type));
  }
  for (size_t i = 0; i < values.size(); ++i) {
    files->files[i].partition_values = nulls;
    if (values[i] == nullptr) continue;
    for (const auto& [column, text] : *values[i]) {
      if (text) files->files[i].partition_values[column] = columns[column].values.at(*text);
    }
  }
  return arrow::Status::OK();
}

}  // namespace penstock
