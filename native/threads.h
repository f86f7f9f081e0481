// A pool of threads that lives as long as the process. Callers work too; many may call at once.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

// Runs work(0) ... work(count - 1), each once, on at most `threads` threads, this one included. Returns when all have
// run. False when one of them threw. After a fork the child has a fresh pool.
bool run_parallel(int64_t count, int threads, const std::function<void(int64_t)> &work);

// Returns once `count` is at least `least`. Spins first: between two layers the others are microseconds behind.
void wait_until(const std::atomic<int64_t> &count, int64_t least);
