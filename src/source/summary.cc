#include <arrow/filesystem/filesystem.h>
#include <arrow/type.h>
#include <arrow/util/compression.h>
#include <parquet/metadata.h>
#include <parquet/schema.h>
#include <parquet/types.h>

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "penstock/loader.h"
#include "source/file_kind.h"
#include "source/file_set.h"
#include "source/parquet_file.h"
#include "source/source.h"
#include "source/text.h"

namespace penstock {
namespace {

/// Adds `word` to a list "A, B" that does not have it.
void AddWord(const std::string& word, std::string* words) {
  for (size_t start = 0; start < words->size();) {
    const size_t end = std::min(words->find(", ", start), words->size());
    if (words->compare(start, end - start, word) == 0) return;
    start = end + 2;
  }
  if (!words->empty()) *words += ", ";
  *words += word;
}

/// Encodings of values: levels are left out where the footer tells them apart.
void AddEncodings(const parquet::ColumnChunkMetaData& chunk, std::string* words) {
  if (chunk.encoding_stats().empty()) {
    for (const auto encoding : chunk.encodings()) AddWord(parquet::EncodingToString(encoding), words);
    return;
  }
  for (const auto& pages : chunk.encoding_stats()) {
    if (pages.page_type != parquet::PageType::DICTIONARY_PAGE)
      AddWord(parquet::EncodingToString(pages.encoding), words);
  }
}

class Summary {
 public:
  /// Columns are those of the first file that is added.
  void Add(const ParquetFile& file) {
    if (result_.files++ == 0) AddColumns(*file.schema, *file.metadata->schema());
    result_.size_bytes += file.entry.size_bytes;
    for (int i = 0; i < file.metadata->num_row_groups(); ++i) AddRowGroup(*file.metadata->RowGroup(i));
  }

  void AddPartitions(const std::vector<std::shared_ptr<arrow::Field>>& fields) {
    for (const auto& field : fields) {
      if (const auto replaced = places_.find(field->name()); replaced != places_.end()) {
        result_.columns[replaced->second].name.clear();
      }
    }
    std::erase_if(result_.columns, [](const FileSummary::Column& column) { return column.name.empty(); });
    for (const auto& field : fields) {
      FileSummary::Column column;
      column.name = field->name();
      column.type = field->type()->ToString();
      column.physical_type = "partition";
      result_.columns.push_back(std::move(column));
    }
  }

  FileSummary Take() { return std::move(result_); }

 private:
  void AddColumns(const arrow::Schema& schema, const parquet::SchemaDescriptor& parquet_schema) {
    for (const auto& field : schema.fields()) {
      FileSummary::Column column;
      column.name = field->name();
      column.type = field->type()->ToString();
      column.is_nullable = field->nullable();
      places_.emplace(column.name, result_.columns.size());
      result_.columns.push_back(std::move(column));
    }
    for (int i = 0; i < parquet_schema.num_columns(); ++i) {
      const auto place = places_.find(parquet_schema.GetColumnRoot(i)->name());
      if (place == places_.end()) continue;
      AddWord(parquet::TypeToString(parquet_schema.Column(i)->physical_type()),
              &result_.columns[place->second].physical_type);
    }
  }

  void AddRowGroup(const parquet::RowGroupMetaData& row_group) {
    const int64_t rows = row_group.num_rows();
    FileSummary& sum = result_;
    sum.smallest_row_group_rows = sum.row_groups == 0 ? rows : std::min(sum.smallest_row_group_rows, rows);
    sum.largest_row_group_rows = std::max(sum.largest_row_group_rows, rows);
    sum.largest_row_group_bytes = std::max(sum.largest_row_group_bytes, row_group.total_byte_size());
    sum.rows += rows;
    ++sum.row_groups;
    for (int i = 0; i < row_group.num_columns(); ++i) {
      const auto place = places_.find(row_group.schema()->GetColumnRoot(i)->name());
      if (place == places_.end()) continue;
      const auto chunk = row_group.ColumnChunk(i);
      FileSummary::Column& column = sum.columns[place->second];
      column.compressed_bytes += chunk->total_compressed_size();
      column.uncompressed_bytes += chunk->total_uncompressed_size();
      std::string codec = arrow::util::Codec::GetCodecAsString(chunk->compression());
      AddWord(codec, &column.codecs);
      AddEncodings(*chunk, &column.encodings);
    }
  }

  FileSummary result_;
  std::map<std::string, size_t> places_;  // Of columns in result_, by name.
};

bool IsParquetOrUnknown(FileKind kind) { return kind == FileKind::kParquet || kind == FileKind::kUnknown; }

/// What is known without reading the data of files that are not Parquet.
arrow::Result<FileSummary> SummarizeSource(Source& source, const FileSet& files) {
  FileSummary sum;
  sum.files = source.num_files();
  for (const FileEntry& entry : files.files) sum.size_bytes += std::max<int64_t>(0, entry.size_bytes);
  for (int i = 0; i < source.schema()->num_fields(); ++i) {
    const arrow::Field& field = *source.schema()->field(i);
    FileSummary::Column column;
    column.name = field.name();
    column.type = field.type()->ToString();
    column.is_nullable = field.nullable();
    if (i >= source.schema()->num_fields() - source.num_partitions()) column.physical_type = "partition";
    sum.columns.push_back(std::move(column));
  }
  if (!source.is_counted()) {
    sum.rows = -1;
    return sum;
  }
  Projection nothing;
  nothing.dataset_schema = source.schema();
  const auto unlimited = std::make_shared<Ledger>(std::numeric_limits<int64_t>::max());
  ARROW_ASSIGN_OR_RAISE(const auto inputs, source.Open({&nothing, unlimited}));
  while (true) {
    ARROW_ASSIGN_OR_RAISE(const auto input, inputs->Next());
    if (input == nullptr) return sum;
    for (int chunk = 0; chunk < input->num_chunks(); ++chunk) {
      const int64_t rows = input->rows(chunk);
      sum.smallest_row_group_rows = sum.row_groups == 0 ? rows : std::min(sum.smallest_row_group_rows, rows);
      sum.largest_row_group_rows = std::max(sum.largest_row_group_rows, rows);
      sum.rows += rows;
      ++sum.row_groups;
    }
  }
}

}  // namespace

arrow::Result<FileSummary> Summarize(const std::vector<std::string>& paths,
                                     std::shared_ptr<arrow::fs::FileSystem> filesystem) {
  ARROW_ASSIGN_OR_RAISE(const FileSet files, ResolveFiles(paths, filesystem));
  IoCounters counters;
  if (KindOfName(files.files.front().path) != FileKind::kParquet) {
    ARROW_ASSIGN_OR_RAISE(const FileKind kind, KindOf(*files.filesystem, files.files.front(), &counters));
    if (!IsParquetOrUnknown(kind)) {
      LoaderOptions options;
      options.paths = paths;
      options.filesystem = std::move(filesystem);
      ARROW_ASSIGN_OR_RAISE(const auto source, MakeSource(options, &counters));
      return SummarizeSource(*source, files);
    }
  }
  Summary summary;
  for (const FileEntry& entry : files.files) {
    ARROW_ASSIGN_OR_RAISE(auto file, OpenParquet(*files.filesystem, entry, &counters));
    ARROW_RETURN_NOT_OK(text::WithContext(CatchParquet([&] {
                                            summary.Add(*file);
                                            return arrow::Status::OK();
                                          }),
                                          text::Quoted(entry.path)));
  }
  summary.AddPartitions(files.partition_fields);
  return summary.Take();
}

}  // namespace penstock
