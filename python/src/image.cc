#include "penstock/image.h"

#include <arrow/memory_pool.h>
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

#include "bindings.h"
#include "errors.h"
#include "gil.h"
#include "penstock/ops.h"

namespace penstock::python {

using namespace nb::literals;

namespace {

struct ImageStep {
  image::Step step;
};

/// Which row of which epoch, as the loader would say it.
RowKey KeyOf(uint64_t seed, int64_t epoch, int64_t file, int64_t row) {
  RowKey key(0);
  key.seed = seed;
  key.epoch = epoch;
  key.file = file;
  key.file_row = row;
  return key;
}

image::Plan MakePlan(const std::vector<ImageStep>& steps) {
  std::vector<image::Step> plain;
  for (const ImageStep& step : steps) plain.push_back(step.step);
  return Unwrap(image::Plan::Make(std::move(plain)));
}

using Output = nb::ndarray<nb::c_contig, nb::device::cpu>;

void ApplyPlan(const image::Plan& plan, const nb::bytes& encoded, const Output& out, uint64_t seed, int64_t epoch,
               int64_t file, int64_t row) {
  int64_t bytes = ByteWidth(plan.dtype());
  for (int64_t extent : plan.shape()) bytes *= extent;
  if (static_cast<int64_t>(out.nbytes()) != bytes) throw nb::value_error("the output has another size");
  const std::span<const uint8_t> span(reinterpret_cast<const uint8_t*>(encoded.c_str()), encoded.size());
  const arrow::Status status = [&] {
    GilRelease no_gil;
    return plan.Apply(span, KeyOf(seed, epoch, file, row), out.data(), arrow::default_memory_pool());
  }();
  Check(status);
}

using DrawnStep = std::tuple<size_t, int64_t, int64_t, int64_t, int64_t, bool>;

std::vector<DrawnStep> DrawSteps(const image::Plan& plan, int64_t height, int64_t width, uint64_t seed, int64_t epoch,
                                 int64_t file, int64_t row) {
  std::vector<DrawnStep> result;
  for (const image::Drawn& drawn : Unwrap(plan.Draw(height, width, KeyOf(seed, epoch, file, row)))) {
    result.emplace_back(drawn.step, drawn.top, drawn.left, drawn.height, drawn.width, drawn.is_flipped);
  }
  return result;
}

void BindSteps(nb::class_<ImageStep>& step) {
  step.def_static(
      "decode",
      [](std::string_view mode, bool use_orientation, int64_t max_pixels) {
        return ImageStep{image::Decode{mode == "L" ? image::Mode::kL : image::Mode::kRGB, use_orientation, max_pixels}};
      },
      "mode"_a, "use_orientation"_a, "max_pixels"_a);
  step.def_static(
      "resize", [](int64_t height, int64_t width) { return ImageStep{image::Resize{height, width}}; }, "height"_a,
      "width"_a);
  step.def_static(
      "center_crop", [](int64_t height, int64_t width) { return ImageStep{image::CenterCrop{height, width}}; },
      "height"_a, "width"_a);
  step.def_static(
      "random_crop", [](int64_t height, int64_t width) { return ImageStep{image::RandomCrop{height, width}}; },
      "height"_a, "width"_a);
  step.def_static(
      "random_resized_crop",
      [](int64_t height, int64_t width, std::array<double, 2> scale, std::array<double, 2> ratio) {
        return ImageStep{image::RandomResizedCrop{height, width, scale, ratio}};
      },
      "height"_a, "width"_a, "scale"_a, "ratio"_a);
  step.def_static("random_horizontal_flip", [](double p) { return ImageStep{image::RandomHorizontalFlip{p}}; }, "p"_a);
  step.def_static(
      "to_float",
      [](std::string_view dtype) {
        return ImageStep{image::ToFloat{dtype == "float16" ? DType::kFloat16 : DType::kFloat32}};
      },
      "dtype"_a);
  step.def_static(
      "normalize",
      [](std::vector<double> mean, std::vector<double> std) {
        return ImageStep{image::Normalize{std::move(mean), std::move(std)}};
      },
      "mean"_a, "std"_a);
  step.def_static(
      "layout",
      [](std::string_view order) { return ImageStep{order == "HWC" ? image::Order::kHWC : image::Order::kCHW}; },
      "order"_a);
}

}  // namespace

void BindImage(nb::module_& m) {
  nb::class_<ImageStep> step(m, "ImageStep", "A step on an image; what strings mean is checked in Python.");
  BindSteps(step);
  nb::class_<image::Plan>(m, "ImagePlan", "Steps, compiled.")
      .def(
          "__init__",
          [](image::Plan* self, const std::vector<ImageStep>& steps) { new (self) image::Plan(MakePlan(steps)); },
          "steps"_a)
      .def_prop_ro("dtype", [](const image::Plan& plan) { return std::string(DTypeName(plan.dtype())); })
      .def_prop_ro("shape", [](const image::Plan& plan) { return plan.shape(); })
      .def("apply", &ApplyPlan, "encoded"_a, "out"_a, "seed"_a, "epoch"_a, "file"_a, "row"_a,
           nb::sig("def apply(self, encoded: bytes, out: object, seed: int, epoch: int, file: int, row: int) -> None"),
           "One image, written to `out`.")
      .def("draw", &DrawSteps, "height"_a, "width"_a, "seed"_a, "epoch"_a, "file"_a, "row"_a,
           "(step, top, left, height, width, is_flipped) of each random step.")
      .def("op", [](const image::Plan& plan) { return ops::Custom{image::MakeTransform(plan)}; });
}

}  // namespace penstock::python
