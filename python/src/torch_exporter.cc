#include <nanobind/ndarray.h>

#include <string>
#include <utility>
#include <vector>

#include "batch_exporter.h"
#include "dict_exporter.h"

namespace penstock::python {

namespace nb = nanobind;

namespace {

namespace dlpack = nb::dlpack;

// DLPack's structures as the ABI fixes them (https://dmlc.github.io/dlpack/latest/c_api.html); nanobind keeps its own
// private.
struct DLManagedTensor {
  dlpack::dltensor tensor;
  void* context;
  void (*deleter)(DLManagedTensor*);
};
constexpr const char* kCapsuleName = "dltensor";

/// One tensor on its way to torch and as long as torch holds it. The deleter needs no GIL: it only lets the slot go.
struct HeldTensor {
  DLManagedTensor managed{};
  std::vector<int64_t> shape;
  std::shared_ptr<void> hold;
};

// A capsule that torch took is renamed; one that it did not take still owns its tensor.
void DestroyCapsule(PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, kCapsuleName) == 0) return;
  auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, kCapsuleName));
  managed->deleter(managed);
}

dlpack::dtype ToDLPack(DType type) {
  const auto bits = static_cast<uint8_t>(8 * ByteWidth(type));
  switch (type) {
    case DType::kBool:
      return {static_cast<uint8_t>(dlpack::dtype_code::Bool), bits, 1};
    case DType::kInt8:
    case DType::kInt16:
    case DType::kInt32:
    case DType::kInt64:
      return {static_cast<uint8_t>(dlpack::dtype_code::Int), bits, 1};
    case DType::kUInt8:
    case DType::kUInt16:
    case DType::kUInt32:
    case DType::kUInt64:
      return {static_cast<uint8_t>(dlpack::dtype_code::UInt), bits, 1};
    case DType::kFloat16:
    case DType::kFloat32:
    case DType::kFloat64:
      return {static_cast<uint8_t>(dlpack::dtype_code::Float), bits, 1};
    case DType::kDecimal128:
    case DType::kBytes:
      break;
  }
  throw nb::type_error(("a column of " + std::string(DTypeName(type)) + " has no tensor form").c_str());
}

class TorchMaker {
 public:
  using Type = dlpack::dtype;

  static Type TypeOf(DType type) { return ToDLPack(type); }

  nb::object Make(const Batch& batch, uint8_t* data, int64_t length, Type dtype, const std::vector<int64_t>& row_shape,
                  int64_t /*bytes*/) const {
    auto held = std::make_unique<HeldTensor>();
    held->shape.reserve(row_shape.size() + 1);
    held->shape.push_back(length);
    held->shape.insert(held->shape.end(), row_shape.begin(), row_shape.end());
    held->hold = batch.hold();
    dlpack::dltensor& tensor = held->managed.tensor;
    tensor.data = data;
    tensor.device = {1, 0};  // kDLCPU
    tensor.ndim = static_cast<int32_t>(held->shape.size());
    tensor.dtype = dtype;
    tensor.shape = held->shape.data();
    held->managed.context = held.get();
    held->managed.deleter = [](DLManagedTensor* managed) { delete static_cast<HeldTensor*>(managed->context); };
    nb::object capsule = nb::steal(PyCapsule_New(&held->managed, kCapsuleName, &DestroyCapsule));
    if (!capsule.is_valid()) throw nb::python_error();
    (void)held.release();  // The capsule owns it now, and then the tensor.
    nb::object result = nb::steal(PyObject_CallOneArg(from_dlpack_.ptr(), capsule.ptr()));
    if (!result.is_valid()) throw nb::python_error();
    return result;
  }

 private:
  // Private, but 10 times as fast as torch.from_dlpack, which looks for devices and copies first.
  static nb::object FindFromDLPack() {
    nb::object native = nb::module_::import_("torch._C");
    if (nb::hasattr(native, "_from_dlpack")) return native.attr("_from_dlpack");
    return nb::module_::import_("torch").attr("from_dlpack");
  }

  nb::object from_dlpack_ = FindFromDLPack();
};

}  // namespace

std::unique_ptr<BatchExporter> MakeTorchExporter(const Schema& schema) {
  return std::make_unique<DictExporter<TorchMaker>>(schema);
}

}  // namespace penstock::python
