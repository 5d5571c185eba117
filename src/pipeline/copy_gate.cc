#include "pipeline/copy_gate.h"

#include <algorithm>
#include <utility>

#include "pipeline/fork_generation.h"

namespace penstock {

class CopyGate::Home : public SlotHome {
 public:
  Home(std::shared_ptr<CopyGate> gate, std::shared_ptr<SlotHome> home)
      : gate_(std::move(gate)), home_(std::move(home)) {}
  void ReturnSlot(SlotStorage storage) override { gate_->Return(home_, std::move(storage)); }

 private:
  const std::shared_ptr<CopyGate> gate_;
  const std::shared_ptr<SlotHome> home_;
};

CopyGate::CopyGate(std::shared_ptr<PageLocker> locker)
    : locker_(std::move(locker)), fork_generation_(ForkGeneration()) {}

std::shared_ptr<SlotHome> CopyGate::Before(const std::shared_ptr<CopyGate>& gate, std::shared_ptr<SlotHome> home) {
  return gate == nullptr ? std::move(home) : std::make_shared<Home>(gate, std::move(home));
}

void CopyGate::Start() {
  MutexLock lock(mu_);
  is_running_ = true;
  is_stopping_ = false;
}

void CopyGate::Run() {
  MutexLock lock(mu_);
  while (true) {
    while (waiting_.empty() && !is_stopping_) arrived_.Wait(mu_);
    if (waiting_.empty()) break;
    std::vector<Waiting> slots = std::exchange(waiting_, {});
    const auto num_slots = static_cast<int>(slots.size());
    lock.Unlock();
    locker_->WaitForDevices();
    for (Waiting& each : slots) each.home->ReturnSlot(std::move(each.storage));
    slots.clear();
    lock.Lock();
    num_held_ -= num_slots;
    num_passed_ += num_slots;
    passed_.NotifyAll();
  }
  is_running_ = false;
}

void CopyGate::Stop() {
  MutexLock lock(mu_);
  is_stopping_ = true;
  arrived_.NotifyAll();
}

void CopyGate::Return(std::shared_ptr<SlotHome> home, SlotStorage storage) {
  // In a forked child the home looks after it. A slot that is not locked has been read before a copy returns.
  if (ForkGeneration() != fork_generation_ || !storage.memory.is_locked()) {
    return home->ReturnSlot(std::move(storage));
  }
  {
    MutexLock lock(mu_);
    if (is_running_) {
      waiting_.push_back({std::move(home), std::move(storage)});
      ++num_held_;
      arrived_.NotifyOne();
      return;
    }
  }
  locker_->WaitForDevices();
  home->ReturnSlot(std::move(storage));
}

bool CopyGate::WaitUntilAtMost(int most_waiting, Deadline deadline) {
  MutexLock lock(mu_);
  while (num_held_ > most_waiting) {
    if (!deadline) {
      passed_.Wait(mu_);
      continue;
    }
    const std::chrono::nanoseconds left = *deadline - std::chrono::steady_clock::now();
    if (left.count() <= 0) return false;
    passed_.WaitFor(mu_, left);
  }
  return true;
}

int64_t CopyGate::num_passed() const {
  MutexLock lock(mu_);
  return num_passed_;
}

bool CopyGate::is_empty() const {
  MutexLock lock(mu_);
  return num_held_ == 0;
}

}  // namespace penstock
