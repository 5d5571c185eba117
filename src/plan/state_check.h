#pragma once

#include <arrow/result.h>

#include <vector>

#include "penstock/state.h"

namespace penstock {

/// Invalid where `saved` is not a position of an epoch whose order is `own`'s (own.epoch, own.rank and own.history are
/// not looked at): the message says what differs, and both values. Also where its numbers make no sense, or it is from
/// a newer version.
arrow::Status CheckState(const EpochState& saved, const EpochState& own);

/// The states of all ranks of one moment as one. Invalid where they are not of one moment: a rank is missing or twice,
/// or they disagree on the epoch, the order or the history before.
arrow::Result<EpochState> MergeStates(std::vector<EpochState> states);

/// Whether the last phase says only what the rank that gave it has had: not enough for another world size.
bool IsOfOneRank(const EpochState& state);

}  // namespace penstock
