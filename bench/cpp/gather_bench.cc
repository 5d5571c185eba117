// What taking the rows of a shuffle's window in random order costs: from columns, and from records.
#include <benchmark/benchmark.h>

#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "penstock/ledger.h"
#include "pipeline/gather.h"
#include "pipeline/records.h"
#include "plan/permutation.h"

namespace penstock {
namespace {

constexpr int64_t kWindowBytes = int64_t{24} << 20;
constexpr int64_t kSlabBytes = int64_t{1} << 20;
constexpr int64_t kStripRows = 2048;

/// A window of int64 columns, in slabs, and a slot of a strip.
class Window {
 public:
  explicit Window(int num_columns)
      : schema_(MakeSchema(num_columns)),
        slab_rows_(kSlabBytes / (8 * num_columns)),
        rows_(kWindowBytes / (8 * num_columns)),
        slab_layout_(schema_, slab_rows_, 1, 0),
        strip_layout_(schema_, kStripRows, 1, 0) {
    const int64_t num_slabs = rows_ / slab_rows_ + 1;
    const auto region = SlotRegion::Map(slab_layout_.bytes(), num_slabs).ValueOrDie();
    pool_ = std::make_shared<RecordPool>(*RecordLayout::Of(*schema_), slab_rows_, num_slabs,
                                         std::make_shared<Ledger>(4 * kWindowBytes));
    strip_ = SlotMemory::Map(strip_layout_.bytes()).ValueOrDie();
    for (int64_t slab = 0; slab < num_slabs; ++slab) {
      auto memory = std::make_shared<SlotMemory>(region->Take().ValueOrDie());
      std::memset(memory->data(), 1, static_cast<size_t>(memory->bytes()));
      const auto batch = [&] { return slab_layout_.View(memory->data(), nullptr, 0, slab_rows_, memory); };
      columns_.push_back(MakeSlab(batch(), {}, nullptr).ValueOrDie());
      records_.push_back(MakeSlab(batch(), {}, pool_.get()).ValueOrDie());
      addresses_.push_back(records_.back()->records->data());
    }
    std::vector<uint32_t> order(static_cast<size_t>(rows_));
    ShuffleWindow({1, 2}, 3, order);
    for (uint32_t row : order) {
      order_.push_back({static_cast<uint32_t>(row / slab_rows_), static_cast<uint32_t>(row % slab_rows_)});
    }
  }

  void GatherColumns() {
    ForStrips([&](auto strip) { GatherFixed(columns_, strip, strip_layout_, strip_.data(), 0); });
  }
  void GatherRecords() {
    ForStrips([&](auto strip) { pool_->layout().Gather(addresses_, strip, strip_layout_, strip_.data(), 0); });
  }
  void WriteRecords() {
    for (size_t i = 0; i < columns_.size(); ++i) {
      pool_->layout().Write(columns_[i]->batch, records_[i]->records->data());
    }
  }
  int64_t rows() const { return rows_; }

 private:
  static std::shared_ptr<const Schema> MakeSchema(int num_columns) {
    auto schema = std::make_shared<Schema>(static_cast<size_t>(num_columns));
    for (int i = 0; i < num_columns; ++i) (*schema)[static_cast<size_t>(i)].name = "c" + std::to_string(i);
    return schema;
  }
  template <typename F>
  void ForStrips(F&& gather) {
    const std::span<const SlabRow> order(order_);
    for (size_t at = 0; at + kStripRows <= order.size(); at += kStripRows) gather(order.subspan(at, kStripRows));
  }

  const std::shared_ptr<const Schema> schema_;
  const int64_t slab_rows_, rows_;
  const SlotLayout slab_layout_, strip_layout_;
  std::shared_ptr<RecordPool> pool_;
  SlotMemory strip_;
  std::vector<std::shared_ptr<const Slab>> columns_, records_;
  std::vector<const uint8_t*> addresses_;
  std::vector<SlabRow> order_;
};

template <void (Window::*kDo)()>
void Rows(benchmark::State& state) {
  Window window(static_cast<int>(state.range(0)));
  for (auto _ : state) (window.*kDo)();
  state.SetItemsProcessed(state.iterations() * window.rows());
}
BENCHMARK(Rows<&Window::GatherColumns>)->Name("WindowGatherColumns")->Arg(2)->Arg(4)->Arg(16)->Arg(64);
BENCHMARK(Rows<&Window::GatherRecords>)->Name("WindowGatherRecords")->Arg(2)->Arg(4)->Arg(16)->Arg(64);
BENCHMARK(Rows<&Window::WriteRecords>)->Name("WindowWriteRecords")->Arg(2)->Arg(4)->Arg(16)->Arg(64);

}  // namespace
}  // namespace penstock
