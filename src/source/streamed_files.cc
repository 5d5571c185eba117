#include <arrow/array/array_base.h>
#include <arrow/csv/options.h>
#include <arrow/csv/reader.h>
#include <arrow/io/compressed.h>
#include <arrow/io/interfaces.h>
#include <arrow/ipc/reader.h>
#include <arrow/json/options.h>
#include <arrow/json/reader.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <arrow/util/compression.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "source/batch_input.h"
#include "source/counting_file.h"
#include "source/file_sources.h"
#include "source/pooled_file.h"
#include "source/text.h"
#include "source/unified_dictionaries.h"

namespace penstock {
namespace {

using Reader = std::shared_ptr<arrow::RecordBatchReader>;

// Text that is parsed at once: more where a row is longer.
constexpr int32_t kBlockBytes = 1 << 20;
constexpr int32_t kMostBlockBytes = 1 << 28;
constexpr int32_t kBlockGrowth = 4;
// What a block of text takes on the way: itself, its parsed form, its arrays, and the next block read ahead.
constexpr int64_t kParseCopies = 8;

bool IsLongRow(const arrow::Status& status) {
  return status.IsInvalid() && status.message().find("straddles two block boundaries") != std::string::npos;
}

// What Arrow's parsers say, with what to do about it.
arrow::Status WithRemedy(const arrow::Status& status, FileKind kind) {
  const auto says = [&](std::string_view text) { return status.message().find(text) != std::string::npos; };
  if (IsLongRow(status)) {
    return arrow::Status::Invalid("a row is longer than ", kMostBlockBytes >> 20,
                                  " MiB, the most that is parsed at once; write the file as Parquet");
  }
  if (kind == FileKind::kJson && says("changed from object")) {
    return arrow::Status::Invalid("this is not JSON lines, of which each is an object like {\"x\": 1} (",
                                  status.message(), ")");
  }
  if (kind == FileKind::kJson && says("unexpected field")) {
    return status.WithMessage(status.message(),
                              ": a line has a key that the first megabyte of the file does not have; name the columns "
                              "that you want (columns=), and others are passed over");
  }
  return status;
}

arrow::Result<std::shared_ptr<arrow::io::InputStream>> Unpacked(const std::string& path,
                                                                std::shared_ptr<arrow::io::InputStream> stream,
                                                                arrow::MemoryPool* pool) {
  const size_t dot = path.rfind('.');
  const std::string suffix = dot == std::string::npos ? "" : path.substr(dot + 1);
  auto type = arrow::Compression::UNCOMPRESSED;
  if (suffix == "gz") type = arrow::Compression::GZIP;
  if (suffix == "bz2") type = arrow::Compression::BZ2;
  if (suffix == "zst") type = arrow::Compression::ZSTD;
  if (suffix == "lz4") type = arrow::Compression::LZ4_FRAME;
  if (suffix == "br") type = arrow::Compression::BROTLI;
  if (type == arrow::Compression::UNCOMPRESSED) return stream;
  ARROW_ASSIGN_OR_RAISE(auto codec, arrow::util::Codec::Create(type));
  // The stream shares nothing with its codec once it is made, but for its decompressor.
  return arrow::io::CompressedInputStream::Make(codec.get(), std::move(stream), pool);
}

/// How text is parsed.
struct TextForm {
  int32_t block_bytes = kBlockBytes;
  std::shared_ptr<arrow::Schema> expected;  // The types that columns must have; null for the first look.
  bool passes_over = false;                 // Keys of JSON that are not in it.
};

/// A reader of one file's batches.
arrow::Result<Reader> OpenReader(FileKind kind, const std::string& path, std::shared_ptr<arrow::io::InputStream> stream,
                                 const TextForm& form, arrow::MemoryPool* pool) {
  const arrow::io::IOContext context(pool);
  if (kind == FileKind::kIpcStream) {
    arrow::ipc::IpcReadOptions options;
    options.memory_pool = pool;
    options.use_threads = false;
    return arrow::ipc::RecordBatchStreamReader::Open(stream, options);
  }
  ARROW_ASSIGN_OR_RAISE(stream, Unpacked(path, std::move(stream), pool));
  if (kind == FileKind::kJson) {
    auto read = arrow::json::ReadOptions::Defaults();
    read.use_threads = false;
    read.block_size = form.block_bytes;
    auto parse = arrow::json::ParseOptions::Defaults();
    parse.explicit_schema = form.expected;
    if (form.passes_over) parse.unexpected_field_behavior = arrow::json::UnexpectedFieldBehavior::Ignore;
    return arrow::json::StreamingReader::Make(std::move(stream), read, parse, context);
  }
  auto read = arrow::csv::ReadOptions::Defaults();
  read.use_threads = false;
  read.block_size = form.block_bytes;
  auto parse = arrow::csv::ParseOptions::Defaults();
  parse.newlines_in_values = true;
  if (kind == FileKind::kTsv) parse.delimiter = '\t';
  auto convert = arrow::csv::ConvertOptions::Defaults();
  if (form.expected != nullptr) {
    for (const auto& field : form.expected->fields()) convert.column_types[field->name()] = field->type();
  }
  return arrow::csv::StreamingReader::Make(context, std::move(stream), read, parse, convert);
}

class StreamedFiles final : public Source {
 public:
  StreamedFiles(FileSet files, FileKind kind, bool names_columns, IoCounters* counters)
      : files_(std::move(files)), kind_(kind), names_columns_(names_columns), counters_(counters) {}

