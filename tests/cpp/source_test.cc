#include <arrow/buffer.h>
#include <arrow/filesystem/mockfs.h>
#include <arrow/scalar.h>
#include <arrow/util/key_value_metadata.h>
#include <parquet/column_page.h>
#include <parquet/column_reader.h>
#include <parquet/exception.h>
#include <parquet/file_reader.h>
#include <parquet/metadata.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <ctime>
#include <numeric>
#include <thread>

#include "penstock/loader.h"
#include "source/glob.h"
#include "source/hive.h"
#include "source/text.h"
#include "source_testing.h"

namespace penstock {
namespace {

using namespace source_testing;  // NOLINT

/// Paths behind the folder's own, in the order found.
std::vector<std::string> Names(const FileSet& files, const TempFolder& folder) {
  std::vector<std::string> names;
  for (const FileEntry& entry : files.files) names.push_back(entry.path.substr(folder.path().size() + 1));
  return names;
}
std::string ErrorOf(const std::vector<std::string>& paths) { return ResolveFiles(paths, nullptr).status().ToString(); }

using NameList = std::vector<std::string>;

TEST(FileSetTest, FolderIsListedInOrderWithoutHiddenAndOtherFiles) {
  TempFolder folder;
  for (const char* name : {"b.parquet", "a.PARQUET", "sub/c.pq", "_SUCCESS", ".x.parquet", "_meta/y.parquet",
                           "notes.txt", "sub/.git/z.parquet"}) {
    folder.Write(name, "x");
  }
  for (const char* slash : {"", "/"}) {
    auto files = ResolveFiles({folder.path() + slash}, nullptr);
    ASSERT_TRUE(files.ok()) << files.status();
    EXPECT_EQ(Names(*files, folder), (NameList{"a.PARQUET", "b.parquet", "sub/c.pq"}));
    EXPECT_EQ(files->files[0].size_bytes, 1);
    EXPECT_GT(files->files[0].mtime_ns, 0);
    EXPECT_GT(files->MemoryBytes(), 3 * static_cast<int64_t>(sizeof(FileEntry)));
  }
  std::filesystem::create_directories(folder.File("other/x/"));
  folder.Write("other/part-0", "x");
  EXPECT_EQ(Names(*ResolveFiles({folder.path() + "/other"}, nullptr), folder), NameList{"other/part-0"});
}

TEST(FileSetTest, PathsKeepTheOrderInWhichTheyWereNamed) {
  TempFolder folder;
  const std::string b = folder.Write("b.parquet", "x"), a = folder.Write("a.parquet", "x");
  EXPECT_EQ(Names(*ResolveFiles({b, a, b}, nullptr), folder), (NameList{"b.parquet", "a.parquet", "b.parquet"}));
}

TEST(FileSetTest, ErrorsNameThePathAndTheRemedy) {
  TempFolder folder;
  std::filesystem::create_directories(folder.path() + "/empty");
  EXPECT_CONTAINS(ErrorOf({folder.path() + "/no.parquet"}), "no.parquet': no such file or folder");
  EXPECT_TRUE(ResolveFiles({folder.path() + "/no.parquet"}, nullptr).status().IsIOError());
  EXPECT_CONTAINS(ErrorOf({"no-such.parquet"}), "a relative path is looked up from the current folder");
  EXPECT_CONTAINS(ErrorOf({folder.path() + "/empty"}), "empty': the folder has no data file");
  EXPECT_CONTAINS(ErrorOf({folder.path() + "/*.parquet"}), "*.parquet': no file matches this pattern");
  EXPECT_CONTAINS(ErrorOf({}), "no paths were given");
  EXPECT_CONTAINS(ErrorOf({""}), "an empty path names nothing");
  EXPECT_CONTAINS(ErrorOf({"nosuchscheme://x/y"}), "pass a `filesystem` that reads it");
  EXPECT_TRUE(text::IsUtf8(ErrorOf({"bad\xFFname"})));
}

TEST(FileSetTest, UrisAndFileSystems) {
  TempFolder folder;
  const std::string a = folder.Write("a.parquet", "x");
  auto files = ResolveFiles({"file://" + a, a, "file://" + folder.path()}, nullptr);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ(Names(*files, folder), (NameList{"a.parquet", "a.parquet", "a.parquet"}));
  EXPECT_CONTAINS(ErrorOf({a, "mock:///x"}), "is on another file system");
  auto mock = std::make_shared<arrow::fs::internal::MockFileSystem>(arrow::fs::TimePoint{});
  ASSERT_TRUE(mock->CreateFile("data/year=1/a.parquet", "x").ok());
  auto mocked = ResolveFiles({"data/*/*.parquet", "mock:///data"}, mock);
  ASSERT_TRUE(mocked.ok()) << mocked.status();
  ASSERT_EQ(mocked->files.size(), 2U);
  EXPECT_EQ(mocked->files[1].path, "data/year=1/a.parquet");
  EXPECT_EQ(mocked->partition_fields.size(), 1U);
}

TEST(FileSetTest, PatternsMatchAsInAShell) {
  EXPECT_TRUE(MatchesPattern("a*c", "abbc"));
  EXPECT_TRUE(MatchesPattern("*", "x"));
  EXPECT_FALSE(MatchesPattern("*", ".x"));
  EXPECT_FALSE(MatchesPattern("*", "_x"));
  EXPECT_TRUE(MatchesPattern("_*", "_x"));
  EXPECT_TRUE(MatchesPattern("?.p", "\xC3\xA4.p"));  // One character of two bytes.
  EXPECT_TRUE(MatchesPattern("[a-c]x[!0-9]", "bxy"));
  EXPECT_FALSE(MatchesPattern("[a-c]x[!0-9]", "bx1"));
  EXPECT_TRUE(MatchesPattern("a[b", "a[b"));
  EXPECT_TRUE(MatchesPattern("[]]", "]"));
  EXPECT_FALSE(MatchesPattern("a", "ab"));
  EXPECT_FALSE(MatchesPattern("a*b", "a"));
}

TEST(FileSetTest, PatternsExpand) {
  TempFolder folder;
  for (const char* name : {"x/a1.parquet", "x/a2.parquet", "x/b.csv", "x/deep/er/a3.parquet", "y/a1.parquet",
                           "a[1].parquet", "a1.parquet", "year=1/q.parquet", "year=2/q.parquet"}) {
    folder.Write(name, "x");
  }
  const auto names = [&](const std::string& pattern) {
    auto files = ResolveFiles({folder.path() + "/" + pattern}, nullptr);
    EXPECT_TRUE(files.ok()) << files.status();
    return files.ok() ? Names(*files, folder) : NameList{};
  };
  EXPECT_EQ(names("x/*.parquet"), (NameList{"x/a1.parquet", "x/a2.parquet"}));
  EXPECT_EQ(names("?/a1.parquet"), (NameList{"x/a1.parquet", "y/a1.parquet"}));
  EXPECT_EQ(names("x/**/a*.parquet"), (NameList{"x/a1.parquet", "x/a2.parquet", "x/deep/er/a3.parquet"}));
  EXPECT_EQ(names("x/deep/**"), NameList{"x/deep/er/a3.parquet"});
  EXPECT_EQ(names("a[1].parquet"), NameList{"a[1].parquet"});  // There is a file of just that name.
  EXPECT_EQ(names("[a]1.parquet"), NameList{"a1.parquet"});
  EXPECT_EQ(names("year=*"), (NameList{"year=1/q.parquet", "year=2/q.parquet"}));
  auto partitioned = ResolveFiles({folder.path() + "/year=*/*.parquet"}, nullptr);
  ASSERT_EQ(partitioned->partition_fields.size(), 1U);
  EXPECT_EQ(partitioned->files[1].partition_values[0]->ToString(), "2");
}

TEST(FileSetTest, HivePartitionsGetTheNarrowestTypeThatFitsAll) {
  TempFolder folder;
  folder.Write("i=07/big=5000000000/s=x/n=__HIVE_DEFAULT_PARTITION__/a.parquet", "x");
  folder.Write("i=-8/big=1/s=12%2F5%20%zz/n=__HIVE_DEFAULT_PARTITION__/b.parquet", "x");
  folder.Write("i=__HIVE_DEFAULT_PARTITION__/c.parquet", "x");
  auto files = ResolveFiles({folder.path()}, nullptr);
  ASSERT_TRUE(files.ok()) << files.status();
  NameList fields;
  for (const auto& field : files->partition_fields) fields.push_back(field->name() + ":" + field->type()->ToString());
  std::sort(fields.begin(), fields.end());
  EXPECT_EQ(fields, (NameList{"big:int64", "i:int32", "n:string", "s:string"}));
  const auto value = [&](size_t file, const std::string& name) {
    for (size_t i = 0; i < files->partition_fields.size(); ++i) {
      if (files->partition_fields[i]->name() == name) return files->files[file].partition_values[i]->ToString();
    }
    return std::string("no such field");
  };
  EXPECT_EQ(value(0, "i"), "-8");
  EXPECT_EQ(value(0, "s"), "12/5 %zz");
  EXPECT_EQ(value(1, "i"), "7");
  EXPECT_EQ(value(1, "big"), "5000000000");
  EXPECT_EQ(value(2, "i"), "null");
  EXPECT_EQ(value(2, "s"), "null");
  EXPECT_EQ(value(1, "n"), "null");
}

TEST(FileSetTest, HiveErrorsNameThePath) {
  TempFolder folder;
  folder.Write("a=1/a=2/x.parquet", "x");
  EXPECT_CONTAINS(ErrorOf({folder.path()}), "the partition key 'a' occurs twice");
  TempFolder other;
  other.Write("a=%FF/x.parquet", "x");
  EXPECT_CONTAINS(ErrorOf({other.path()}), "is not UTF-8; rename it");
}

// Processor time, which does not depend on what else the machine does.
std::clock_t ClocksToResolve(int num_files) {
  TempFolder folder;
  for (int i = 0; i < num_files; ++i) {
    const std::string name = "p=" + std::to_string(i % 4) + "/" + std::to_string(i) + ".parquet";
    std::ofstream(i < 4 ? folder.File(name) : folder.path() + "/" + name) << "x";
  }
  const std::clock_t start = std::clock();
  auto files = ResolveFiles({folder.path()}, nullptr);
  const std::clock_t took = std::clock() - start;
  EXPECT_EQ(files->files.size(), static_cast<size_t>(num_files));
  return took;
}

TEST(FileSetTest, ResolvingManyFilesIsNoQuadraticWork) {
  ClocksToResolve(10);  // What is done once.
  const std::clock_t few = ClocksToResolve(1000);
  EXPECT_LT(ClocksToResolve(10000), 40 * few);
}

TEST(ParquetFileTest, OpensCountsAndKeepsTheArrowSchema) {
  TempFolder folder;
  const std::string path = folder.File("a.parquet");
  auto table = TableOf({{"i", Ints({1, 2, 3})}, {"s", Strings({"x", "y", "x"})}});
  table = table->ReplaceSchemaMetadata(arrow::key_value_metadata({{"k", "v"}}));
  WriteParquet(path, *table);
  IoCounters counters;
  const int64_t busy_before = IoCounters::ThreadBusyNs();
  auto file = Open(path, &counters);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ((*file)->schema->ToString(), "i: int64\ns: string");
  EXPECT_EQ((*file)->schema->metadata(), nullptr);
  EXPECT_GT((*file)->footer_bytes, 0);
  EXPECT_GT((*file)->MemoryBytes(), (*file)->footer_bytes);
  EXPECT_EQ(counters.reads, 1);  // One read brings the footer.
  EXPECT_GT(counters.bytes, 0);
  EXPECT_EQ(IoCounters::ThreadBusyNs() - busy_before, counters.busy_ns);
}

TEST(ParquetFileTest, ReadsAreCountedFromManyThreadsAndUnderBufferedStreams) {
  TempFolder folder;
  const std::string path = folder.File("a.parquet");
  WriteParquet(path, *TableOf({{"i", Ints(std::vector<int64_t>(10000, 7))}}));
  IoCounters counters;
  auto file = *Open(path, &counters);
  const int64_t before = counters.bytes;
  {
    std::vector<std::jthread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < 100; ++i) EXPECT_EQ((*file->file->ReadAt(i, 4))->size(), 4);
      });
    }
  }
  EXPECT_EQ(counters.bytes - before, 4 * 100 * 4);
  const int64_t reads = counters.reads;
  auto reader = parquet::ParquetFileReader::Open(file->file, MakeReaderProperties(arrow::default_memory_pool(), 4096),
                                                 file->metadata);
  EXPECT_NE(reader->RowGroup(0)->GetColumnPageReader(0)->NextPage(), nullptr);
  EXPECT_GT(counters.reads, reads);
}

