#include "pipeline/running_epoch.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <system_error>
#include <utility>

namespace penstock {
namespace {

// The consumer is to be scheduled at once when it wakes: workers are batch work. Needs no privilege; where it is
// refused nothing is lost.
void BecomeBatchWork() {
  sched_param param = {};
  pthread_setschedparam(pthread_self(), SCHED_BATCH, &param);
  pthread_setname_np(pthread_self(), "penstock");
}

}  // namespace

RunningEpoch::RunningEpoch(EpochPlan plan, PlanCursor cursor, std::optional<MixPlan> mix,
                           std::shared_ptr<CopyGate> gate)
    : num_workers_(plan.num_workers),
      gate_(std::move(gate)),
      scheduler_(std::make_shared<Scheduler>(std::move(plan), std::move(cursor))),
      mixer_(mix ? std::make_shared<Mixer>(std::move(*mix), scheduler_) : nullptr),
      giver_(mixer_ != nullptr ? std::static_pointer_cast<SlotGiver>(mixer_) : scheduler_) {}

// Where Start() could not start all threads.
RunningEpoch::~RunningEpoch() {
  if (!threads_.empty()) End();
}

arrow::Status RunningEpoch::Start() {
  if (num_workers_ == 0) return arrow::Status::OK();
  try {
    StartThreads();
  } catch (const std::system_error& error) {
    return arrow::Status::UnknownError("a thread cannot be started (", error.what(),
                                       "): lower num_workers, or allow this process more threads");
  }
  return arrow::Status::OK();
}

void RunningEpoch::StartThreads() {
  for (int i = 0; i < num_workers_; ++i) {
    threads_.emplace_back([this] {
      BecomeBatchWork();
      scheduler_->RunWorker();
    });
  }
  if (gate_ != nullptr) {
    gate_->Start();
    threads_.emplace_back([this] {
      BecomeBatchWork();
      gate_->Run();
    });
  }
  if (mixer_ == nullptr) return;
  threads_.emplace_back([this] { mixer_->RunFiller(); });
  for (int i = 0; i < std::min(num_workers_, mixer_->most_mixers()); ++i) {
    threads_.emplace_back([this] {
      BecomeBatchWork();
      mixer_->RunMixer();
    });
  }
}

void RunningEpoch::Stop() {
  if (mixer_ != nullptr) mixer_->Stop();
  scheduler_->Stop();
}

void RunningEpoch::End() {
  Stop();
  if (gate_ != nullptr) gate_->Stop();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  if (mixer_ != nullptr) mixer_->Clear();
  scheduler_->Clear();
}

}  // namespace penstock
