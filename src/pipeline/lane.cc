#include "pipeline/lane.h"

#include <arrow/util/byte_size.h>

#include <algorithm>
#include <numeric>

namespace penstock {
namespace {

constexpr size_t kMaxStreams = 8;

std::unique_ptr<Lane> NewLane(Chunk* chunk, Lane::Kind kind, int64_t* next_number) {
  auto lane = std::make_unique<Lane>();
  lane->kind = kind;
  lane->chunk = chunk;
  lane->number = (*next_number)++;
  lane->begin_row = chunk->begin_row;
  lane->next_row = chunk->begin_row + chunk->spec.first_row;
  lane->end_row = chunk->begin_row + chunk->end_row;
  return lane;
}

}  // namespace

Block::Block(std::shared_ptr<ReservedPool> from, PieceReader::Piece decoded)
    : pool(std::move(from)), piece(std::move(decoded)) {
  int64_t held = arrow::util::TotalBufferSize(*piece.rows);
  if (piece.row_numbers != nullptr) held += arrow::util::TotalBufferSize(*piece.row_numbers);
  if (piece.documents != nullptr) held += arrow::util::TotalBufferSize(*piece.documents);
  bytes = std::min(held, pool->bytes_allocated());
  pool->MoveToBlocks(bytes);
}

Block::~Block() {
  pool->MoveFromBlocks(bytes);
  piece = {};
}

bool Chunk::is_done() const {
  return lanes.empty() && std::all_of(streams.begin(), streams.end(), [](const PieceStream& stream) {
           return stream.is_done && !stream.is_in_flight && stream.unplaced.empty();
         });
}

int NumStreams(const Projection& projection) {
  if (projection.discovers_rows()) return 1;
  return static_cast<int>(std::clamp<size_t>(projection.outputs.size(), 1, kMaxStreams));
}

std::vector<PieceStream> MakeStreams(const Chunk& chunk, const Projection& projection, int64_t piece_rows) {
  const std::vector<int>& outputs = chunk.spec.input->read_plan().through_arrow;
  std::vector<PieceStream> streams(static_cast<size_t>(NumStreams(projection)));
  for (size_t i = 0; i < streams.size(); ++i) {
    streams[i].number = static_cast<int>(i);
    streams[i].piece_rows = streams[i].whole_piece_rows = piece_rows;
    streams[i].next_row = chunk.spec.first_row;
  }
  // By position: a column is in the same stream in every row group, whatever the others' way there.
  for (int output : outputs) streams[static_cast<size_t>(output) % streams.size()].outputs.push_back(output);
  for (PieceStream& stream : streams) stream.is_done = stream.outputs.empty() && !projection.discovers_rows();
  return streams;
}

std::vector<std::unique_ptr<Lane>> MakeLanes(Chunk* chunk, const Projection& projection, int64_t direct_bytes,
                                             int64_t* next_number) {
  std::vector<std::unique_ptr<Lane>> lanes;
  const Input& input = *chunk->spec.input;
  const ReadPlan& plan = input.read_plan();

  const auto columns = static_cast<int64_t>(plan.direct.size());
  const int64_t rows = chunk->end_row - chunk->spec.first_row;
  const int64_t num_lanes = NumDirectReaders(columns, rows);
  for (int64_t i = 0; i < num_lanes; ++i) lanes.push_back(NewLane(chunk, Lane::Kind::kDirect, next_number));

  std::vector<int64_t> weights(plan.direct.size());
  for (size_t i = 0; i < weights.size(); ++i) {
    const OutputColumn& output = projection.outputs[static_cast<size_t>(plan.direct[i])];
    weights[i] = input.StoredBytes(chunk->spec.index, output.input) + rows * output.field.row_bytes();
  }
  std::vector<size_t> order(weights.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return weights[a] > weights[b]; });
  for (size_t i : order) {  // The heaviest column first, always to the lightest lane.
    Lane& lightest = **std::min_element(lanes.begin(), lanes.end(), [](auto& a, auto& b) { return a->cost < b->cost; });
    lightest.outputs.push_back(plan.direct[i]);
    lightest.cost += weights[i];
  }
  for (const auto& lane : lanes) lane->promise_bytes = direct_bytes / num_lanes;
  if (!plan.constant.empty()) {
    lanes.push_back(NewLane(chunk, Lane::Kind::kConstant, next_number));
    lanes.back()->constants = plan.constant;
  }
  return lanes;
}

}  // namespace penstock