TEST(ParquetFileTest, ErrorsSayWhatAPersonCanDo) {
  TempFolder folder;
  std::vector<int64_t> values(2000);
  std::iota(values.begin(), values.end(), 0);
  const std::string good_path = folder.File("good.parquet");
  WriteParquet(good_path, *TableOf({{"i", Ints(values)}}));
  const std::string good = ReadBytes(good_path);
  const auto error = [&](const std::string& bytes) {
    const arrow::Status status = Open(folder.Write("bad.parquet", bytes)).status();
    EXPECT_TRUE(status.IsIOError() || status.IsInvalid()) << status;
    EXPECT_TRUE(status.message().starts_with("'" + folder.path())) << status;
    return status.message();
  };
  EXPECT_CONTAINS(error(""), "the file is empty (0 bytes)");
  EXPECT_CONTAINS(error("PAR1"), "is not a Parquet file: 4 bytes are too few");
  EXPECT_CONTAINS(error("a,b,c\n1,2,3\n4,5,6\n"), "is not a Parquet file");
  EXPECT_CONTAINS(error(good.substr(0, good.size() - 20)), "the file is truncated");
  EXPECT_CONTAINS(error(good.substr(good.size() - 40)), "the file is truncated or damaged: its footer says");
  EXPECT_CONTAINS(error("PARE12345678PARE"), "encrypted files are not read: decrypt it first");
  std::string garbled = good;
  uint32_t footer_bytes = 0;
  std::memcpy(&footer_bytes, good.data() + good.size() - 8, 4);
  for (size_t i = good.size() - 8 - footer_bytes; i < good.size() - 8; ++i)
    garbled[i] = static_cast<char>(0xF0 + i % 16);
  EXPECT_CONTAINS(error(garbled), "the footer cannot be read; the file is damaged");
  EXPECT_TRUE(text::IsUtf8(error(garbled)));
  EXPECT_CONTAINS(error(good.substr(0, 4) + good.substr(good.size() - 8 - footer_bytes)),
                  "lie beyond the end of the file");
  EXPECT_CONTAINS(Open(folder.path() + "/none.parquet").status().message(), "none.parquet': no such file");
  EXPECT_CONTAINS(Open(folder.path()).status().message(), "is not a file");
}

