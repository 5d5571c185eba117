#pragma once

namespace penstock {

/// How often this process is a fork of the one that loaded the library. Threads and held mutexes do not survive a fork.
int ForkGeneration();

}  // namespace penstock
