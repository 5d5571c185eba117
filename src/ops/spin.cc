#include "ops/spin.h"

#include <arrow/result.h>
#include <sys/prctl.h>

#include <chrono>
#include <cmath>
#include <numbers>
#include <thread>

namespace penstock {
namespace {

// splitmix64: one step.
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

// In (0, 1).
double Uniform(uint64_t hash) { return (static_cast<double>(hash >> 11) + 0.5) * 0x1p-53; }

bool IsDuration(double value) { return std::isfinite(value) && value >= 0; }

}  // namespace

arrow::Result<Spinner> Spinner::Make(const ops::Spin& op) {
  if (!IsDuration(op.mean_us) || !IsDuration(op.sigma) || !IsDuration(op.heavy_factor) || op.heavy_every < 0) {
    return arrow::Status::Invalid("spin: mean_us, sigma, heavy_every and heavy_factor must be finite and not negative");
  }
  return Spinner(op);
}

// The mean of a lognormal is exp(mu + sigma^2 / 2).
Spinner::Spinner(const ops::Spin& op) : op_(op), log_median_(std::log(op.mean_us) - op.sigma * op.sigma / 2) {}

double Spinner::RowMicros(int64_t row) const {
  if (op_.mean_us == 0) return 0;
  const uint64_t first = Mix(static_cast<uint64_t>(row));
  const uint64_t second = Mix(first);
  const double normal = std::sqrt(-2 * std::log(Uniform(first))) * std::cos(2 * std::numbers::pi * Uniform(second));
  const double micros = std::exp(log_median_ + op_.sigma * normal);
  const bool is_heavy = op_.heavy_every > 0 && Mix(second) % static_cast<uint64_t>(op_.heavy_every) == 0;
  return is_heavy ? micros * op_.heavy_factor : micros;
}

void Spinner::Spend(const RowKey& key, int64_t rows) const {
  double micros = 0;
  for (int64_t i = 0; i < rows; ++i) micros += RowMicros(key.row(i));
  const std::chrono::duration<double, std::micro> time(micros);
  if (op_.is_sleep) {
    // Linux wakes a sleeper up to 50 microseconds late unless the thread asks for better: too coarse for rows of 100.
    [[maybe_unused]] static thread_local const int precise = prctl(PR_SET_TIMERSLACK, 1UL);
    std::this_thread::sleep_for(time);
    return;
  }
  const auto start = std::chrono::steady_clock::now();
  while (std::chrono::steady_clock::now() - start < time) {
  }
}

}  // namespace penstock
