#include "plan/catalog.h"

#include <algorithm>
#include <array>

#include "ops/hash.h"
#include "source/text.h"

namespace penstock {

void InputsDigest::Add(uint64_t digest) {
  const std::array<uint64_t, 2> link = {chain_, digest};
  chain_ = Hash64(std::string_view(reinterpret_cast<const char*>(link.data()), sizeof link));
  ++num_inputs_;
}

std::string InputsDigest::Text() const { return text::Hex(chain_); }

arrow::Result<std::shared_ptr<const Catalog>> Catalog::Read(InputSequence& inputs, std::shared_ptr<Ledger> ledger,
                                                            const CountRows& count) {
  std::shared_ptr<Catalog> catalog(new Catalog(std::move(ledger)));
  while (true) {
    ARROW_ASSIGN_OR_RAISE(const auto input, inputs.Next());
    if (input == nullptr) return catalog;
    ARROW_RETURN_NOT_OK(catalog->Add(*input, count));
  }
}

Catalog::~Catalog() { ledger_->Sub(Account::kMetadata, charged_bytes_); }

// Vectors grow by half, and what they are copied from is there as well meanwhile.
arrow::Status Catalog::MakeRoom(size_t chunks) {
  const size_t wanted = begin_rows_.size() + chunks;
  const bool is_input_full = first_chunks_.size() == first_chunks_.capacity();
  if (wanted <= begin_rows_.capacity() && !is_input_full) return arrow::Status::OK();
  const size_t rows_room = std::max(wanted, begin_rows_.capacity() + begin_rows_.capacity() / 2);
  const size_t inputs_room = first_chunks_.capacity() + first_chunks_.capacity() / 2 + 8;
  const auto bytes = static_cast<int64_t>((rows_room + 2 * inputs_room) * sizeof(int64_t));
  if (!ledger_->TryAdd(Account::kMetadata, bytes)) {
    return arrow::Status::OutOfMemory("the list of all chunks takes ", bytes, " bytes for the first ", num_chunks(),
                                      " of them, more than memory_budget has room for; raise memory_budget");
  }
  begin_rows_.reserve(rows_room);
  first_chunks_.reserve(inputs_room);
  digests_.reserve(inputs_room);
  ledger_->Sub(Account::kMetadata, charged_bytes_);
  charged_bytes_ = bytes;
  return arrow::Status::OK();
}

arrow::Status Catalog::Add(const Input& input, const CountRows& count) {
  ARROW_RETURN_NOT_OK(MakeRoom(static_cast<size_t>(input.num_chunks())));
  first_chunks_.push_back(num_chunks());
  digests_.push_back(input.digest());
  for (int chunk = 0; chunk < input.num_chunks(); ++chunk) {
    int64_t rows = input.rows(chunk);
    if (count != nullptr && rows > 0) {
      ARROW_ASSIGN_OR_RAISE(rows, count(input, chunk));
    }
    begin_rows_.push_back(num_rows() + rows);
  }
  return arrow::Status::OK();
}

Catalog::Chunk Catalog::chunk(int64_t number) const {
  const auto input = std::upper_bound(first_chunks_.begin(), first_chunks_.end(), number) - 1;
  const auto at = begin_rows_.begin() + number;
  return {input - first_chunks_.begin(), static_cast<int>(number - *input), *at, *(at + 1)};
}

int64_t Catalog::ChunkAt(int64_t row) const {
  return std::upper_bound(begin_rows_.begin(), begin_rows_.end(), row) - begin_rows_.begin() - 1;
}

std::string Catalog::Digest(int64_t num_inputs) const {
  InputsDigest digest;
  for (int64_t i = 0; i < std::min(num_inputs, this->num_inputs()); ++i) digest.Add(digests_[static_cast<size_t>(i)]);
  return digest.Text();
}

}  // namespace penstock
