#include "penstock/ops.h"

#include <nanobind/nanobind.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "arrow_exchange.h"
#include "bindings.h"
#include "errors.h"
#include "gil.h"
#include "python_op.h"

namespace penstock::python {

using namespace nb::literals;

namespace {

constexpr std::array kCastTargets = {DType::kBool,   DType::kInt8,    DType::kInt16,   DType::kInt32,
                                     DType::kInt64,  DType::kUInt8,   DType::kUInt16,  DType::kUInt32,
                                     DType::kUInt64, DType::kFloat16, DType::kFloat32, DType::kFloat64};

DType DTypeFromName(std::string_view name) {
  for (DType type : kCastTargets) {
    if (DTypeName(type) == name) return type;
  }
  throw nb::value_error(("no number type is called '" + std::string(name) + "'").c_str());
}

nb::tuple CastTargetNames() {
  nb::list names;
  for (DType type : kCastTargets) names.append(std::string(DTypeName(type)));
  return nb::tuple(names);
}

// Text travels as bytes, since binary columns have values that are not UTF-8.
std::optional<std::string> TextOf(const std::optional<nb::bytes>& text) {
  if (!text) return std::nullopt;
  return std::string(text->c_str(), text->size());
}

ops::Side SideFromName(std::string_view name) {
  if (name != "left" && name != "right") throw nb::value_error("a side is 'left' or 'right'");
  return name == "left" ? ops::Side::kLeft : ops::Side::kRight;
}

std::optional<ops::Side> SideFromName(std::optional<std::string_view> name) {
  return name ? std::optional(SideFromName(*name)) : std::nullopt;
}

ops::Custom LoadOp(const std::string& path, const std::string& symbol, const CustomOpParams& params) {
  auto loaded = [&] {
    GilRelease no_gil;
    return LoadCustomOp(path, symbol, params);
  }();
  return {Unwrap(std::move(loaded))};
}

ops::Custom MakePythonOp(nb::object run, std::string name, std::string_view dtype, std::vector<int64_t> shape) {
  CustomOp::Output output{DTypeFromName(dtype), std::move(shape)};
  return {std::make_shared<const PythonOp>(std::move(run), std::move(name), std::move(output))};
}

void BindRowOps(nb::module_& m) {
  nb::class_<ops::PadList>(m, "PadList")
      .def(
          "__init__",
          [](ops::PadList* self, int64_t length, const ops::FillNull& value, std::string_view side,
             std::optional<std::string_view> truncate) {
            new (self) ops::PadList{length, value, SideFromName(side), SideFromName(truncate)};
          },
          "length"_a, "value"_a, "side"_a, "truncate"_a.none());
  nb::class_<ops::Pack>(m, "Pack").def(
      "__init__",
      [](ops::Pack* self, int64_t length, const ops::FillNull& value) { new (self) ops::Pack{length, value}; },
      "length"_a, "value"_a);
  nb::class_<ops::ListLength>(m, "ListLength").def(nb::init<>());
  nb::class_<ops::Custom>(m, "Custom", "An op of the user's own.");
  m.def("load_custom_op", &LoadOp, "path"_a, "symbol"_a, "params"_a, "The op that a shared object exports.");
  m.def("python_op", &MakePythonOp, "run"_a, "name"_a, "dtype"_a, "shape"_a,
        nb::sig("def python_op(run: collections.abc.Callable[[ArrowExport], object], name: str, dtype: str, shape: "
                "collections.abc.Sequence[int]) -> Custom"),
        "An op written in Python; `run` gives a C-contiguous buffer of as many rows as it gets.");
}

}  // namespace

void BindOps(nb::module_& m) {
  m.def("cast_targets", &CastTargetNames, nb::sig("def cast_targets() -> tuple[str, ...]"),
        "Names of the types that Cast can make.");
  nb::class_<ops::Cast>(m, "Cast").def(
      "__init__", [](ops::Cast* self, std::string_view to) { new (self) ops::Cast{DTypeFromName(to)}; }, "to"_a);
  nb::class_<ops::FillNull>(m, "FillNull")
      .def(
          "__init__",
          [](ops::FillNull* self, double value, const std::optional<nb::bytes>& text, std::optional<int64_t> integer) {
            new (self) ops::FillNull{value, TextOf(text), integer};
          },
          "value"_a, "text"_a.none(), "integer"_a.none());
  nb::class_<ops::HashBucket>(m, "HashBucket")
      .def(
          "__init__", [](ops::HashBucket* self, int64_t buckets) { new (self) ops::HashBucket{buckets}; }, "buckets"_a);
  nb::class_<ops::Lookup>(m, "Lookup")
      .def(
          "__init__",
          [](ops::Lookup* self, nb::object vocabulary, std::optional<int64_t> missing) {
            new (self) ops::Lookup{ImportArray(vocabulary), missing};
          },
          "vocabulary"_a, "missing"_a.none());
  nb::class_<ops::Scale>(m, "Scale")
      .def(
          "__init__", [](ops::Scale* self, double mean, double std) { new (self) ops::Scale{mean, std}; }, "mean"_a,
          "std"_a);
  nb::class_<ops::Clip>(m, "Clip").def(
      "__init__",
      [](ops::Clip* self, std::optional<double> lower, std::optional<double> upper) {
        new (self) ops::Clip{lower, upper};
      },
      "lower"_a.none(), "upper"_a.none());
  nb::class_<ops::Spin>(m, "Spin").def(
      "__init__",
      [](ops::Spin* self, double mean_us, double sigma, int64_t heavy_every, double heavy_factor, bool is_sleep) {
        new (self) ops::Spin{mean_us, sigma, heavy_every, heavy_factor, is_sleep};
      },
      "mean_us"_a, "sigma"_a, "heavy_every"_a, "heavy_factor"_a, "is_sleep"_a);
  BindRowOps(m);
}

}  // namespace penstock::python
