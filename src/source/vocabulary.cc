#include "source/vocabulary.h"

#include <arrow/array/array_binary.h>
#include <arrow/array/array_dict.h>
#include <arrow/array/builder_binary.h>
#include <arrow/device.h>
#include <arrow/filesystem/filesystem.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <parquet/arrow/reader.h>
#include <parquet/column_page.h>
#include <parquet/column_reader.h>
#include <parquet/encoding.h>
#include <parquet/exception.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>
#include <parquet/properties.h>
#include <parquet/schema.h>

#include <algorithm>
#include <utility>

#include "source/text.h"

namespace penstock {
namespace {

constexpr int64_t kStreamBytes = 64 << 10;
constexpr int64_t kBatchRows = 64 << 10;  ///< Rows decoded at once where whole chunks must be looked through.

bool IsDictionaryEncoding(parquet::Encoding::type encoding) {
  return encoding == parquet::Encoding::PLAIN_DICTIONARY || encoding == parquet::Encoding::RLE_DICTIONARY;
}

/// True where every data page's values are in the dictionary page, by the footer's word.
bool IsFullyDictionaryEncoded(const parquet::ColumnChunkMetaData& chunk) {
  if (!chunk.has_dictionary_page()) return false;
  if (!chunk.encoding_stats().empty()) {
    return std::all_of(chunk.encoding_stats().begin(), chunk.encoding_stats().end(), [](const auto& pages) {
      return pages.page_type == parquet::PageType::DICTIONARY_PAGE || IsDictionaryEncoding(pages.encoding);
    });
  }
  // Writers without page counts: a chunk that fell back to plain pages lists PLAIN. Those that list it for the
  // dictionary page itself are looked through in full.
  bool has_dictionary = false, has_other = false;
  for (const parquet::Encoding::type encoding : chunk.encodings()) {
    const bool is_levels = encoding == parquet::Encoding::RLE || encoding == parquet::Encoding::BIT_PACKED;
    has_dictionary = has_dictionary || IsDictionaryEncoding(encoding);
    has_other = has_other || (!is_levels && !IsDictionaryEncoding(encoding));
  }
  return has_dictionary && !has_other;
}

template <typename Builder>
arrow::Result<std::shared_ptr<arrow::Array>> BuildArray(const std::vector<parquet::ByteArray>& values,
                                                        arrow::MemoryPool* pool) {
  Builder builder(pool);
  int64_t bytes = 0;
  for (const parquet::ByteArray& value : values) bytes += value.len;
  ARROW_RETURN_NOT_OK(builder.Reserve(static_cast<int64_t>(values.size())));
  ARROW_RETURN_NOT_OK(builder.ReserveData(bytes));
  for (const parquet::ByteArray& value : values) {
    builder.UnsafeAppend(value.ptr, static_cast<typename Builder::offset_type>(value.len));
  }
  return builder.Finish();
}

arrow::Result<std::shared_ptr<arrow::Array>> BuildValues(const arrow::DataType& type,
                                                         const std::vector<parquet::ByteArray>& values,
                                                         arrow::MemoryPool* pool) {
  switch (type.id()) {
    case arrow::Type::STRING:
      return BuildArray<arrow::StringBuilder>(values, pool);
    case arrow::Type::BINARY:
      return BuildArray<arrow::BinaryBuilder>(values, pool);
    case arrow::Type::LARGE_STRING:
      return BuildArray<arrow::LargeStringBuilder>(values, pool);
    case arrow::Type::LARGE_BINARY:
      return BuildArray<arrow::LargeBinaryBuilder>(values, pool);
    default:
      return nullptr;
  }
}

/// The dictionaries of one column, made one.
class Vocabulary {
 public:
  static arrow::Result<Vocabulary> Make(std::shared_ptr<arrow::Field> field, arrow::MemoryPool* pool) {
    Vocabulary vocabulary;
    vocabulary.value_type_ = static_cast<const arrow::DictionaryType&>(*field->type()).value_type();
    vocabulary.field_ = std::move(field);
    vocabulary.pool_ = pool;
    ARROW_ASSIGN_OR_RAISE(vocabulary.unifier_, arrow::DictionaryUnifier::Make(vocabulary.value_type_, pool));
    return vocabulary;
  }

  const arrow::Field& field() const { return *field_; }

  arrow::Status AddRowGroup(const ParquetFile& file, int row_group) {
    const int leaf = LeafColumn(*file.metadata->schema());
    if (leaf < 0) return arrow::Status::Invalid("is not a flat column");
    const auto row_group_metadata = file.metadata->RowGroup(row_group);
    if (row_group_metadata->num_rows() == 0) return arrow::Status::OK();
    const auto chunk = row_group_metadata->ColumnChunk(leaf);
    if (chunk->type() == parquet::Type::BYTE_ARRAY && IsFullyDictionaryEncoded(*chunk)) {
      ARROW_ASSIGN_OR_RAISE(auto values, ReadDictionaryPage(file, row_group, leaf));
      if (values != nullptr) return unifier_->Unify(*values);
    }
    return AddByLookingThrough(file, row_group, leaf);
  }

  arrow::Result<std::shared_ptr<arrow::Array>> Finish() {
    std::shared_ptr<arrow::Array> values;
    ARROW_RETURN_NOT_OK(unifier_->GetResultWithIndexType(arrow::int32(), &values));
    ARROW_RETURN_NOT_OK(values->ValidateFull());
    return values;
  }

 private:
  int LeafColumn(const parquet::SchemaDescriptor& schema) const {
    const int i = schema.group_node()->FieldIndex(field_->name());
    if (i < 0 || !schema.group_node()->field(i)->is_primitive()) return -1;
    return schema.ColumnIndex(*schema.group_node()->field(i));
  }

