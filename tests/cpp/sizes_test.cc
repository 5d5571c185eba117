#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "memory/machine.h"
#include "penstock/options.h"

namespace penstock {
namespace {

TEST(SizesTest, ParsesUnitsInAnyCase) {
  const std::pair<const char*, int64_t> cases[] = {
      {"0", 0},
      {"4096", 4096},
      {" 256MiB ", 256 << 20},
      {"1.5 GB", 1500000000},
      {"1.5KiB", 1536},
      {"1kb", 1000},
      {"2g", int64_t{2} << 30},
      {"7 B", 7},
      {".5K", 512},
      {"1TiB", int64_t{1} << 40},
      {"0.3KB", 300},
      {"9223372036854775807", INT64_MAX},
  };
  for (const auto& [text, bytes] : cases) {
    auto parsed = ParseBytes(text);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(*parsed, bytes) << text;
  }
}

TEST(SizesTest, RefusesWhatIsNoSize) {
  for (const char* text : {"", " ", "MiB", "-1", "1.5", "1..5K", "1e9", "1 XB", "1 MiBs", "nan", "inf", "0x10",
                           "9223372036854775808", "8388608TiB", "99999999999PB", "1,5GB"}) {
    auto parsed = ParseBytes(text);
    EXPECT_TRUE(parsed.status().IsInvalid()) << text;
    EXPECT_NE(parsed.status().message().find("is not a size; write"), std::string::npos);
  }
}

TEST(SizesTest, Formats) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(268435456), "256.0 MiB");
  EXPECT_EQ(FormatBytes(1536), "1.5 KiB");
  EXPECT_EQ(FormatBytes((1 << 20) - 1), "1.0 MiB");
  EXPECT_EQ(FormatBytes(-(1 << 20)), "-1.0 MiB");
  EXPECT_EQ(FormatBytes(INT64_MAX), "8.0 EiB");
  EXPECT_EQ(FormatBytes(INT64_MIN), "-8.0 EiB");
}

/// A mount of control groups, made of files.
class FakeMount {
 public:
  FakeMount() {
    std::string name = (std::filesystem::temp_directory_path() / "penstock-cgroup-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) ADD_FAILURE() << "cannot make a folder for the test";
    path_ = name;
  }
  ~FakeMount() { std::filesystem::remove_all(path_); }
  void Set(const std::string& file, const std::string& text) const {
    std::filesystem::create_directories((path_ / file).parent_path());
    std::ofstream(path_ / file) << text;
  }
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

TEST(MachineTest, Version2TakesTheTightestOnTheWayUp) {
  FakeMount mount;
  mount.Set("a/b/cpu.max", "max 100000\n");
  mount.Set("a/b/memory.max", "max\n");
  mount.Set("a/cpu.max", "150000 100000\n");
  mount.Set("a/memory.max", "1073741824\n");
  mount.Set("cpu.max", "400000 100000\n");
  const CgroupLimits limits = ReadCgroupLimits("0::/a/b\n", mount.path());
  EXPECT_DOUBLE_EQ(limits.cores, 1.5);
  EXPECT_EQ(limits.memory_bytes, 1 << 30);
}

TEST(MachineTest, Version1AndGroupsThatTheContainerDoesNotSee) {
  FakeMount mount;
  mount.Set("cpu,cpuacct/cpu.cfs_quota_us", "200000\n");
  mount.Set("cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  mount.Set("memory/memory.limit_in_bytes", "536870912\n");
  const CgroupLimits limits =
      ReadCgroupLimits("4:cpu,cpuacct:/docker/xyz\n3:memory:/docker/xyz\n2:cpuset:/\nnonsense\n", mount.path());
  EXPECT_DOUBLE_EQ(limits.cores, 2.0);
  EXPECT_EQ(limits.memory_bytes, 536870912);
}

TEST(MachineTest, NoLimits) {
  FakeMount mount;
  mount.Set("memory/cpu.cfs_quota_us", "-1\n");
  for (const char* self : {"", "0::/\n", "3:memory:/\n"}) {
    const CgroupLimits limits = ReadCgroupLimits(self, mount.path());
    EXPECT_LT(limits.cores, 0);
    EXPECT_LT(limits.memory_bytes, 0);
  }
}

TEST(MachineTest, ThisMachine) {
  EXPECT_GE(AvailableCores(), 1);
  EXPECT_GT(AvailableMemoryBytes(), 64 << 20);
}

}  // namespace
}  // namespace penstock
