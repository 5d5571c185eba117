#include <dlfcn.h>

#include "penstock/custom_op.h"

namespace penstock {
namespace {

std::string LoaderError() {
  const char* error = dlerror();
  return error != nullptr ? error : "unknown error";
}

}  // namespace

arrow::Result<std::shared_ptr<const CustomOp>> LoadCustomOp(const std::string& path, const std::string& symbol,
                                                            const CustomOpParams& params) {
  // Never closed: the op's code must outlive every op made from it.
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return arrow::Status::IOError("loading the op '", symbol, "': ", LoaderError());
  auto* make = reinterpret_cast<void (*)(CustomOpExchange*)>(dlsym(library, symbol.c_str()));
  if (make == nullptr) {
    return arrow::Status::Invalid("'", path, "' exports no op '", symbol, "'; use PENSTOCK_EXPORT_OP(", symbol,
                                  ", make) there");
  }
  CustomOpExchange exchange;
  exchange.abi = kCustomOpAbi;
  exchange.params = &params;
  make(&exchange);
  if (exchange.callee_abi != kCustomOpAbi) {
    return arrow::Status::Invalid("'", path, "' was built with another version of Penstock or Arrow (", kCustomOpAbi,
                                  " is asked for, ", exchange.callee_abi, " found); build it again");
  }
  if (!exchange.status.ok()) {
    return exchange.status.WithMessage("the op '", symbol, "' of '", path, "': ", exchange.status.message());
  }
  if (exchange.op == nullptr) return arrow::Status::Invalid("'", path, "': '", symbol, "' gave no op");
  return exchange.op;
}

}  // namespace penstock
