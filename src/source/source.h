#pragma once

#include <arrow/result.h>
#include <arrow/type_fwd.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "penstock/ledger.h"
#include "penstock/options.h"
#include "penstock/state.h"
#include "source/input.h"
#include "source/io_counters.h"

namespace penstock {

/// Values of dictionary columns, by column.
using Vocabularies = std::map<std::string, std::shared_ptr<arrow::Array>>;

/// The inputs of one epoch, in order, each opened when it is asked for.
///
/// Threads: one at a time. Blocking: opens files, runs the user's iterable.
class InputSequence {
 public:
  virtual ~InputSequence() = default;
  /// The next one; null after the last. OutOfMemory where the budget has no room for what must be held while it is
  /// open; ask again when something was freed. Other errors name the input.
  virtual arrow::Result<std::shared_ptr<const Input>> Next() = 0;
  /// Passes over the next `inputs` inputs; by default opens them. No errors where there are fewer.
  virtual arrow::Status Skip(int64_t inputs);
  /// What the next input is likely to have charged when it is seen; 0 where nothing is.
  virtual int64_t next_pulled_bytes() const { return 0; }
  /// Likewise, of the account `store`.
  virtual int64_t next_store_bytes() const { return 0; }
};

/// What an epoch's inputs are opened for. What it points to must outlive the sequence and its inputs.
struct InputContext {
  const Projection* projection = nullptr;
  std::shared_ptr<Ledger> ledger;
  bool use_direct_decode = true;
};

/// Where the rows come from: a set of files, a table, a stream.
///
/// Ownership: of the loader. Threads: Open() from one at a time; sequences are independent of each other.
class Source {
 public:
  virtual ~Source() = default;

  /// Of all columns: the first input's, then the partition fields (which win over a column of the same name).
  const std::shared_ptr<arrow::Schema>& schema() const { return schema_; }
  int num_partitions() const { return num_partitions_; }
  /// What the schema was read from, for messages: a path.
  const std::string& name() const { return name_; }

  /// True where row counts are known without reading data.
  virtual bool is_counted() const = 0;
  /// True where there can be one epoch alone.
  virtual bool is_one_shot() const { return false; }
  /// Rows of an epoch where that is known by now; else -1.
  virtual int64_t known_rows() const = 0;
  virtual int64_t num_files() const = 0;
  /// Their paths, as the file system knows them; none where there are no files.
  virtual std::vector<std::string> file_names() const { return {}; }
  /// What is known of it without opening all inputs: `num_footers` is 0.
  virtual DataFingerprint fingerprint() const { return {}; }
  /// "row group", "record batch".
  virtual std::string_view chunk_name() const = 0;
  /// Held for as long as the source, in bytes.
  virtual int64_t MemoryBytes() const = 0;

  /// Starts an epoch (or a look ahead, where the source is counted). Invalid where a one-shot source was started
  /// before.
  virtual arrow::Result<std::unique_ptr<InputSequence>> Open(const InputContext& context) = 0;

  /// The first rows, where nothing is known without reading: to see how large they are. They are not lost to the first
  /// epoch, before which this may be called. Null where there is none or it cannot be read (which then shows when it is
  /// its turn).
  virtual std::shared_ptr<arrow::RecordBatch> LookAtFirst() { return nullptr; }

  /// The values of dictionary columns over all inputs, each value once, in order of first appearance.
  /// \param fields  of dictionary type, all in schema().
  virtual arrow::Result<Vocabularies> ReadVocabularies(const arrow::FieldVector& fields,
                                                       const std::shared_ptr<arrow::MemoryPool>& pool) = 0;

 protected:
  /// Sets schema(): `own` without what a partition field replaces, then the partition fields.
  void SetSchema(const arrow::Schema& own, const arrow::FieldVector& partition_fields, std::string name);
  void TakeSchema(const Source& other) {
    schema_ = other.schema_;
    num_partitions_ = other.num_partitions_;
    name_ = other.name_;
  }

 private:
  std::shared_ptr<arrow::Schema> schema_;
  int num_partitions_ = 0;
  std::string name_;
};

/// The source that `options` name. Finds the files and reads the first one's metadata.
/// \param counters  must outlive the source.
arrow::Result<std::unique_ptr<Source>> MakeSource(const LoaderOptions& options, IoCounters* counters);

}  // namespace penstock
