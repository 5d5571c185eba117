#include <arrow/array/array_dict.h>
#include <arrow/io/interfaces.h>
#include <arrow/ipc/dictionary.h>
#include <arrow/ipc/message.h>
#include <arrow/ipc/reader.h>
#include <arrow/record_batch.h>
#include <arrow/type.h>
#include <arrow/type_traits.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "ops/hash.h"
#include "source/batch_input.h"
#include "source/constant_column.h"
#include "source/counting_file.h"
#include "source/file_sources.h"
#include "source/ipc_footer.h"
#include "source/pooled_file.h"
#include "source/prune.h"
#include "source/row_group_reader.h"
#include "source/row_sample.h"
#include "source/text.h"
#include "source/unified_dictionaries.h"

namespace penstock {
namespace {

namespace ipc = arrow::ipc;

// What text and lists take unpacked, over what they take compressed. A guess; the pool holds the truth.
constexpr int64_t kUnpackRatio = 3;
constexpr int64_t kMostUnpackRatio = 1000;

bool HasDictionary(const arrow::DataType& type) {
  if (type.id() == arrow::Type::DICTIONARY) return true;
  if (type.id() == arrow::Type::EXTENSION) {
    return HasDictionary(*static_cast<const arrow::ExtensionType&>(type).storage_type());
  }
  return std::ranges::any_of(type.fields(), [](const auto& field) { return HasDictionary(*field->type()); });
}

/// One Arrow IPC file: where its record batches are, and its dictionaries.
struct IpcFile {
  FileEntry entry;
  std::shared_ptr<arrow::io::RandomAccessFile> file;
  std::shared_ptr<arrow::Schema> schema;
  std::vector<IpcBlock> blocks;

  std::string name() const { return text::Quoted(entry.path); }
  int64_t MemoryBytes() const {
    constexpr int64_t kFileBytes = 4000, kFieldBytes = 1000, kBatchBytes = sizeof(IpcBlock) + sizeof(IpcBatchHeader);
    return kFileBytes + kFieldBytes * schema->num_fields() + kBatchBytes * static_cast<int64_t>(blocks.size());
  }
};

arrow::Status OpenInto(arrow::fs::FileSystem& fs, IoCounters* counters, IpcFile* out) {
  ARROW_ASSIGN_OR_RAISE(out->file, OpenCounted(fs, out->entry, counters));
  ARROW_ASSIGN_OR_RAISE(const int64_t size_bytes, out->file->GetSize());
  ARROW_ASSIGN_OR_RAISE(out->blocks, ReadIpcBlocks(*out->file, size_bytes));
  ipc::IpcReadOptions options;
  options.use_threads = false;
  options.ensure_native_endian = false;
  ARROW_ASSIGN_OR_RAISE(const auto reader, ipc::RecordBatchFileReader::Open(out->file, options));
  out->schema = reader->schema()->RemoveMetadata();
  if (!out->schema->is_native_endian()) {
    return arrow::Status::Invalid("was written on a machine of another byte order; write it again on this one");
  }
  if (reader->num_record_batches() != static_cast<int>(out->blocks.size())) {
    return arrow::Status::Invalid("the file is damaged: its footer's list of record batches");
  }
  return arrow::Status::OK();
}

arrow::Result<std::shared_ptr<const IpcFile>> OpenIpc(arrow::fs::FileSystem& fs, const FileEntry& entry,
                                                      IoCounters* counters) {
  auto file = std::make_shared<IpcFile>();
  file->entry = entry;
  const arrow::Status opened = OpenInto(fs, counters, file.get());
  ARROW_RETURN_NOT_OK(text::WithContext(opened, file->name()));
  return file;
}

/// The columns `fields` of one record batch, read the way that knows dictionaries. In a file all of them (and what
/// later messages add to them) come before every batch, so that any batch has them whole.
arrow::Result<std::shared_ptr<arrow::RecordBatch>> ReadWithDictionaries(
    const IpcFile& file, std::vector<int> fields, int batch, const std::shared_ptr<arrow::MemoryPool>& pool) {
  ARROW_ASSIGN_OR_RAISE(const int64_t size_bytes, file.file->GetSize());
  ipc::IpcReadOptions options;
  options.memory_pool = pool.get();
  options.use_threads = false;
  options.included_fields = std::move(fields);
  ARROW_ASSIGN_OR_RAISE(
      auto reader, ipc::RecordBatchFileReader::Open(PooledPart(file.file, 0, size_bytes, pool.get(), pool), options));
  return reader->ReadRecordBatch(batch);
}

class IpcInput final : public Input, public std::enable_shared_from_this<IpcInput> {
 public:
  static arrow::Result<std::shared_ptr<const Input>> Open(std::shared_ptr<const IpcFile> file, size_t index,
                                                          const InputContext& context) {
    const int64_t bytes = file->MemoryBytes();
    if (!context.ledger->TryAdd(Account::kMetadata, bytes)) {
      return arrow::Status::OutOfMemory(file->name(), ": the list of record batches takes ", bytes,
                                        " bytes of memory, more than memory_budget has room for; raise memory_budget "
                                        "by that much");
    }
    auto input = std::make_shared<IpcInput>(std::move(file), context, bytes);
    ARROW_RETURN_NOT_OK(CheckSchema(*context.projection, *input->file_->schema, input->file_->name()));
    input->file_index_ = static_cast<int64_t>(index);
    ARROW_RETURN_NOT_OK(input->Init(context));
    return input;
  }

