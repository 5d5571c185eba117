#include "source/file_set.h"

#include <arrow/filesystem/filesystem.h>
#include <arrow/filesystem/localfs.h>
#include <arrow/record_batch.h>
#include <arrow/scalar.h>
#include <arrow/type.h>
#include <arrow/util/io_util.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstddef>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "source/file_kind.h"
#include "source/glob.h"
#include "source/hive.h"
#include "source/text.h"

namespace penstock {
namespace {

using arrow::fs::FileInfo;
using arrow::fs::FileSystem;

/// "scheme://..." or "file:/...".
bool IsUri(std::string_view path) {
  const size_t colon = path.find(':');
  if (colon == std::string_view::npos || colon < 2 || !std::isalpha(static_cast<unsigned char>(path[0]))) return false;
  for (char c : path.substr(0, colon)) {
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '+' && c != '-' && c != '.') return false;
  }
  return path.substr(colon).starts_with("://") || path.starts_with("file:/");
}

/// 0 for what is Parquet by its name, 1 for Arrow, 2 for text, 3 for all others: in a folder the first kind that there
/// is counts, the others are what lies beside it.
int RankOfName(const std::string& path) {
  switch (KindOfName(path).value_or(FileKind::kUnknown)) {
    case FileKind::kParquet:
      return 0;
    case FileKind::kIpcFile:
    case FileKind::kIpcStream:
      return 1;
    case FileKind::kCsv:
    case FileKind::kTsv:
    case FileKind::kJson:
      return 2;
    case FileKind::kUnknown:
      break;
  }
  return 3;
}

std::string WithoutTrailingSlashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

/// Turns what the user named into entries, one file system for all.
class Resolver {
 public:
  explicit Resolver(std::shared_ptr<FileSystem> fs) : fs_(std::move(fs)), is_given_(fs_ != nullptr) {}

  arrow::Status Add(const std::string& named) {
    std::string path = named;
    ARROW_RETURN_NOT_OK(text::WithContext(ChooseFileSystem(named, &path), text::Quoted(named)));
    path = WithoutTrailingSlashes(std::move(path));
    auto info = fs_->GetFileInfo(path);
    if (!info.ok()) return text::WithContext(info.status(), text::Quoted(named));
    switch (info->type()) {
      case arrow::fs::FileType::File:
        AddFile(*info, -1);
        return arrow::Status::OK();
      case arrow::fs::FileType::Directory:
        return AddNonEmptyFolder(path, named);
      case arrow::fs::FileType::NotFound:
        return IsPattern(path) ? AddPattern(path, named) : NotFound(named);
      default:
        return arrow::Status::IOError(text::Quoted(named), ": is neither a file nor a folder");
    }
  }

  arrow::Result<FileSet> Finish() {
    files_.filesystem = fs_;
    ARROW_RETURN_NOT_OK(AddHivePartitions(base_lengths_, &files_));
    return std::move(files_);
  }

 private:
  arrow::Status ChooseFileSystem(const std::string& named, std::string* path) {
    if (named.empty()) return arrow::Status::Invalid("an empty path names nothing");
    if (!IsUri(named)) {
      if (fs_ == nullptr) fs_ = std::make_shared<arrow::fs::LocalFileSystem>();
      if (!is_given_ && fs_->type_name() != "local") return Mixed();
      return arrow::Status::OK();
    }
    if (is_given_) return fs_->PathFromUri(named).Value(path);
    if (fs_ != nullptr && IsOfSameScheme(named)) return fs_->PathFromUri(named).Value(path);
    auto from_uri = arrow::fs::FileSystemFromUri(named, path);
    if (!from_uri.ok()) {
      return from_uri.status().WithMessage(
          from_uri.status().message(),
          "; if the URI is right, pass a `filesystem` that reads it, and the path without the scheme");
    }
    if (fs_ != nullptr && !fs_->Equals(**from_uri)) return Mixed();
    fs_ = *from_uri;
    first_uri_ = named;
    return arrow::Status::OK();
  }

  /// True where a further URI needs no new connection: same scheme and authority, and no options on either.
  bool IsOfSameScheme(const std::string& uri) const {
    if (first_uri_.empty() || uri.find('?') != std::string::npos || first_uri_.find('?') != std::string::npos)
      return false;
    const auto head = [](const std::string& text) { return text.substr(0, text.find('/', text.find("://") + 3)); };
    return uri.find("://") != std::string::npos && head(uri) == head(first_uri_);
  }

  static arrow::Status Mixed() {
    return arrow::Status::Invalid(
        "is on another file system than the paths before it; give one loader one file system");
  }

  static arrow::Status NotFound(const std::string& named) {
    const bool is_relative = !named.starts_with('/') && !IsUri(named);
    return arrow::internal::IOErrorFromErrno(
        ENOENT, text::Quoted(named), ": no such file or folder",
        is_relative ? " (a relative path is looked up from the current folder)" : "");
  }

  void AddFile(const FileInfo& info, int64_t base_length) {
    FileEntry entry;
    entry.path = info.path();
    entry.size_bytes = info.size();
    entry.mtime_ns = info.mtime().time_since_epoch().count();
    files_.files.push_back(std::move(entry));
    base_lengths_.push_back(base_length);
  }

