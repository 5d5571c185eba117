#pragma once

#include <cstdint>
#include <string>

namespace penstock {

/// What the control groups of a process allow it.
struct CgroupLimits {
  double cores = -1;          ///< Processor time per time; < 0: no limit.
  int64_t memory_bytes = -1;  ///< < 0: no limit.
};

/// Reads versions 1 and 2; the tightest limit from the process's group up to the root counts.
///
/// \param self_cgroup  contents of /proc/self/cgroup.
/// \param mount        "/sys/fs/cgroup".
CgroupLimits ReadCgroupLimits(const std::string& self_cgroup, const std::string& mount);

}  // namespace penstock
