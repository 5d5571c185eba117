#pragma once

#include <arrow/status.h>

#include <string>
#include <string_view>
#include <vector>

#include "source/file_set.h"

namespace penstock {

/// Fills files->partition_fields and each file's partition_values from "key=value" folders.
///
/// \param base_lengths  per file: how many characters at the front of its path are not looked at (what the user named);
///                      -1: the path has no partitions.
/// \return Invalid where a path names a key twice, or a key or value is not UTF-8 once unquoted.
arrow::Status AddHivePartitions(const std::vector<int64_t>& base_lengths, FileSet* files);

/// "a%20b" -> "a b". What is no escape stays as it is.
std::string UnquoteUri(std::string_view text);

}  // namespace penstock