// Whatever bytes a footer has, opening ends in an error or in a file; never in a crash (run under the sanitizers).
TEST(ParquetFileTest, FlippedFooterBytesNeverCrash) {
  TempFolder folder;
  const std::string path = folder.File("good.parquet");
  WriteParquet(path, *TableOf({{"i", Ints({1, 2, 3})}, {"s", Strings({"a", "b", "c"})}}), 2);
  const std::string good = ReadBytes(path);
  uint32_t footer_bytes = 0;
  std::memcpy(&footer_bytes, good.data() + good.size() - 8, 4);
  for (size_t i = good.size() - 8 - footer_bytes; i < good.size() - 8; ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ (1 << (i % 8)));
    const arrow::Status status = Open(folder.Write("bad.parquet", bad)).status();
    EXPECT_TRUE(text::IsUtf8(status.ToString()));
  }
}

TEST(ParquetFileTest, AFileThatChangedIsRefused) {
  TempFolder folder;
  const std::string path = folder.File("a.parquet");
  WriteParquet(path, *TableOf({{"i", Ints({1, 2, 3})}}));
  auto files = *ResolveFiles({path}, nullptr);
  ASSERT_TRUE(OpenParquet(*files.filesystem, files.files[0], nullptr).ok());
  std::filesystem::last_write_time(path, std::filesystem::last_write_time(path) + std::chrono::seconds(5));
  EXPECT_CONTAINS(OpenParquet(*files.filesystem, files.files[0], nullptr).status().message(),
                  "changed since the loader was made (written again");
  files.files[0].size_bytes = 10;
  EXPECT_CONTAINS(OpenParquet(*files.filesystem, files.files[0], nullptr).status().message(),
                  "a.parquet': changed since the loader was made (size 10 -> ");
  std::filesystem::remove(path);
  EXPECT_CONTAINS(OpenParquet(*files.filesystem, files.files[0], nullptr).status().message(), "no such file");
}

