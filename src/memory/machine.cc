#include "memory/machine.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <iterator>
#include <optional>
#include <sstream>
#include <string_view>
#include <thread>

#include "penstock/options.h"

namespace penstock {
namespace {

std::string ReadFile(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// The whole number at the front of `text`; not set for "max", "-1", and nothing.
std::optional<int64_t> ParseLimit(std::string_view text) {
  int64_t value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc() || value < 0) return std::nullopt;
  return value;
}

void Tighten(std::optional<int64_t> quota, std::optional<int64_t> period, CgroupLimits* limits) {
  if (!quota || !period || *quota <= 0 || *period <= 0) return;
  const double cores = static_cast<double>(*quota) / static_cast<double>(*period);
  limits->cores = limits->cores < 0 ? cores : std::min(limits->cores, cores);
}

void Tighten(std::optional<int64_t> memory_bytes, CgroupLimits* limits) {
  if (!memory_bytes || *memory_bytes <= 0) return;
  limits->memory_bytes = limits->memory_bytes < 0 ? *memory_bytes : std::min(limits->memory_bytes, *memory_bytes);
}

/// Reads the limits in `folder`, whichever of them it has: version 2's and version 1's files have different names.
void ReadFolder(const std::string& folder, CgroupLimits* limits) {
  const std::string cpu_max = ReadFile(folder + "/cpu.max");  // "150000 100000" or "max 100000".
  if (const size_t space = cpu_max.find(' '); space != std::string::npos) {
    Tighten(ParseLimit(cpu_max), ParseLimit(std::string_view(cpu_max).substr(space + 1)), limits);
  }
  Tighten(ParseLimit(ReadFile(folder + "/cpu.cfs_quota_us")), ParseLimit(ReadFile(folder + "/cpu.cfs_period_us")),
          limits);
  Tighten(ParseLimit(ReadFile(folder + "/memory.max")), limits);
  Tighten(ParseLimit(ReadFile(folder + "/memory.limit_in_bytes")),
          limits);  // 2^63 rounded down: no limit; the machine's is less.
}

/// Reads `mount`/`group` and its parents. In a container the group may be named as the host sees it, and is then not
/// there: its parents up to the mount are, and the mount is the container's own group.
void ReadUpwards(const std::string& mount, std::string group, CgroupLimits* limits) {
  while (!group.empty() && group != "/") {
    ReadFolder(mount + group, limits);
    group.resize(std::min(group.rfind('/'), group.size()));
  }
  ReadFolder(mount, limits);
}

int AffinityCores() {
  constexpr int kMostCores = 1 << 14;
  cpu_set_t* cores = CPU_ALLOC(kMostCores);
  if (cores == nullptr) return 0;
  const size_t bytes = CPU_ALLOC_SIZE(kMostCores);
  CPU_ZERO_S(bytes, cores);
  const int count = sched_getaffinity(0, bytes, cores) == 0 ? CPU_COUNT_S(bytes, cores) : 0;
  CPU_FREE(cores);
  return count;
}

CgroupLimits OwnLimits() { return ReadCgroupLimits(ReadFile("/proc/self/cgroup"), "/sys/fs/cgroup"); }

}  // namespace

CgroupLimits ReadCgroupLimits(const std::string& self_cgroup, const std::string& mount) {
  CgroupLimits limits;
  std::istringstream lines(self_cgroup);
  for (std::string line; std::getline(lines, line);) {  // "0::/group" or "4:cpu,cpuacct:/group".
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string group = line.substr(second + 1);
    if (controllers.empty()) {
      ReadUpwards(mount, group, &limits);
      continue;
    }
    std::istringstream names(controllers);
    for (std::string name; std::getline(names, name, ',');) {
      if (name != "cpu" && name != "memory") continue;
      ReadUpwards(mount + "/" + name, group, &limits);
      if (name != controllers) ReadUpwards(mount + "/" + controllers, group, &limits);
    }
  }
  return limits;
}

int AvailableCores() {
  int cores = AffinityCores();
  if (cores <= 0) cores = static_cast<int>(std::thread::hardware_concurrency());
  const double quota = OwnLimits().cores;
  if (quota > 0) cores = std::min(cores, static_cast<int>(std::ceil(std::min(quota, 1e6))));
  return std::max(cores, 1);
}

int64_t AvailableMemoryBytes() {
  const int64_t machine_bytes = int64_t{sysconf(_SC_PHYS_PAGES)} * int64_t{sysconf(_SC_PAGESIZE)};
  const int64_t limit_bytes = OwnLimits().memory_bytes;
  return limit_bytes > 0 ? std::min(limit_bytes, machine_bytes) : machine_bytes;
}

}  // namespace penstock
