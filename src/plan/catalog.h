#pragma once

#include <arrow/result.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "penstock/ledger.h"
#include "source/source.h"

namespace penstock {

/// The digest of inputs' metadata, from the first input on.
class InputsDigest {
 public:
  void Add(uint64_t digest);
  int64_t num_inputs() const { return num_inputs_; }
  std::string Text() const;

 private:
  int64_t num_inputs_ = 0;
  uint64_t chain_ = 0;
};

/// Which rows of the data set lie in which chunk. Sixteen bytes per chunk and input, charged as metadata; made where
/// shuffle, ranks, a resume or len() need it, which then open every input once.
///
/// Threads: any, once it is made. Blocking: Read() opens all inputs.
class Catalog {
 public:
  struct Chunk {
    int64_t input = 0;  ///< Position in the source's sequence.
    int index = 0;      ///< In its input.
    int64_t begin_row = 0;
    int64_t end_row = 0;
  };
  /// Rows of a chunk that count; or what counts in their place, as items of lists that are packed.
  using CountRows = std::function<arrow::Result<int64_t>(const Input& input, int chunk)>;

  /// OutOfMemory where the budget has no room for it.
  /// \param count  by default all rows.
  static arrow::Result<std::shared_ptr<const Catalog>> Read(InputSequence& inputs, std::shared_ptr<Ledger> ledger,
                                                            const CountRows& count = {});
  ~Catalog();
  Catalog(const Catalog&) = delete;
  Catalog& operator=(const Catalog&) = delete;

  int64_t num_rows() const { return begin_rows_.back(); }
  int64_t num_chunks() const { return static_cast<int64_t>(begin_rows_.size()) - 1; }
  int64_t num_inputs() const { return static_cast<int64_t>(first_chunks_.size()); }
  /// In the order of the data, empty ones among them.
  Chunk chunk(int64_t number) const;
  /// The number of the chunk that `row` of [0, num_rows()) lies in.
  int64_t ChunkAt(int64_t row) const;
  /// InputsDigest::Text() of the first `num_inputs` inputs.
  std::string Digest(int64_t num_inputs) const;

 private:
  explicit Catalog(std::shared_ptr<Ledger> ledger) : ledger_(std::move(ledger)) {}
  arrow::Status Add(const Input& input, const CountRows& count);
  arrow::Status MakeRoom(size_t chunks);

  const std::shared_ptr<Ledger> ledger_;
  std::vector<int64_t> begin_rows_ = {0};  // One more than there are chunks.
  std::vector<int64_t> first_chunks_;      // By input.
  std::vector<uint64_t> digests_;          // By input.
  int64_t charged_bytes_ = 0;
};

}  // namespace penstock