  arrow::Status Init() {
    auto opened = OpenFile(0, first_look_, arrow::default_memory_pool(), nullptr);
    while (IsLongRow(opened.status()) && Widen(&first_look_)) {
      opened = OpenFile(0, first_look_, arrow::default_memory_pool(), nullptr);
    }
    ARROW_RETURN_NOT_OK(Explained(opened.status(), 0));
    const Reader& reader = *opened;
    own_ = reader->schema()->RemoveMetadata();
    SetSchema(*own_, files_.partition_fields, files_.files.front().path);
    return arrow::Status::OK();
  }

  bool is_counted() const override { return false; }
  int64_t known_rows() const override { return -1; }
  int64_t num_files() const override { return static_cast<int64_t>(files_.files.size()); }
  std::vector<std::string> file_names() const override { return files_.Paths(); }
  std::string_view chunk_name() const override { return "record batch"; }
  int64_t MemoryBytes() const override { return files_.MemoryBytes(); }
  arrow::Result<std::unique_ptr<InputSequence>> Open(const InputContext& context) override;
  arrow::Result<Vocabularies> ReadVocabularies(const arrow::FieldVector& fields,
                                               const std::shared_ptr<arrow::MemoryPool>& pool) override;

  std::shared_ptr<arrow::RecordBatch> LookAtFirst() override {
    std::shared_ptr<arrow::RecordBatch> batch;
    const auto reader = OpenFile(0, FormOf(nullptr), arrow::default_memory_pool(), nullptr);
    if (!reader.ok()) return nullptr;
    do {
      if (!(*reader)->ReadNext(&batch).ok()) return nullptr;
    } while (batch != nullptr && batch->num_rows() == 0);
    return batch;
  }

  const FileSet& files() const { return files_; }
  const std::string& path(size_t index) const { return files_.files[index].path; }

  /// How to parse for a projection; null: all columns.
  TextForm FormOf(const Projection* projection) const {
    TextForm form = first_look_;
    form.expected = own_;
    form.passes_over = names_columns_ && projection != nullptr;
    if (!form.passes_over) return form;
    std::vector<int> outputs(projection->outputs.size());
    std::iota(outputs.begin(), outputs.end(), 0);
    arrow::FieldVector needed;
    for (const std::string& name : NeededColumns(*projection, outputs)) needed.push_back(own_->GetFieldByName(name));
    // Without any column there would be no rows.
    if (kind_ == FileKind::kJson && !needed.empty()) form.expected = arrow::schema(std::move(needed));
    return form;
  }
  /// False where rows are as long as they may be.
  bool Widen(TextForm* form) const {
    if (form->block_bytes >= kMostBlockBytes) return false;
    form->block_bytes *= kBlockGrowth;
    return true;
  }

  /// \param keeper  of the pool: CSV and JSON are read ahead on threads of Arrow's.
  arrow::Result<Reader> OpenFile(size_t index, const TextForm& form, arrow::MemoryPool* pool,
                                 std::shared_ptr<const void> keeper) const {
    const FileEntry& entry = files_.files[index];
    ARROW_ASSIGN_OR_RAISE(auto file, OpenCounted(*files_.filesystem, entry, counters_));
    ARROW_ASSIGN_OR_RAISE(const int64_t size_bytes, file->GetSize());
    auto stream = PooledPart(std::move(file), 0, size_bytes, pool, keeper);
    return OpenReader(kind_, entry.path, std::move(stream), form, pool);
  }

  /// Why a file cannot be opened or read: what it is, and what to do.
  /// \param batch  the number of the record batch that cannot be read; -1: none.
  arrow::Status Explained(const arrow::Status& status, size_t index, int64_t batch = -1) const {
    if (status.ok()) return status;
    const std::string where = batch < 0 ? "" : ", record batch " + std::to_string(batch);
    const arrow::Status named = text::WithContext(WithRemedy(status, kind_), text::Quoted(path(index)) + where);
    return OrMixed(OrMisnamed(named, files_, index, kind_, counters_), files_, index, kind_, counters_);
  }

