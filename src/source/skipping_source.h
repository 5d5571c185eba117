#pragma once

#include <arrow/status.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "source/source.h"

namespace penstock {

/// Whether an error is about the data, so that skips_errors passes over it: not memory, not a call that was broken off,
/// not what the user's own Python raised.
bool IsDataError(const arrow::Status& status);

/// The error, once there are more than `most` (-1: no limit).
arrow::Status TooManyErrors(int64_t errors, int64_t most, const arrow::Status& last);

/// Files of `inner` that cannot be opened have no rows and keep their number, so that no other file's number changes.
/// \param on_error  called with each such error, as often as the file is met; not OK: that is the end.
std::unique_ptr<Source> SkipBadFiles(std::unique_ptr<Source> inner,
                                     std::function<arrow::Status(const arrow::Status&)> on_error);

}  // namespace penstock
