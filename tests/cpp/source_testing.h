#pragma once

#include <arrow/array/array_base.h>
#include <arrow/array/builder_binary.h>
#include <arrow/array/builder_primitive.h>
#include <arrow/filesystem/localfs.h>
#include <arrow/io/file.h>
#include <arrow/memory_pool.h>
#include <arrow/table.h>
#include <arrow/type.h>
#include <gtest/gtest.h>
#include <parquet/arrow/writer.h>
#include <parquet/properties.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "source/file_set.h"
#include "source/parquet_file.h"
#include "source/source.h"

/// What the tests of src/source share: a folder that goes away, and Parquet files in it.
namespace penstock::source_testing {

class TempFolder {
 public:
  TempFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "penstock-test-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) ADD_FAILURE() << "cannot make a folder for the test";
    path_ = name;
  }
  ~TempFolder() { std::filesystem::remove_all(path_); }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  std::string path() const { return path_.string(); }
  /// The path of `name` in this folder; its parent folders are made.
  std::string File(const std::string& name) const {
    std::filesystem::create_directories((path_ / name).parent_path());
    return (path_ / name).string();
  }
  std::string Write(const std::string& name, const std::string& bytes) const {
    std::ofstream(File(name), std::ios::binary) << bytes;
    return File(name);
  }

 private:
  std::filesystem::path path_;
};

inline std::shared_ptr<arrow::MemoryPool> DefaultPool() {
  return {arrow::default_memory_pool(), [](arrow::MemoryPool*) {}};
}

inline std::string ReadBytes(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

template <typename Builder, typename Value>
std::shared_ptr<arrow::Array> ArrayOf(const std::vector<Value>& values) {
  Builder builder;
  EXPECT_TRUE(builder.AppendValues(values).ok());
  return builder.Finish().ValueOrDie();
}
inline std::shared_ptr<arrow::Array> Ints(const std::vector<int64_t>& values) {
  return ArrayOf<arrow::Int64Builder>(values);
}
inline std::shared_ptr<arrow::Array> Strings(const std::vector<std::string>& values) {
  return ArrayOf<arrow::StringBuilder>(values);
}

using Columns = std::vector<std::pair<std::string, std::shared_ptr<arrow::Array>>>;

inline std::shared_ptr<arrow::Table> TableOf(const Columns& columns) {
  arrow::FieldVector fields;
  arrow::ArrayVector arrays;
  for (const auto& [name, array] : columns) {
    fields.push_back(arrow::field(name, array->type()));
    arrays.push_back(array);
  }
  return arrow::Table::Make(arrow::schema(std::move(fields)), std::move(arrays));
}

inline void WriteParquet(const std::string& path, const arrow::Table& table, int64_t row_group_rows = 1 << 20,
                         std::shared_ptr<parquet::WriterProperties> properties = parquet::default_writer_properties()) {
  auto sink = arrow::io::FileOutputStream::Open(path).ValueOrDie();
  const auto arrow_properties = parquet::ArrowWriterProperties::Builder().store_schema()->build();
  const auto status = parquet::arrow::WriteTable(table, arrow::default_memory_pool(), sink, row_group_rows,
                                                 std::move(properties), arrow_properties);
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_TRUE(sink->Close().ok());
}

inline arrow::Result<std::shared_ptr<ParquetFile>> Open(const std::string& path, IoCounters* counters = nullptr) {
  arrow::fs::LocalFileSystem fs;
  FileEntry entry;
  entry.path = path;
  return OpenParquet(fs, entry, counters);
}

/// The schema of a file and nothing to read, for projections.
class SchemaSource final : public Source {
 public:
  SchemaSource(const FileSet& files, const ParquetFile& first) {
    SetSchema(*first.schema, files.partition_fields, first.entry.path);
  }
  bool is_counted() const override { return true; }
  int64_t known_rows() const override { return -1; }
  int64_t num_files() const override { return 1; }
  std::string_view chunk_name() const override { return "row group"; }
  int64_t MemoryBytes() const override { return 0; }
  arrow::Result<std::unique_ptr<InputSequence>> Open(const InputContext&) override {
    return arrow::Status::NotImplemented("nothing to read");
  }
  arrow::Result<Vocabularies> ReadVocabularies(const arrow::FieldVector&,
                                               const std::shared_ptr<arrow::MemoryPool>&) override {
    return Vocabularies{};
  }
};

}  // namespace penstock::source_testing

#define EXPECT_CONTAINS(text, part) \
  EXPECT_NE(std::string(text).find(part), std::string::npos) << "no \"" << (part) << "\" in: " << (text)