  IpcInput(std::shared_ptr<const IpcFile> file, const InputContext& context, int64_t bytes)
      : ledger_(context.ledger), bytes_(bytes), file_(std::move(file)) {}
  ~IpcInput() override {
    file_.reset();
    ledger_->Sub(Account::kMetadata, bytes_);
  }
  IpcInput(const IpcInput&) = delete;
  IpcInput& operator=(const IpcInput&) = delete;

  int num_chunks() const override { return static_cast<int>(file_->blocks.size()); }
  int64_t rows(int chunk) const override { return header(chunk).rows; }
  std::string Where(int chunk) const override { return file_->name() + ", record batch " + std::to_string(chunk); }
  const arrow::ScalarVector& partition_values() const override { return file_->entry.partition_values; }
  uint64_t digest() const override { return digest_; }
  int64_t metadata_bytes() const override { return bytes_; }
  arrow::Result<bool> MayMatch(const Projection& projection, int) const override {
    return penstock::MayMatch(projection, file_->entry.partition_values);
  }

  int64_t DirectBytes(const Projection&, int) const override { return 0; }
  // A record batch is decoded whole: its arrays, what they are unpacked from, and what the filter copies.
  int64_t PieceBytes(const Projection& projection, int chunk, int64_t rows) const override {
    const int64_t decoded = DecodedBytes(chunk);
    const int64_t packed = header(chunk).is_compressed ? block(chunk).body_bytes : 0;
    const int64_t copied = !projection.selects_rows() ? 0 : decoded / this->rows(chunk) * rows + rows * 8;
    const int64_t constants = ConstantArrayBytes(projection, partition_values(), rows);
    return decoded + packed + copied + constants + block(chunk).metadata_bytes;
  }
  int64_t DecodedBytes(int chunk) const override {
    // Overstated numbers of rows are found when the batch is read.
    const int64_t most = block(chunk).body_bytes * (header(chunk).is_compressed ? kMostUnpackRatio : 1);
    return std::min(most, header(chunk).rows * needed_row_bytes_) + VaryingBytes(chunk);
  }
  int64_t StoredBytes(int, const std::string&) const override { return 0; }

  int64_t ArenaBytes(const Projection& projection, int chunk) const override {
    return VaryingBytes(chunk) + ConstantArenaBytes(projection, partition_values(), rows(chunk));
  }

  arrow::Result<std::unique_ptr<PieceReader>> OpenPieces(const Projection& projection, int chunk,
                                                         std::vector<int> outputs, std::shared_ptr<ReservedPool> pool,
                                                         int64_t piece_rows, int64_t skip_rows) const override {
    std::vector<int> fields;
    for (const std::string& name : NeededColumns(projection, outputs)) {
      fields.push_back(file_->schema->GetFieldIndex(name));
    }
    const auto load = [this, chunk, fields](const std::shared_ptr<arrow::MemoryPool>& batch_pool) {
      return Load(chunk, fields, batch_pool);
    };
    const uint64_t sample_key = projection.sample ? SampleKey(*projection.sample, file(), begin_row(), chunk) : 0;
    return OpenBatchPieces(load, Where(chunk), shared_from_this(), projection, outputs, partition_values(),
                           std::move(pool), piece_rows, skip_rows, sample_key);
  }
  arrow::Result<std::unique_ptr<DirectReader>> OpenDirect(const Projection&, int chunk, std::vector<int>,
                                                          std::shared_ptr<ReservedPool>, int64_t) const override {
    return arrow::Status::Invalid(Where(chunk), ": is not decoded directly");
  }

 private:
  const IpcBatchHeader& header(int chunk) const { return headers_[static_cast<size_t>(chunk)]; }
  const IpcBlock& block(int chunk) const { return file_->blocks[static_cast<size_t>(chunk)]; }

