#include "source/file_kind.h"

#include <arrow/buffer.h>
#include <arrow/io/interfaces.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <utility>

#include "source/counting_file.h"
#include "source/text.h"

namespace penstock {
namespace {

constexpr std::array<std::pair<std::string_view, FileKind>, 13> kSuffixes = {{
    {".parquet", FileKind::kParquet},
    {".parq", FileKind::kParquet},
    {".pq", FileKind::kParquet},
    {".arrow", FileKind::kIpcFile},
    {".feather", FileKind::kIpcFile},
    {".ipc", FileKind::kIpcFile},
    {".arrows", FileKind::kIpcStream},
    {".csv", FileKind::kCsv},
    {".tsv", FileKind::kTsv},
    {".json", FileKind::kJson},
    {".jsonl", FileKind::kJson},
    {".ndjson", FileKind::kJson},
    {".ldjson", FileKind::kJson},
}};
constexpr std::array<std::string_view, 5> kCompressions = {".gz", ".bz2", ".zst", ".lz4", ".br"};

bool IsText(FileKind kind) { return kind == FileKind::kCsv || kind == FileKind::kTsv || kind == FileKind::kJson; }

arrow::Result<FileKind> KindOfBytes(arrow::fs::FileSystem& fs, const FileEntry& entry, IoCounters* counters) {
  auto file = OpenCounted(fs, entry, counters);
  ARROW_RETURN_NOT_OK(text::WithContext(file.status(), text::Quoted(entry.path)));
  auto head = (*file)->ReadAt(0, 8);
  ARROW_RETURN_NOT_OK(text::WithContext(head.status(), text::Quoted(entry.path)));
  const std::string_view bytes(**head);
  if (bytes.starts_with("PAR1") || bytes.starts_with("PARE")) return FileKind::kParquet;
  if (bytes.starts_with("ARROW1")) return FileKind::kIpcFile;
  if (bytes.starts_with("\xFF\xFF\xFF\xFF")) return FileKind::kIpcStream;
  return FileKind::kUnknown;
}

}  // namespace

std::string_view NameOf(FileKind kind) {
  switch (kind) {
    case FileKind::kParquet:
      return "a Parquet file";
    case FileKind::kIpcFile:
      return "an Arrow IPC file";
    case FileKind::kIpcStream:
      return "an Arrow IPC stream";
    case FileKind::kCsv:
      return "a CSV file";
    case FileKind::kTsv:
      return "a TSV file";
    case FileKind::kJson:
      return "a file of JSON lines";
    case FileKind::kUnknown:
      break;
  }
  return "a file of unknown kind";
}

std::optional<FileKind> KindOfName(std::string_view path) {
  std::string name(path);
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const auto ends_with = [&](std::string_view suffix) { return name.ends_with(suffix); };
  const auto compression = std::ranges::find_if(kCompressions, ends_with);
  const bool is_compressed = compression != kCompressions.end();
  if (is_compressed) name.resize(name.size() - compression->size());
  for (const auto& [suffix, kind] : kSuffixes) {
    // Parquet and Arrow compress by themselves.
    if (ends_with(suffix) && (!is_compressed || IsText(kind))) return kind;
  }
  return std::nullopt;
}

arrow::Result<FileKind> KindOf(arrow::fs::FileSystem& fs, const FileEntry& entry, IoCounters* counters) {
  const auto by_name = KindOfName(entry.path);
  if (by_name && IsText(*by_name)) return *by_name;
  return KindOfBytes(fs, entry, counters);
}

arrow::Status OrMisnamed(const arrow::Status& status, const FileSet& files, size_t index, FileKind kind,
                         IoCounters* counters) {
  if (status.ok() || status.IsOutOfMemory() || !IsText(kind)) return status;
  const FileEntry& entry = files.files[index];
  const auto found = KindOfBytes(*files.filesystem, entry, counters);
  if (!found.ok() || *found == FileKind::kUnknown) return status;
  return arrow::Status::Invalid(text::Quoted(entry.path), " is ", NameOf(*found), ", but its name is that of ",
                                NameOf(kind), "; rename it");
}

arrow::Status OrMixed(const arrow::Status& status, const FileSet& files, size_t index, FileKind kind,
                      IoCounters* counters) {
  if (status.ok() || index == 0 || status.IsOutOfMemory()) return status;
  const auto found = KindOf(*files.filesystem, files.files[index], counters);
  if (!found.ok() || *found == kind || *found == FileKind::kUnknown) return status;
  return arrow::Status::Invalid(text::Quoted(files.files[index].path), " is ", NameOf(*found), ", but ",
                                text::Quoted(files.files.front().path), " is ", NameOf(kind),
                                "; give one loader files of one kind");
}

}  // namespace penstock
