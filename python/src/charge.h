#pragma once

#include <unistd.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "penstock/ledger.h"

namespace penstock::python {

/// Bytes that user code holds, in an account of the ledger until this object dies or is released.
///
/// Ownership: shares the ledger, so it may outlive the loader.
/// Threads:   under the GIL.
/// Fork:      in a child the ledger's mutex may be held for ever by a thread that is gone: nothing is given back there.
class Charge {
 public:
  Charge(std::shared_ptr<Ledger> ledger, Account account, int64_t bytes)
      : ledger_(std::move(ledger)), account_(account), bytes_(bytes), pid_(getpid()) {
    ledger_->Add(account_, bytes_);
  }
  ~Charge() { Release(); }
  Charge(const Charge&) = delete;
  Charge& operator=(const Charge&) = delete;

  void Release() {
    const int64_t bytes = std::exchange(bytes_, 0);
    if (bytes != 0 && getpid() == pid_) ledger_->Sub(account_, bytes);
  }

 private:
  const std::shared_ptr<Ledger> ledger_;
  const Account account_;
  int64_t bytes_;
  const pid_t pid_;
};

}  // namespace penstock::python