  // What the columns of fixed width leave of the body.
  int64_t VaryingBytes(int chunk) const {
    if (!needs_varying_) return 0;
    const int64_t rest = std::max<int64_t>(0, block(chunk).body_bytes - header(chunk).rows * all_row_bytes_);
    return rest * (header(chunk).is_compressed ? kUnpackRatio : 1);
  }

  arrow::Status Init(const InputContext& context) {
    read_plan_ = PlanThroughArrow(*context.projection);
    std::vector<int> needed;
    for (const std::string& name : NeededColumns(*context.projection, read_plan_.through_arrow)) {
      needed.push_back(file_->schema->GetFieldIndex(name));
    }
    for (int i = 0; i < file_->schema->num_fields(); ++i) {
      const auto& type = file_->schema->field(i)->type();
      const bool is_needed = std::ranges::find(needed, i) != needed.end();
      if (is_needed && HasDictionary(*type))
        (type->id() == arrow::Type::DICTIONARY ? dictionaries_ : nested_).push_back(i);
      const int64_t bits = arrow::is_fixed_width(type->id()) && type->bit_width() > 0 ? type->bit_width() : 0;
      all_row_bytes_ += (bits + 7) / 8;
      if (is_needed) needed_row_bytes_ += (bits + 7) / 8 + 1;
      needs_varying_ = needs_varying_ || (is_needed && bits == 0);
    }
    for (int i = 0; i < num_chunks(); ++i) {
      ARROW_ASSIGN_OR_RAISE(const auto metadata, Metadata(i));
      auto parsed = ParseIpcBatchHeader(*metadata);
      ARROW_RETURN_NOT_OK(text::WithContext(parsed.status(), Where(i)));
      digest_ = Hash64(std::to_string(digest_) + '\n' + std::string(std::string_view(*metadata)));
      headers_.push_back(*parsed);
    }
    return dictionaries_.empty() || headers_.empty() ? arrow::Status::OK() : ReadDictionaries();
  }

  arrow::Result<std::shared_ptr<arrow::Buffer>> Metadata(int chunk) const {
    auto metadata = ReadIpcMetadata(*file_->file, block(chunk));
    ARROW_RETURN_NOT_OK(text::WithContext(metadata.status(), Where(chunk)));
    return metadata;
  }

  arrow::Status ReadDictionaries() {
    pool_ = ReservedPool::TryMake(ledger_, 0, Account::kMetadata);
    auto batch = ReadWithDictionaries(*file_, dictionaries_, 0, pool_);
    ARROW_RETURN_NOT_OK(text::WithContext(batch.status(), file_->name() + ": reading the dictionaries"));
    memo_.emplace();
    ARROW_RETURN_NOT_OK(memo_->fields().AddSchemaFields(*file_->schema));
    for (int i = 0; i < (*batch)->num_columns(); ++i) {
      const auto& dictionary = static_cast<const arrow::DictionaryArray&>(*(*batch)->column(i)).dictionary();
      ARROW_RETURN_NOT_OK(
          text::WithContext(dictionary->ValidateFull(),
                            file_->name() + ", column " + text::Quoted((*batch)->column_name(i)) + ": its dictionary"));
      ARROW_ASSIGN_OR_RAISE(const int64_t id, memo_->fields().GetFieldId({dictionaries_[static_cast<size_t>(i)]}));
      ARROW_RETURN_NOT_OK(memo_->AddDictionary(id, dictionary->data()));
    }
    return arrow::Status::OK();
  }

  // The needed columns alone are read, buffer by buffer.
  arrow::Result<std::shared_ptr<arrow::RecordBatch>> Load(int chunk, const std::vector<int>& fields,
                                                          const std::shared_ptr<arrow::MemoryPool>& pool) const {
    if (!nested_.empty()) return ReadWithDictionaries(*file_, {}, chunk, pool);
    ARROW_ASSIGN_OR_RAISE(const auto metadata, ReadIpcMetadata(*file_->file, block(chunk)));
    ARROW_ASSIGN_OR_RAISE(const IpcBatchHeader now, ParseIpcBatchHeader(*metadata));
    if (now.rows != header(chunk).rows) return arrow::Status::IOError("has changed since the file was opened");
    if (fields.empty()) return arrow::RecordBatch::Make(arrow::schema({}), now.rows, arrow::ArrayVector{});
    ipc::IpcReadOptions options;
    options.memory_pool = pool.get();
    options.use_threads = false;
    options.included_fields = fields;
    const auto body =
        PooledPart(file_->file, block(chunk).offset + block(chunk).metadata_bytes, block(chunk).body_bytes, pool.get());
    return ipc::ReadRecordBatch(*metadata, file_->schema, memo_ ? &*memo_ : &kNoDictionaries, options, body.get());
  }