 private:
  const FileSet files_;
  const FileKind kind_;
  const bool names_columns_;
  IoCounters* const counters_;
  TextForm first_look_;                 // Wide enough for the first rows.
  std::shared_ptr<arrow::Schema> own_;  // Of the first file; null until it is known.
};

/// The batches of all files, one after the other. Where the budget refuses memory the file is opened again, and read on
/// from where it stood when it is asked for the next time.
class StreamedSequence final : public InputSequence {
 public:
  StreamedSequence(const StreamedFiles* source, InputContext context)
      : source_(source),
        context_(std::move(context)),
        form_(source->FormOf(context_.projection)),
        pool_(ReservedPool::TryMake(context_.ledger, 0, Account::kDecode)) {}

  arrow::Result<std::shared_ptr<const Input>> Next() override {
    while (file_ < source_->files().files.size()) {
      auto batch = NextOfFile();
      if (!batch.ok()) {
        reader_.reset();
        if (IsLongRow(batch.status()) && source_->Widen(&form_)) continue;
        return source_->Explained(batch.status(), file_, num_given_);
      }
      if (*batch != nullptr) return ToInput(std::move(*batch));
      reader_.reset();
      ++file_;
      num_given_ = num_rows_given_ = 0;
    }
    return nullptr;
  }
  int64_t next_pulled_bytes() const override { return kParseCopies * form_.block_bytes; }

 private:
  arrow::Result<std::shared_ptr<arrow::RecordBatch>> NextOfFile() {
    std::shared_ptr<arrow::RecordBatch> batch;
    if (reader_ == nullptr) {
      ARROW_ASSIGN_OR_RAISE(reader_, source_->OpenFile(file_, form_, pool_.get(), pool_));
      // By rows: batches are others where blocks are.
      for (int64_t rows = 0; rows < num_rows_given_;) {
        ARROW_RETURN_NOT_OK(reader_->ReadNext(&batch));
        if (batch == nullptr) return arrow::Status::IOError("has fewer rows than before");
        const int64_t given = std::min(batch->num_rows(), num_rows_given_ - rows);
        rows += given;
        if (given < batch->num_rows()) return batch->Slice(given);
      }
    }
    ARROW_RETURN_NOT_OK(reader_->ReadNext(&batch));
    return batch;
  }

  arrow::Result<std::shared_ptr<const Input>> ToInput(std::shared_ptr<arrow::RecordBatch> batch) {
    BatchInputParts parts;
    parts.batches = {std::move(batch)};
    parts.prefix = text::Quoted(source_->path(file_)) + ", record batch ";
    parts.first_number = num_given_++;
    parts.file_index = static_cast<int64_t>(file_);
    parts.begin_row = num_rows_given_;
    num_rows_given_ += parts.batches.front()->num_rows();
    parts.partition_values = source_->files().files[file_].partition_values;
    parts.pool = pool_;
    return MakeBatchInput(std::move(parts), context_);
  }

  const StreamedFiles* source_;
  const InputContext context_;
  TextForm form_;
  const std::shared_ptr<ReservedPool> pool_;  // Of all that the readers hold and give.
  size_t file_ = 0;
  Reader reader_;
  int64_t num_given_ = 0;       // Batches of the file...
  int64_t num_rows_given_ = 0;  // ... and their rows.
};

// Those of the first batch of each file: what follows could only be known by reading all of it.
arrow::Result<Vocabularies> StreamedFiles::ReadVocabularies(const arrow::FieldVector& fields,
                                                            const std::shared_ptr<arrow::MemoryPool>& pool) {
  if (fields.empty()) return Vocabularies{};
  ARROW_ASSIGN_OR_RAISE(auto unified, UnifiedDictionaries::Make(fields, pool.get()));
  for (size_t i = 0; i < files_.files.size(); ++i) {
    auto reader = OpenFile(i, FormOf(nullptr), pool.get(), pool);
    ARROW_RETURN_NOT_OK(Explained(reader.status(), i));
    std::shared_ptr<arrow::RecordBatch> batch;
    arrow::Status read = (*reader)->ReadNext(&batch);
    if (read.ok() && batch != nullptr) read = unified.Add(*batch);
    ARROW_RETURN_NOT_OK(Explained(read, i, 0));
  }
  return unified.Finish();
}

arrow::Result<std::unique_ptr<InputSequence>> StreamedFiles::Open(const InputContext& context) {
  return std::make_unique<StreamedSequence>(this, context);
}

}  // namespace

arrow::Result<std::unique_ptr<Source>> MakeStreamedFilesSource(FileSet files, FileKind kind, bool names_columns,
                                                               IoCounters* counters) {
  auto source = std::make_unique<StreamedFiles>(std::move(files), kind, names_columns, counters);
  ARROW_RETURN_NOT_OK(source->Init());
  return source;
}

}  // namespace penstock
