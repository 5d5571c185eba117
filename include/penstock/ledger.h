#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "penstock/mutex.h"

namespace penstock {

/// Who holds memory. kDevice and kStore (an object store's, which bounds it itself) stand beside the sum; all others
/// are in it.
enum class Account : uint8_t { kMetadata, kDecode, kBlocks, kSlots, kShuffle, kUser, kPython, kDevice, kStore };
inline constexpr int kNumAccounts = 9;
inline constexpr bool IsInSum(Account account) { return account != Account::kDevice && account != Account::kStore; }
/// "metadata", "decode", ...
std::string_view AccountName(Account account);

/// A moment's view of a Ledger; all in bytes.
struct MemoryReport {
  struct Line {
    int64_t current_bytes = 0;
    int64_t peak_bytes = 0;
  };
  std::array<Line, kNumAccounts> accounts;
  Line total;
  int64_t budget_bytes = 0;
  int64_t over_budget_bytes = 0;  ///< The most by which Add() has ever exceeded the budget.

  const Line& operator[](Account account) const { return accounts[static_cast<size_t>(account)]; }
};

/// The one place that counts memory. What Penstock allocates is taken with TryAdd() *before* it is allocated, so the
/// sum never exceeds the budget at any instant; what others allocated on the way is charged with Add() when it is seen.
///
/// Four groups can have bytes set aside, so that none starves another: slots (kSlots + kUser + kPython), decoding
/// (kDecode + kBlocks), metadata, and the windows of a shuffle. A group's unused set-aside counts as taken for
/// everybody else, and stays the group's own when Add() went beyond the budget.
///
/// Ownership: by shared_ptr, since slots in the user's hand may outlive the loader.
/// Threads:   every method may be called from any thread.
/// Blocking:  none; who must wait for bytes does so in the scheduler, in plan order.
class Ledger {
 public:
  /// \param budget_bytes  the most that may be taken, > 0.
  explicit Ledger(int64_t budget_bytes) : budget_bytes_(budget_bytes) {}
  Ledger(const Ledger&) = delete;
  Ledger& operator=(const Ledger&) = delete;

  struct Room {
    int64_t slot_bytes = 0;
    int64_t decode_bytes = 0;
    int64_t metadata_bytes = 0;
    int64_t shuffle_bytes = 0;
  };
  /// Sets bytes aside for the four groups. Call before work starts.
  void SetAside(const Room& room) PENSTOCK_EXCLUDES(mu_);

  /// Takes `bytes` if they fit beside what is taken and set aside; false, and nothing taken, otherwise.
  [[nodiscard]] bool TryAdd(Account account, int64_t bytes) PENSTOCK_EXCLUDES(mu_);
  /// Charges what already exists; may exceed the budget, which then shows as over_budget_bytes.
  void Add(Account account, int64_t bytes) PENSTOCK_EXCLUDES(mu_);
  /// Gives `bytes` back.
  void Sub(Account account, int64_t bytes) PENSTOCK_EXCLUDES(mu_);
  /// From one account to another; the sum stays.
  void Move(Account from, Account to, int64_t bytes) PENSTOCK_EXCLUDES(mu_);

  int64_t budget_bytes() const { return budget_bytes_; }
  MemoryReport Report() const PENSTOCK_EXCLUDES(mu_);
  /// Bytes that are taken.
  int64_t HeldBytes(Account account) const PENSTOCK_EXCLUDES(mu_);
  /// Bytes that TryAdd(account) would still admit.
  int64_t FreeBytes(Account account) const PENSTOCK_EXCLUDES(mu_);

 private:
  int64_t FreeBytesLocked(Account account) const PENSTOCK_REQUIRES(mu_);
  void AddLocked(Account account, int64_t bytes) PENSTOCK_REQUIRES(mu_);

  const int64_t budget_bytes_;
  mutable Mutex mu_;
  MemoryReport report_ PENSTOCK_GUARDED_BY(mu_);
  std::array<int64_t, 4> set_aside_bytes_ PENSTOCK_GUARDED_BY(mu_) = {};
};

}  // namespace penstock