  inline static const ipc::DictionaryMemo kNoDictionaries;

  const std::shared_ptr<Ledger> ledger_;
  const int64_t bytes_;
  std::shared_ptr<const IpcFile> file_;
  std::vector<IpcBatchHeader> headers_;
  uint64_t digest_ = 0;                               // Of the headers.
  std::vector<int> dictionaries_, nested_;            // Of these: dictionaries, and what has them inside.
  int64_t all_row_bytes_ = 0, needed_row_bytes_ = 0;  // Of the columns of fixed width.
  bool needs_varying_ = false;
  std::shared_ptr<ReservedPool> pool_;  // Of the dictionaries.
  std::optional<ipc::DictionaryMemo> memo_;
};

class IpcSequence final : public InputSequence {
 public:
  IpcSequence(const FileSet* files, InputContext context, IoCounters* counters)
      : files_(files), context_(std::move(context)), counters_(counters) {}

  arrow::Result<std::shared_ptr<const Input>> Next() override {
    if (next_ == files_->files.size()) return nullptr;
    auto file = OpenIpc(*files_->filesystem, files_->files[next_], counters_);
    ARROW_RETURN_NOT_OK(OrMixed(file.status(), *files_, next_, FileKind::kIpcFile, counters_));
    ARROW_ASSIGN_OR_RAISE(auto input, IpcInput::Open(std::move(*file), next_, context_));
    ++next_;
    return input;
  }
  arrow::Status Skip(int64_t inputs) override {
    next_ = std::min(files_->files.size(), next_ + static_cast<size_t>(inputs));
    return arrow::Status::OK();
  }

 private:
  const FileSet* files_;
  const InputContext context_;
  IoCounters* const counters_;
  size_t next_ = 0;
};

class IpcSource final : public Source {
 public:
  IpcSource(FileSet files, IoCounters* counters) : files_(std::move(files)), counters_(counters) {}

  arrow::Status Init() {
    ARROW_ASSIGN_OR_RAISE(const auto first, OpenIpc(*files_.filesystem, files_.files.front(), counters_));
    SetSchema(*first->schema, files_.partition_fields, first->entry.path);
    return arrow::Status::OK();
  }

  bool is_counted() const override { return true; }
  int64_t known_rows() const override { return -1; }
  int64_t num_files() const override { return static_cast<int64_t>(files_.files.size()); }
  std::vector<std::string> file_names() const override { return files_.Paths(); }
  DataFingerprint fingerprint() const override { return files_.Fingerprint(); }
  std::string_view chunk_name() const override { return "record batch"; }
  int64_t MemoryBytes() const override { return files_.MemoryBytes(); }

  arrow::Result<std::unique_ptr<InputSequence>> Open(const InputContext& context) override {
    return std::make_unique<IpcSequence>(&files_, context, counters_);
  }

  arrow::Result<Vocabularies> ReadVocabularies(const arrow::FieldVector& fields,
                                               const std::shared_ptr<arrow::MemoryPool>& pool) override {
    ARROW_ASSIGN_OR_RAISE(auto unified, UnifiedDictionaries::Make(fields, pool.get()));
    if (fields.empty()) return Vocabularies{};
    for (const FileEntry& entry : files_.files) {
      ARROW_ASSIGN_OR_RAISE(const auto file, OpenIpc(*files_.filesystem, entry, counters_));
      std::vector<int> positions;
      for (const auto& field : fields) {
        ARROW_RETURN_NOT_OK(CheckColumn(*file->schema, file->name(), *field));
        positions.push_back(file->schema->GetFieldIndex(field->name()));
      }
      if (file->blocks.empty()) continue;
      auto batch = ReadWithDictionaries(*file, std::move(positions), 0, pool);
      ARROW_RETURN_NOT_OK(text::WithContext(batch.status(), file->name() + ": reading the dictionaries"));
      ARROW_RETURN_NOT_OK(text::WithContext(unified.Add(**batch), file->name()));
    }
    return unified.Finish();
  }

 private:
  const FileSet files_;
  IoCounters* const counters_;
};

}  // namespace

arrow::Result<std::unique_ptr<Source>> MakeIpcSource(FileSet files, IoCounters* counters) {
  auto source = std::make_unique<IpcSource>(std::move(files), counters);
  ARROW_RETURN_NOT_OK(source->Init());
  return source;
}

}  // namespace penstock
