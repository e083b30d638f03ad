// Threads over blocks of rows.
#pragma once

#include <cstddef>

namespace crossent {

// Work of fewer elements than this per thread is not worth starting one.
constexpr std::ptrdiff_t kElementsPerThread = 24576;

// And what is done once a row takes as long as so many elements.
constexpr std::ptrdiff_t kElementsOfRow = 8;

// How many threads a call on rows of so many classes uses.
int threads_for(std::ptrdiff_t rows, std::ptrdiff_t classes);

// A call's work: body(context, first, end, scratch) handles the blocks [first, end) with its own scratch memory.
using BlockRange = void (*)(void* context, std::ptrdiff_t first, std::ptrdiff_t end, char* scratch);

// Splits `blocks` among threads, each with scratch_bytes of memory that it keeps for later calls. False, with nothing run, when
// the memory could not be had.
bool run_parallel(int threads, std::ptrdiff_t blocks, std::size_t scratch_bytes, BlockRange body, void* context);

template <class F>
bool for_each_block_range(int threads, std::ptrdiff_t blocks, std::size_t scratch_bytes, const F& f) {
  return run_parallel(
      threads, blocks, scratch_bytes,
      [](void* context, std::ptrdiff_t first, std::ptrdiff_t end, char* scratch) {
        (*static_cast<const F*>(context))(first, end, scratch);
      },
      const_cast<F*>(&f));
}

}  // namespace crossent