TEST(ParquetFileTest, ExceptionsBecomeStatuses) {
  const auto thrown = [](auto exception) { return CatchParquet([&]() -> arrow::Status { throw exception; }); };
  EXPECT_TRUE(thrown(std::bad_alloc()).IsOutOfMemory());
  EXPECT_TRUE(thrown(parquet::ParquetStatusException(arrow::Status::OutOfMemory("x"))).IsOutOfMemory());
  EXPECT_TRUE(thrown(parquet::ParquetException("bad \xFF byte")).IsIOError());
  EXPECT_TRUE(text::IsUtf8(thrown(parquet::ParquetException("bad \xFF byte")).ToString()));
  EXPECT_TRUE(thrown(7).IsUnknownError());
  EXPECT_TRUE(CatchParquet([] { return arrow::Status::OK(); }).ok());
}

TEST(SummaryTest, SumsOverAllFiles) {
  TempFolder folder;
  WriteParquet(folder.File("p=1/a.parquet"), *TableOf({{"i", Ints({1, 2, 3})}, {"s", Strings({"x", "y", "x"})}}), 2);
  WriteParquet(folder.File("p=2/b.parquet"), *TableOf({{"s", Strings({"z"})}, {"extra", Ints({1})}}));
  auto summary = Summarize({folder.path()});
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_EQ(summary->files, 2);
  EXPECT_EQ(summary->row_groups, 3);
  EXPECT_EQ(summary->rows, 4);
  EXPECT_EQ(summary->smallest_row_group_rows, 1);
  EXPECT_EQ(summary->largest_row_group_rows, 2);
  EXPECT_GT(summary->size_bytes, 0);
  ASSERT_EQ(summary->columns.size(), 3U);
  EXPECT_EQ(summary->columns[0].name, "i");
  EXPECT_EQ(summary->columns[0].physical_type, "INT64");
  EXPECT_EQ(summary->columns[0].codecs, "uncompressed");
  EXPECT_EQ(summary->columns[1].type, "string");
  EXPECT_EQ(summary->columns[1].encodings, "RLE_DICTIONARY");
  EXPECT_GT(summary->columns[1].uncompressed_bytes, 0);
  EXPECT_EQ(summary->columns[2].name, "p");
  EXPECT_CONTAINS(Summarize({folder.Write("bad.parquet", "")}).status().message(), "bad.parquet': the file is empty");
}

}  // namespace
}  // namespace penstock
