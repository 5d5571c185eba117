#include "penstock/ledger.h"

#include <algorithm>
#include <cassert>

namespace penstock {
namespace {

size_t Index(Account account) { return static_cast<size_t>(account); }

enum Group : size_t { kSlotGroup, kDecodeGroup, kMetadataGroup, kShuffleGroup, kNoGroup };

Group GroupOf(Account account) {
  switch (account) {
    case Account::kSlots:
    case Account::kUser:
    case Account::kPython:
      return kSlotGroup;
    case Account::kDecode:
    case Account::kBlocks:
      return kDecodeGroup;
    case Account::kMetadata:
      return kMetadataGroup;
    case Account::kShuffle:
      return kShuffleGroup;
    case Account::kDevice:
    case Account::kStore:
      break;
  }
  return kNoGroup;
}

}  // namespace

std::string_view AccountName(Account account) {
  static constexpr std::array<std::string_view, kNumAccounts> kNames = {
      "metadata", "decode", "blocks", "slots", "shuffle", "user", "python", "device", "store"};
  return kNames[Index(account)];
}

void Ledger::SetAside(const Room& room) {
  MutexLock lock(mu_);
  set_aside_bytes_ = {room.slot_bytes, room.decode_bytes, room.metadata_bytes, room.shuffle_bytes};
}

int64_t Ledger::FreeBytesLocked(Account account) const {
  std::array<int64_t, kNoGroup + 1> group_bytes = {};
  for (int i = 0; i < kNumAccounts; ++i) {
    const auto each = static_cast<Account>(i);
    group_bytes[GroupOf(each)] += report_[each].current_bytes;
  }
  // The caller's own group may use its set-aside; the others' stay out of reach.
  int64_t out_of_reach = 0;
  for (size_t group = 0; group < set_aside_bytes_.size(); ++group) {
    if (group != GroupOf(account)) out_of_reach += std::max<int64_t>(0, set_aside_bytes_[group] - group_bytes[group]);
  }
  // What Add() charged beyond the budget stops what is not set aside, but takes nothing from who needs it to go on.
  const size_t own = GroupOf(account);
  const int64_t own_bytes = own < set_aside_bytes_.size() ? set_aside_bytes_[own] - group_bytes[own] : 0;
  return std::max(own_bytes, budget_bytes_ - report_.total.current_bytes - out_of_reach);
}

void Ledger::AddLocked(Account account, int64_t bytes) {
  auto& line = report_.accounts[Index(account)];
  line.current_bytes += bytes;
  line.peak_bytes = std::max(line.peak_bytes, line.current_bytes);
  if (!IsInSum(account)) return;
  report_.total.current_bytes += bytes;
  report_.total.peak_bytes = std::max(report_.total.peak_bytes, report_.total.current_bytes);
  report_.over_budget_bytes = std::max(report_.over_budget_bytes, report_.total.current_bytes - budget_bytes_);
}

bool Ledger::TryAdd(Account account, int64_t bytes) {
  MutexLock lock(mu_);
  if (bytes > FreeBytesLocked(account)) return false;
  AddLocked(account, bytes);
  return true;
}

void Ledger::Add(Account account, int64_t bytes) {
  MutexLock lock(mu_);
  AddLocked(account, bytes);
}

void Ledger::Sub(Account account, int64_t bytes) {
  MutexLock lock(mu_);
  auto& line = report_.accounts[Index(account)];
  assert(line.current_bytes >= bytes);
  line.current_bytes -= bytes;
  if (IsInSum(account)) report_.total.current_bytes -= bytes;
}

void Ledger::Move(Account from, Account to, int64_t bytes) {
  MutexLock lock(mu_);
  auto& line = report_.accounts[Index(from)];
  assert(line.current_bytes >= bytes);
  line.current_bytes -= bytes;
  report_.total.current_bytes -= bytes;  // Added again below, so that the total's peak does not see both.
  AddLocked(to, bytes);
}

MemoryReport Ledger::Report() const {
  MutexLock lock(mu_);
  MemoryReport report = report_;
  report.budget_bytes = budget_bytes_;
  return report;
}

int64_t Ledger::HeldBytes(Account account) const {
  MutexLock lock(mu_);
  return report_[account].current_bytes;
}

int64_t Ledger::FreeBytes(Account account) const {
  MutexLock lock(mu_);
  return FreeBytesLocked(account);
}

}  // namespace penstock