  /// The values in the chunk's dictionary page; null where it has none that this knows to read.
  arrow::Result<std::shared_ptr<arrow::Array>> ReadDictionaryPage(const ParquetFile& file, int row_group, int leaf) {
    auto reader = parquet::ParquetFileReader::Open(file.file, MakeReaderProperties(pool_, kStreamBytes), file.metadata);
    const auto pages = reader->RowGroup(row_group)->GetColumnPageReader(leaf);
    const std::shared_ptr<parquet::Page> page = pages->NextPage();
    if (page == nullptr || page->type() != parquet::PageType::DICTIONARY_PAGE) return nullptr;
    const auto& dictionary = static_cast<const parquet::DictionaryPage&>(*page);
    if (dictionary.encoding() != parquet::Encoding::PLAIN && !IsDictionaryEncoding(dictionary.encoding()))
      return nullptr;
    // Each value takes at least the four bytes of its length: a page cannot claim more values than it has room for.
    if (dictionary.num_values() < 0 || dictionary.num_values() > page->size() / 4) {
      return arrow::Status::IOError("the dictionary page is damaged: it claims ", dictionary.num_values(), " values");
    }
    std::vector<parquet::ByteArray> values(static_cast<size_t>(dictionary.num_values()));
    auto decoder = parquet::MakeTypedDecoder<parquet::ByteArrayType>(parquet::Encoding::PLAIN,
                                                                     file.metadata->schema()->Column(leaf), pool_);
    decoder->SetData(dictionary.num_values(), page->data(), page->size());
    if (decoder->Decode(values.data(), dictionary.num_values()) != dictionary.num_values()) {
      return arrow::Status::IOError("the dictionary page is damaged: it has too few values");
    }
    return BuildValues(*value_type_, values, pool_);
  }

  arrow::Status AddByLookingThrough(const ParquetFile& file, int row_group, int leaf) {
    parquet::ArrowReaderProperties properties;
    properties.set_read_dictionary(leaf, true);
    properties.set_use_threads(false);
    properties.set_pre_buffer(false);
    properties.set_batch_size(kBatchRows);
    parquet::arrow::FileReaderBuilder builder;
    ARROW_RETURN_NOT_OK(builder.Open(file.file, MakeReaderProperties(pool_, kStreamBytes), file.metadata));
    ARROW_ASSIGN_OR_RAISE(auto reader, builder.memory_pool(pool_)->properties(properties)->Build());
    ARROW_ASSIGN_OR_RAISE(auto batches, reader->GetRecordBatchReader({row_group}, {leaf}));
    while (true) {
      std::shared_ptr<arrow::RecordBatch> batch;
      ARROW_RETURN_NOT_OK(batches->ReadNext(&batch));
      if (batch == nullptr) return arrow::Status::OK();
      if (batch->column(0)->type_id() != arrow::Type::DICTIONARY) {
        return arrow::Status::TypeError("is read as ", batch->column(0)->type()->ToString(), ", not as a dictionary");
      }
      ARROW_RETURN_NOT_OK(unifier_->Unify(*static_cast<const arrow::DictionaryArray&>(*batch->column(0)).dictionary()));
    }
  }

  std::shared_ptr<arrow::Field> field_;
  std::shared_ptr<arrow::DataType> value_type_;
  arrow::MemoryPool* pool_ = nullptr;
  std::unique_ptr<arrow::DictionaryUnifier> unifier_;
};

arrow::Status AddFile(const ParquetFile& file, std::vector<Vocabulary>* vocabularies) {
  for (Vocabulary& vocabulary : *vocabularies) {
    ARROW_RETURN_NOT_OK(CheckColumn(*file.schema, text::Quoted(file.entry.path), vocabulary.field()));
    for (int row_group = 0; row_group < file.metadata->num_row_groups(); ++row_group) {
      const arrow::Status added = CatchParquet([&] { return vocabulary.AddRowGroup(file, row_group); });
      if (added.ok()) continue;
      return text::WithContext(added, text::Quoted(file.entry.path) + ", row group " + std::to_string(row_group) +
                                          ", column " + text::Quoted(vocabulary.field().name()) +
                                          ": reading its dictionary");
    }
  }
  return arrow::Status::OK();
}

}  // namespace

arrow::Result<Vocabularies> ReadVocabularies(const arrow::FieldVector& fields, const FileSet& files,
                                             arrow::MemoryPool* pool, IoCounters* counters) {
  Vocabularies values;
  if (fields.empty()) return values;
  std::vector<Vocabulary> vocabularies;
  for (const auto& field : fields) {
    ARROW_ASSIGN_OR_RAISE(Vocabulary vocabulary, Vocabulary::Make(field, pool));
    vocabularies.push_back(std::move(vocabulary));
  }
  for (const FileEntry& entry : files.files) {
    ARROW_ASSIGN_OR_RAISE(auto file, OpenParquet(*files.filesystem, entry, counters));
    ARROW_RETURN_NOT_OK(AddFile(*file, &vocabularies));
  }
  for (Vocabulary& vocabulary : vocabularies) {
    auto finished = vocabulary.Finish();
    if (!finished.ok())
      return text::WithContext(finished.status(), "column " + text::Quoted(vocabulary.field().name()));
    // Schemas and slots keep the values beyond the loader's end, and so beyond the pool's.
    ARROW_ASSIGN_OR_RAISE(values[vocabulary.field().name()], (*finished)->CopyTo(arrow::default_cpu_memory_manager()));
  }
  return values;
}

}  // namespace penstock