  arrow::Status AddNonEmptyFolder(const std::string& folder, const std::string& named) {
    const size_t before = files_.files.size();
    ARROW_RETURN_NOT_OK(AddFolder(folder, named, static_cast<int64_t>(folder.size())));
    if (files_.files.size() > before) return arrow::Status::OK();
    return arrow::Status::Invalid(text::Quoted(named),
                                  ": the folder has no data file (names that start with '.' or '_' are left out)");
  }

  arrow::Status AddFolder(const std::string& folder, const std::string& named, int64_t base_length) {
    arrow::fs::FileSelector selector;
    selector.base_dir = folder;
    selector.recursive = true;
    auto listed = fs_->GetFileInfo(selector);
    if (!listed.ok()) return text::WithContext(listed.status(), "listing " + text::Quoted(named));
    std::vector<FileInfo> infos = std::move(listed).ValueUnsafe();
    std::erase_if(infos, [&](const FileInfo& info) {
      const size_t front = info.path().starts_with(folder) ? folder.size() : 0;
      return !info.IsFile() || HasHiddenPart(std::string_view(info.path()).substr(front));
    });
    int best = RankOfName("");
    for (const FileInfo& info : infos) best = std::min(best, RankOfName(info.path()));
    std::erase_if(infos, [best](const FileInfo& info) { return RankOfName(info.path()) != best; });
    std::sort(infos.begin(), infos.end(), FileInfo::ByPath{});
    for (const FileInfo& info : infos) AddFile(info, base_length);
    return arrow::Status::OK();
  }

  arrow::Status AddPattern(const std::string& pattern, const std::string& named) {
    auto expanded = ExpandPattern(*fs_, pattern);
    if (!expanded.ok()) return text::WithContext(expanded.status(), text::Quoted(named));
    const auto base_length = static_cast<int64_t>(expanded->base.size());
    const size_t before = files_.files.size();
    for (const FileInfo& info : expanded->infos) {
      if (info.IsFile()) AddFile(info, base_length);
    }
    // A pattern that matches folders only ("year=*") means what is in them.
    if (files_.files.size() == before) ARROW_RETURN_NOT_OK(AddMatchedFolders(expanded->infos, named, base_length));
    if (files_.files.size() > before) return arrow::Status::OK();
    return arrow::Status::Invalid(text::Quoted(named), ": no file matches this pattern");
  }

  arrow::Status AddMatchedFolders(const std::vector<FileInfo>& infos, const std::string& named, int64_t base_length) {
    for (const FileInfo& info : infos) {
      if (info.IsDirectory()) ARROW_RETURN_NOT_OK(AddFolder(info.path(), named, base_length));
    }
    return arrow::Status::OK();
  }

  std::shared_ptr<FileSystem> fs_;
  const bool is_given_;
  std::string first_uri_;
  FileSet files_;
  std::vector<int64_t> base_lengths_;  // Per file, for AddHivePartitions.
};

/// Heap bytes behind a string: none while it fits into the object itself.
int64_t HeapBytes(const std::string& text) {
  return text.capacity() < sizeof(std::string) / 2 ? 0 : static_cast<int64_t>(text.capacity()) + 1;
}

}  // namespace

std::vector<std::string> FileSet::Paths() const {
  std::vector<std::string> paths;
  for (const FileEntry& entry : files) paths.push_back(entry.path);
  return paths;
}

int64_t FileSet::MemoryBytes() const {
  constexpr int64_t kBlock = 24;         // What malloc adds to a small block, rounding included.
  constexpr int64_t kScalarBytes = 160;  // A scalar with its control block and a short string's buffer.
  auto bytes = static_cast<int64_t>(files.capacity() * sizeof(FileEntry));
  std::unordered_set<const arrow::Scalar*> scalars;
  for (const FileEntry& entry : files) {
    bytes += HeapBytes(entry.path) + kBlock;
    if (!entry.partition_values.empty()) bytes += kBlock;
    bytes += static_cast<int64_t>(entry.partition_values.capacity() * sizeof(std::shared_ptr<arrow::Scalar>));
    for (const auto& value : entry.partition_values) scalars.insert(value.get());
  }
  bytes += static_cast<int64_t>(scalars.size()) * kScalarBytes;
  return bytes + static_cast<int64_t>(partition_fields.size()) * 256;
}

arrow::Result<FileSet> ResolveFiles(const std::vector<std::string>& paths, std::shared_ptr<FileSystem> filesystem) {
  if (paths.empty()) return arrow::Status::Invalid("no paths were given: name files, folders, patterns or URIs");
  Resolver resolver(std::move(filesystem));
  for (const std::string& path : paths) ARROW_RETURN_NOT_OK(resolver.Add(path));
  return resolver.Finish();
}

arrow::Status SetPartitions(const arrow::RecordBatch& partitions, FileSet* files) {
  if (partitions.num_rows() != static_cast<int64_t>(files->files.size())) {
    return arrow::Status::Invalid("partitions for ", partitions.num_rows(), " files, but there are ",
                                  files->files.size());
  }
  files->partition_fields = partitions.schema()->fields();
  for (size_t i = 0; i < files->files.size(); ++i) {
    arrow::ScalarVector values;
    for (const auto& column : partitions.columns()) {
      ARROW_ASSIGN_OR_RAISE(values.emplace_back(), column->GetScalar(static_cast<int64_t>(i)));
    }
    files->files[i].partition_values = std::move(values);
  }
  return arrow::Status::OK();
}

}  // namespace penstock
