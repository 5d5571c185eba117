#include "penstock/state.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings.h"
#include "order_choices.h"

namespace penstock::python {

using namespace nb::literals;

namespace {

using PyRanges = std::vector<std::pair<int64_t, int64_t>>;
using PyPhase = std::tuple<int64_t, int64_t, std::vector<PyRanges>>;
using PyData = std::tuple<int64_t, int64_t, int64_t, std::string, int64_t, std::string>;

std::vector<PyPhase> GetHistory(const EpochState& state) {
  std::vector<PyPhase> history;
  for (const EpochPhase& phase : state.history) {
    std::vector<PyRanges> taken;
    for (const RowRanges& ranges : phase.taken) {
      taken.emplace_back();
      for (const RowRange& range : ranges) taken.back().emplace_back(range.begin, range.end);
    }
    history.emplace_back(phase.world_size, phase.rows, std::move(taken));
  }
  return history;
}

void SetHistory(EpochState& state, const std::vector<PyPhase>& history) {
  state.history.clear();
  for (const auto& [world_size, rows, taken] : history) {
    EpochPhase phase{world_size, rows, {}};
    for (const PyRanges& ranges : taken) {
      phase.taken.emplace_back();
      for (const auto& [begin, end] : ranges) phase.taken.back().push_back({begin, end});
    }
    state.history.push_back(std::move(phase));
  }
}

PyData GetData(const EpochState& state) {
  const DataFingerprint& data = state.data;
  return {data.files, data.size_bytes, data.rows, data.names, data.num_footers, data.footers};
}

void SetData(EpochState& state, const PyData& data) {
  auto& own = state.data;
  std::tie(own.files, own.size_bytes, own.rows, own.names, own.num_footers, own.footers) = data;
}

}  // namespace

void BindState(nb::module_& m) {
  nb::class_<OrderChoices>(m, "OrderChoices", "What says which rows a loader gives.")
      .def(
          "__init__",
          [](OrderChoices* self, int64_t rank, int64_t world_size, bool repeat, bool balance, int64_t epochs,
             uint64_t seed, bool shuffle, int64_t shuffle_window_bytes, int64_t shuffle_window_rows, bool skips_errors,
             int64_t max_errors) {
            new (self) OrderChoices{rank,
                                    world_size,
                                    repeat,
                                    balance,
                                    epochs,
                                    seed,
                                    shuffle,
                                    shuffle_window_bytes,
                                    shuffle_window_rows,
                                    skips_errors,
                                    max_errors};
          },
          nb::kw_only(), "rank"_a, "world_size"_a, "repeat"_a, "balance"_a, "epochs"_a, "seed"_a, "shuffle"_a,
          "shuffle_window_bytes"_a, "shuffle_window_rows"_a, "skips_errors"_a, "max_errors"_a);

  nb::class_<EpochState>(m, "EpochState", "Where the user of a loader is.")
      .def(nb::init<>())
      .def_rw("version", &EpochState::version)
      .def_prop_rw("data", &GetData, &SetData, "Files, bytes, rows, digest of names, footers, their digest.")
      .def_rw("columns", &EpochState::columns)
      .def_rw("filter", &EpochState::filter)
      .def_rw("part", &EpochState::part)
      .def_rw("batch_size", &EpochState::batch_size)
      .def_rw("shuffle", &EpochState::shuffle)
      .def_rw("seed", &EpochState::seed)
      .def_rw("shuffle_window", &EpochState::shuffle_window_rows)
      .def_prop_rw(
          "repeat", [](const EpochState& state) { return state.uneven == Uneven::kRepeat; },
          [](EpochState& state, bool repeat) { state.uneven = repeat ? Uneven::kRepeat : Uneven::kDrop; })
      .def_rw("limit", &EpochState::limit, nb::for_setter(nb::arg("value").none()))
      .def_rw("balance", &EpochState::balance)
      .def_rw("epoch", &EpochState::epoch)
      .def_rw("epochs_left", &EpochState::epochs_left)
      .def_rw("rank", &EpochState::rank)
      .def_prop_rw("history", &GetHistory, &SetHistory,
                   "(world_size, rows that each rank has had, or for each rank the rows of its share).")
      .def_rw("given_rows", &EpochState::given_rows)
      .def_rw("given_items", &EpochState::given_items);
}

}  // namespace penstock::python
