#include "threads.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#ifndef _WIN32
#include <pthread.h>
#endif

namespace {

struct Job {
  Job(const std::function<void(int64_t)> &work, int64_t count, int wanted)
      : work(&work), count(count), wanted(wanted) {}

  const std::function<void(int64_t)> *work;
  int64_t count;
  std::atomic<int64_t> next{0};
  std::atomic<bool> failed{false};
  int wanted;      // helpers that may still join; guarded by the pool's mutex
  int inside = 0;  // helpers at work; guarded by the pool's mutex

  void drain() {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
      try {
        (*work)(i);
      } catch (...) {
        failed.store(true);
      }
    }
  }
};

struct Pool {
  std::mutex mutex;
  std::condition_variable arrived, left;
  std::vector<Job *> jobs;
  int threads = 0, idle = 0;

  void serve() {
    std::unique_lock<std::mutex> lock(mutex);
    for (;;) {
      const auto open = std::find_if(jobs.begin(), jobs.end(), [](Job *job) { return job->wanted > 0; });
      if (open == jobs.end()) {
        idle++;
        arrived.wait(lock);
        idle--;
        continue;
      }
      Job *job = *open;
      job->wanted--;
      job->inside++;
      lock.unlock();
      job->drain();
      lock.lock();
      if (--job->inside == 0) left.notify_all();
    }
  }

  bool run(int64_t count, int helpers, const std::function<void(int64_t)> &work) {
    Job job(work, count, helpers);
    {
      std::lock_guard<std::mutex> lock(mutex);
      jobs.push_back(&job);
      for (int have = idle; have < helpers && threads < MOST; have++, threads++) {
        try {
          std::thread([this] { serve(); }).detach();
        } catch (...) {
          break;  // no more threads to be had: the caller does the work
        }
      }
    }
    for (int i = 0; i < helpers; i++) arrived.notify_one();
    job.drain();
    std::unique_lock<std::mutex> lock(mutex);
    job.wanted = 0;
    jobs.erase(std::find(jobs.begin(), jobs.end(), &job));
    left.wait(lock, [&] { return job.inside == 0; });
    return !job.failed.load();
  }

  static constexpr int MOST = 256;
};

// Never destroyed: threads may outlive static destructors.
std::atomic<Pool *> pool{nullptr};

void forget() { pool.store(new Pool); }

Pool &the_pool() {
  static std::once_flag once;
  std::call_once(once, [] {
    pool.store(new Pool);
#ifndef _WIN32
    // The child has none of the threads, and perhaps a locked mutex: it gets a new pool and leaks the old one.
    pthread_atfork(nullptr, nullptr, forget);
#endif
  });
  return *pool.load();
}

}  // namespace

bool run_parallel(int64_t count, int threads, const std::function<void(int64_t)> &work) {
  const int helpers = static_cast<int>(std::min<int64_t>(threads, count)) - 1;
  if (helpers > 0) return the_pool().run(count, helpers, work);
  try {
    for (int64_t i = 0; i < count; i++) work(i);
  } catch (...) {
    return false;
  }
  return true;
}

void wait_until(const std::atomic<int64_t> &count, int64_t least) {
  // Some 20 microseconds, then the core is given away: on a busy machine the one waited for may need it.
  for (int spin = 0; count.load(std::memory_order_acquire) < least; spin++) {
    if (spin > 2000) std::this_thread::yield();
#if defined(__x86_64__) || defined(__i386__)
    else __builtin_ia32_pause();
#endif
  }
}
