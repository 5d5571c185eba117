// Photos to tensors, and beside it what nothing that decodes whole photos can beat: libjpeg-turbo and nothing else.
//   bench/run photo_files
//   PENSTOCK_BENCH_PHOTOS=bench/data/photos penstock_bench --benchmark_filter=Image
#include <arrow/memory_pool.h>
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

#include "image/jpeg_library.h"
#include "penstock/image.h"

namespace penstock::image {
namespace {

using Bytes = std::vector<uint8_t>;

const std::vector<Bytes>& Photos() {
  static const std::vector<Bytes> photos = [] {
    std::vector<Bytes> read;
    const char* folder = std::getenv("PENSTOCK_BENCH_PHOTOS");
    if (folder == nullptr) return read;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      std::ifstream file(entry.path(), std::ios::binary);
      read.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
    return read;
  }();
  return photos;
}

bool HasPhotos(benchmark::State& state) {
  if (!Photos().empty()) return true;
  state.SkipWithError("set PENSTOCK_BENCH_PHOTOS to a folder of JPEG files (bench/run photo_files)");
  return false;
}

void RunPlan(benchmark::State& state, std::vector<Step> steps) {
  if (!HasPhotos(state)) return;
  const Plan plan = Plan::Make(std::move(steps)).ValueOrDie();
  std::vector<float> out(3 * 500 * 500);
  int64_t row = 0;
  for (auto _ : state) {
    const Bytes& photo = Photos()[static_cast<size_t>(row) % Photos().size()];
    const auto status = plan.Apply(photo, row, out.data(), arrow::default_memory_pool());
    if (!status.ok()) state.SkipWithError(status.ToString().c_str());
    ++row;
  }
  state.SetItemsProcessed(row);
}

const Normalize kNormalize{{0.485, 0.456, 0.406}, {0.229, 0.224, 0.225}};

void ImageTraining(benchmark::State& state) {
  RunPlan(state, {Decode{}, RandomResizedCrop{224, 224}, RandomHorizontalFlip{}, kNormalize});
}
BENCHMARK(ImageTraining);

void ImageWholeResized(benchmark::State& state) { RunPlan(state, {Decode{}, Resize{224, 224}, kNormalize}); }
BENCHMARK(ImageWholeResized);

void ImageWholeAsItIs(benchmark::State& state) { RunPlan(state, {Decode{}, Resize{375, 500}}); }
BENCHMARK(ImageWholeAsItIs);

void ImageCeiling(benchmark::State& state) {
  if (!HasPhotos(state)) return;
  size_t photo = 0;
  Bytes row;
  for (auto _ : state) {
    const Bytes& bytes = Photos()[photo++ % Photos().size()];
    jpeg_decompress_struct jpeg{};
    jpeg_error_mgr errors;
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&jpeg);
    jpeg_mem_src(&jpeg, bytes.data(), static_cast<unsigned long>(bytes.size()));
    jpeg_read_header(&jpeg, TRUE);
    jpeg.out_color_space = JCS_RGB;
    jpeg_start_decompress(&jpeg);
    row.resize(3 * jpeg.output_width);
    while (jpeg.output_scanline < jpeg.output_height) {
      JSAMPROW rows[] = {row.data()};
      jpeg_read_scanlines(&jpeg, rows, 1);
    }
    jpeg_destroy_decompress(&jpeg);
  }
  state.SetItemsProcessed(static_cast<int64_t>(photo));
}
BENCHMARK(ImageCeiling);

}  // namespace
}  // namespace penstock::image
