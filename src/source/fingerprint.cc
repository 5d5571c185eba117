#include <string>

#include "ops/hash.h"
#include "source/file_set.h"
#include "source/text.h"

namespace penstock {
namespace {

// Bytes at the front of all paths, up to a slash.
size_t CommonFolder(const std::vector<FileEntry>& files) {
  std::string_view common = files.front().path;
  for (const FileEntry& file : files) {
    size_t same = 0;
    while (same < common.size() && same < file.path.size() && common[same] == file.path[same]) ++same;
    common = common.substr(0, same);
  }
  return files.size() == 1 ? files.front().path.rfind('/') + 1 : common.rfind('/') + 1;
}

}  // namespace

DataFingerprint FileSet::Fingerprint() const {
  DataFingerprint fingerprint;
  fingerprint.files = static_cast<int64_t>(files.size());
  const size_t folder = CommonFolder(files);
  uint64_t chain = 0;
  for (const FileEntry& file : files) {
    fingerprint.size_bytes += file.size_bytes;
    chain = Hash64(std::to_string(chain) + '\n' + file.path.substr(folder) + '\n' + std::to_string(file.size_bytes));
  }
  fingerprint.names = text::Hex(chain);
  return fingerprint;
}

}  // namespace penstock
