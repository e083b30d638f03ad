// OpenMP behind a small interface. libgomp hangs in a forked child whose parent had used it, so a child runs serially.
#include "parallel.hpp"

#include <atomic>
#include <new>
#include <string>

#if defined(_OPENMP)
#include <omp.h>
#endif
#if !defined(_WIN32)
#include <pthread.h>
#endif

#include "api.hpp"

namespace crossent {
namespace {

std::atomic<bool> forked{false};

int default_threads() {
#if defined(_OPENMP)
  return omp_get_max_threads();
#else
  return 1;
#endif
}

std::atomic<int>& threads() {
  static std::atomic<int> count = [] {
#if !defined(_WIN32)
    pthread_atfork(nullptr, nullptr, [] { forked.store(true); });
#endif
    return default_threads();
  }();
  return count;
}

// Grows to the largest size asked for, and stays until the thread ends.
class Scratch {
 public:
  ~Scratch() { release(); }
  char* at_least(std::size_t bytes) {
    if (bytes <= size_) return memory_;
    release();
    size_ = 0;
    memory_ = static_cast<char*>(::operator new(bytes, kAlignment, std::nothrow));
    if (memory_) size_ = bytes;
    return memory_;
  }

 private:
  void release() { ::operator delete(memory_, kAlignment); }

  // Not std::aligned_alloc, which Windows lacks.
  static constexpr std::align_val_t kAlignment{4096};
  char* memory_ = nullptr;
  std::size_t size_ = 0;
};

char* thread_scratch(std::size_t bytes) {
  thread_local Scratch scratch;
  return scratch.at_least(bytes ? bytes : 1);
}

}  // namespace

int get_num_threads() {
  const int count = threads().load(std::memory_order_relaxed);
  return forked.load(std::memory_order_relaxed) ? 1 : count;
}

Status set_num_threads(int n) {
  if (n < 1) return {Code::bad_value, "the number of threads must be at least 1, not " + std::to_string(n)};
#if defined(_OPENMP)
  threads().store(n);
#else
  threads().store(1);
#endif
  return {};
}

bool has_openmp() {
#if defined(_OPENMP)
  return true;
#else
  return false;
#endif
}

int threads_for(std::ptrdiff_t rows, std::ptrdiff_t classes) {
  const std::ptrdiff_t elements = rows * (classes + kElementsOfRow);
  if (elements < 2 * kElementsPerThread) return 1;
  const std::ptrdiff_t useful = elements / kElementsPerThread;
  const int limit = get_num_threads();
  return useful < limit ? static_cast<int>(useful) : limit;
}

bool run_parallel(int count, std::ptrdiff_t blocks, std::size_t scratch_bytes, BlockRange body, void* context) {
  if (count > blocks) count = static_cast<int>(blocks);
#if defined(_OPENMP)
  if (count > 1) {
    bool failed = false;
#pragma omp parallel num_threads(count)
    {
      char* scratch = thread_scratch(scratch_bytes);
      if (!scratch) {
#pragma omp atomic write
        failed = true;
      }
#pragma omp barrier
      if (!failed) {
        const std::ptrdiff_t team = omp_get_num_threads(), member = omp_get_thread_num();
        const std::ptrdiff_t share = blocks / team, extra = blocks % team;
        const std::ptrdiff_t first = member * share + (member < extra ? member : extra);
        const std::ptrdiff_t end = first + share + (member < extra ? 1 : 0);
        if (first < end) body(context, first, end, scratch);
      }
    }
    return !failed;
  }
#endif
  char* scratch = thread_scratch(scratch_bytes);
  if (!scratch) return false;
  if (blocks > 0) body(context, 0, blocks, scratch);
  return true;
}

}  // namespace crossent
